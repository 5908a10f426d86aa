#!/usr/bin/env bats
# qstream ppl: what it prints adds up and goes with its schema; expected figures fail the command when they are missed; wrong
# options, tokens and files end with their exit codes and one line. A tiny model with the tokenizer of the sample model, and
# the sample model itself against the figures in configs/.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
    prepare
    [[ -e $ROOT/build/models/smollm2-bf16/config.json && -e $ROOT/build/models/smollm2-fp8/config.json ]] \
        || "$PYTHON" "$ROOT/tests/models/make_sample.py" --out "$ROOT/build/models" >&2
    SAMPLE=$ROOT/build/models/smollm2-bf16
    # the vocabulary of the sample model's tokenizer, and nearly nothing else
    export MODEL=$BATS_FILE_TMPDIR/model SOURCE
    cp -r "$(source_checkpoint --layout bf16 "${WIDE[@]}")" "$MODEL"
    cp "$SAMPLE"/tokenizer*.json "$MODEL"
    SOURCE=$BATS_FILE_TMPDIR/fp8
    cp -r "$(source_checkpoint --layout fp8-tensor "${WIDE[@]}")" "$SOURCE"
    cp "$SAMPLE"/tokenizer*.json "$SOURCE"
    export TEXT=$BATS_FILE_TMPDIR/text
    printf ' \n = A title = \n \n A first paragraph , with a few words in it . \n A second one , which is a little longer than the first .\n \n' >"$TEXT"
    export IDS=$BATS_FILE_TMPDIR/ids.json
    "$PYTHON" -c 'import random; random.seed(1); print([random.randrange(49152) for _ in range(200)])' >"$IDS"
}

WIDE=(--arch llama --hidden 64 --mlp 128 --layers 2 --heads 2 --kv-heads 1 --head-dim 32 --vocab 49152)
WINDOWS=(--window 64 --stride 32)

ppl() { "$QSTREAM" ppl "$@"; }

# measured OPTIONS...: the JSON of a measurement on IDS, in $BATS_TEST_TMPDIR/report.json, held against the schema.
measured() {
    ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --json "$@" >"$BATS_TEST_TMPDIR/report.json"
    valid "$BATS_TEST_TMPDIR/report.json" "$ROOT/docs/schemas/qstream.ppl-1.schema.json"
}

# valid FILE SCHEMA: one object of ASCII with finite numbers, as the schema wants it; what a report sums up, it does.
valid() {
    "$PYTHON" - "$1" "$2" "$ROOT" <<'PYTHON' >&2
import json, math, sys
sys.path.insert(0, sys.argv[3] + "/tests/cli")
import check_inspect
def never(word):
    raise SystemExit(f"{word} is no JSON")
told = json.loads(open(sys.argv[1], encoding="ascii").read(), parse_constant=never)
schema = json.load(open(sys.argv[2]))
check_inspect.validate(told, schema, schema, "report")
check = check_inspect.check
if told["schema"] == "qstream.ppl/1" and told["nll"] is not None:
    windows = told["windows"]
    check("scored", told["tokens_scored"], sum(w["scored"] for w in windows))
    check("run", told["tokens_run"], sum(w["tokens"] for w in windows))
    check("by place", told["tokens_scored"], sum(p["tokens"] for p in told["positions"]))
    for key in ("nll", "kl") if told["baseline"] else ("nll",):
        mean = told["kl"]["mean"] if key == "kl" else told["nll"]
        for parts, weight in ((windows, "scored"), (told["positions"], "tokens")):
            summed = sum(p[key] * p[weight] for p in parts if p[weight]) / told["tokens_scored"]
            if not math.isclose(summed, mean, rel_tol=1e-9, abs_tol=1e-12):
                check_inspect.failures.append(f"{key} by {weight}: {summed}, expected {mean}")
    if not math.isclose(told["ppl"], math.exp(told["nll"]), rel_tol=1e-12):
        check_inspect.failures.append("ppl is not exp(nll)")
    if told["kl_histogram"]:
        check("histogram", told["tokens_scored"], sum(told["kl_histogram"]["counts"]))
for failure in check_inspect.failures[:20]:
    print(failure)
sys.exit(bool(check_inspect.failures))
PYTHON
}

# told QUERY...: each jq query is true of the last report.
told() {
    local query
    for query in "$@"; do
        jq -e "$query" "$BATS_TEST_TMPDIR/report.json" >/dev/null || { echo "not so: $query" >&2; return 1; }
    done
}

# refuses CODE WORD... -- ARGUMENTS...: ppl with these arguments ends with the code and one line that has each WORD, and
# nothing on standard output.
refuses() {
    local code=$1 words=() word
    shift
    while [[ $1 != -- ]]; do
        words+=("$1")
        shift
    done
    shift
    run --separate-stderr "$QSTREAM" ppl "$@" </dev/null
    [[ $status -eq $code ]] || { printf 'exit code %s, expected %s, for: %s: %s\n' "$status" "$code" "$*" "$stderr" >&2; return 1; }
    [[ -z $output && ${#stderr_lines[@]} -eq 1 && $stderr == "qstream: "* ]] || { printf 'for %s: %s|%s\n' "$*" "$output" "$stderr" >&2; return 1; }
    for word in "${words[@]}"; do
        [[ $stderr == *"$word"* ]] || { printf 'expected "%s" in: %s\n' "$word" "$stderr" >&2; return 1; }
    done
}

# --- the command line ---

@test "given --help, then every option of the manual, the man page and the completions is there" {
    local option
    run "$QSTREAM" ppl --help
    exits 0
    says "usage: qstream ppl MODEL"
    for option in $(grep -o -- '^  --[a-z-]*' <<<"$output"); do
        grep -q -- "^| \`$option" "$ROOT/docs/ppl.md" || { echo "$option is not in docs/ppl.md" >&2; return 1; }
        grep -qF -- "${option//-/\\-}" "$ROOT/docs/qstream.1" || { echo "$option is not in the man page" >&2; return 1; }
        grep -q -e "$option" "$ROOT/completions/_qstream" || { echo "$option is not in zsh's completion" >&2; return 1; }
        grep -q -e "$option" "$ROOT/completions/qstream.bash" || { echo "$option is not in bash's completion" >&2; return 1; }
    done
    run "$QSTREAM" help ppl
    exits 0
    says "--baseline"
}

@test "given the options of generate and tokenize, then the man page and the completions have them" {
    local command option
    for command in generate tokenize; do
        for option in $("$QSTREAM" "$command" --help | grep -o -- '^  --[a-z-]*'); do
            grep -qF -- "${option//-/\\-}" "$ROOT/docs/qstream.1" || { echo "$option is not in the man page" >&2; return 1; }
            grep -q -e "$option" "$ROOT/completions/_qstream" || { echo "$option is not in zsh's completion" >&2; return 1; }
            grep -q -e "$option" "$ROOT/completions/qstream.bash" || { echo "$option is not in bash's completion" >&2; return 1; }
        done
    done
}

@test "given a wrong option or value, then it is named with exit code 2" {
    refuses 2 "one folder, MODEL" -- --text "$TEXT"
    refuses 2 "one folder, MODEL" -- "$MODEL" "$MODEL" --text "$TEXT"
    refuses 2 "'--speed'" "--help" -- "$MODEL" --speed
    refuses 2 "'-x'" -- "$MODEL" -x
    while read -r option value words; do
        # shellcheck disable=SC2086 # several words
        refuses 2 "$option" "'$value'" $words -- "$MODEL" --text "$TEXT" "$option" "$value"
    done <<'WRONG'
--window 1 2
--window x
--stride 0
--windows 0 all
--windows none all
--text-join html raw
--compute f64 bf16
--activations none as-served
--kv-cache int8 fp8
--rope-frequencies f16 bf16
--memory lots
--jobs 0
--jobs 1025
--cpu quantum
--expect 0.5
--expect x
--expect nan
--tolerance 5%%
--tolerance -1
--in-flight 0
--timeout -1
--retries x
WRONG
    refuses 2 "'--text'" "a value is missing" -- "$MODEL" --text
}

@test "given options that do not go together, then both are named with exit code 2" {
    refuses 2 "--text" "--tokens" -- "$MODEL" --text "$TEXT" --tokens "$IDS"
    refuses 2 "--bos" "--tokens" -- "$MODEL" --tokens "$IDS" --bos
    refuses 2 "--text-join" "--tokens" -- "$MODEL" --tokens "$IDS" --text-join raw
    refuses 2 "--expect" "--expect-file" -- "$MODEL" --tokens "$IDS" --expect 3 --expect-file x
    refuses 2 "--update" "--expect-file" -- "$MODEL" --tokens "$IDS" --update
    refuses 2 "--case" "--expect-file" -- "$MODEL" --tokens "$IDS" --case x
    refuses 2 "--tolerance" "--expect" -- "$MODEL" --tokens "$IDS" --tolerance 1%
    refuses 2 "--junit" "--expect" -- "$MODEL" --tokens "$IDS" --junit x
    refuses 2 "--dry-run" "--per-token" -- "$MODEL" --tokens "$IDS" --dry-run --per-token x
    refuses 2 "standard output" -- "$MODEL" --tokens "$IDS" --json --html -
    refuses 2 "--compute" "--server" -- "$MODEL" --tokens "$IDS" --server http://127.0.0.1:1 --compute f32
    refuses 2 "--baseline" "--server" -- --tokens "$IDS" --server http://127.0.0.1:1 --baseline "$MODEL"
    refuses 2 "stride" "window" -- "$MODEL" --tokens "$IDS" --window 64 --stride 65
}

@test "given a text, tokens or a model that cannot be used, then the exit code is 3 and it is named" {
    local file=$BATS_TEST_TMPDIR/file
    refuses 3 "nowhere" -- "$MODEL" --text "$BATS_TEST_TMPDIR/nowhere"
    refuses 3 "nowhere" -- "$BATS_TEST_TMPDIR/nowhere" --tokens "$IDS"
    refuses 3 "standard input" "empty" -- "$MODEL"
    echo '[1, "two"]' >"$file"
    refuses 3 "$file" "byte 4" -- "$MODEL" --tokens "$file"
    echo '[1, 49152]' >"$file"
    refuses 3 "49152" "vocabulary" -- "$MODEL" --tokens "$file"
    echo '[1]' >"$file"
    refuses 3 "1 tokens" -- "$MODEL" --tokens "$file"
    refuses 3 "enough for 6 windows" -- "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --windows 7
    refuses 3 "baseline is another model" -- "$MODEL" --tokens "$IDS" --baseline "$(source_checkpoint --layout bf16 "${TINY[@]}")"
    mkdir "$BATS_TEST_TMPDIR/bare"
    cp "$MODEL"/config.json "$MODEL"/*.safetensors "$BATS_TEST_TMPDIR/bare"
    refuses 3 "tokenizer" -- "$BATS_TEST_TMPDIR/bare" --text "$TEXT"
}

# --- measuring ---

@test "given tokens, then windows, places and tokens sum up to the same figures, for any number of threads" {
    measured --per-token "$BATS_TEST_TMPDIR/tokens.tsv"
    told '.state == "measured" and .tokens_scored == 199 and (.windows | length) == 6' '.baseline == null and .expectation == null'
    told '.text.kind == "tokens" and .text.tokens == 200 and .nll > 10 and .nll < 12' \
        '.text.sha256 == "'"$("$PYTHON" -c 'import hashlib, json, struct, sys; ids = json.load(open(sys.argv[1])); print(hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest())' "$IDS")"'"'
    [[ $(wc -l <"$BATS_TEST_TMPDIR/tokens.tsv") -eq 200 ]]
    "$PYTHON" - "$BATS_TEST_TMPDIR" "$IDS" <<'PYTHON'
import csv, json, math, sys
rows = list(csv.DictReader(open(sys.argv[1] + "/tokens.tsv"), delimiter="\t"))
ids = json.load(open(sys.argv[2]))
assert [int(row["position"]) for row in rows] == list(range(1, 200))
assert [int(row["id"]) for row in rows] == ids[1:]
mean = math.fsum(float(row["nll"]) for row in rows) / 199
assert math.isclose(mean, json.load(open(sys.argv[1] + "/report.json"))["nll"], rel_tol=1e-7), mean
PYTHON
    jq '{nll, windows, positions}' "$BATS_TEST_TMPDIR/report.json" >"$BATS_TEST_TMPDIR/one"
    measured --jobs 1
    jq '{nll, windows, positions}' "$BATS_TEST_TMPDIR/report.json" | diff "$BATS_TEST_TMPDIR/one" - >&2
}

@test "given a text by file or standard input, or its tokens, then the figures are the same" {
    ppl "$MODEL" --text "$TEXT" --quiet --json | jq '{nll, tokens_scored, sha: .text.sha256}' >"$BATS_TEST_TMPDIR/file"
    ppl "$MODEL" --quiet --json <"$TEXT" | jq '{nll, tokens_scored, sha: .text.sha256}' | diff "$BATS_TEST_TMPDIR/file" - >&2
    # shellcheck disable=SC2002 # a pipe
    cat "$TEXT" | ppl "$MODEL" --text - --quiet --json | jq '{nll, tokens_scored, sha: .text.sha256}' | diff "$BATS_TEST_TMPDIR/file" - >&2
    "$QSTREAM" tokenize "$MODEL" --text "$TEXT" | ppl "$MODEL" --tokens - --quiet --json \
        | jq '{nll, tokens_scored, sha: .text.sha256}' | diff "$BATS_TEST_TMPDIR/file" - >&2
}

@test "given --bos and --text-join hf, then the tokens are those of the text so changed" {
    local bos
    bos=$(jq '.bos_token_id // empty' "$ROOT/build/models/smollm2-bf16/config.json")
    cp -r "$MODEL" "$BATS_TEST_TMPDIR/model"
    jq ".bos_token_id = ${bos:-1}" "$MODEL/config.json" >"$BATS_TEST_TMPDIR/model/config.json"
    "$PYTHON" -c 'import sys; print("\n\n".join(l if l.strip() else "" for l in open(sys.argv[1])), end="")' "$TEXT" >"$BATS_TEST_TMPDIR/rows"
    "$QSTREAM" tokenize "$MODEL" --text "$BATS_TEST_TMPDIR/rows" | jq -c "[${bos:-1}] + ." >"$BATS_TEST_TMPDIR/ids"
    ppl "$MODEL" --tokens "$BATS_TEST_TMPDIR/ids" --quiet --json | jq '{nll, sha: .text.sha256}' >"$BATS_TEST_TMPDIR/wanted"
    ppl "$BATS_TEST_TMPDIR/model" --text "$TEXT" --bos --text-join hf --quiet --json >"$BATS_TEST_TMPDIR/report.json"
    told '.variants.bos and .variants.text_join == "hf"'
    jq '{nll, sha: .text.sha256}' "$BATS_TEST_TMPDIR/report.json" | diff "$BATS_TEST_TMPDIR/wanted" - >&2

    # config.json does not say: tokenizer_config.json does; neither does: that is said
    jq 'del(.bos_token_id)' "$MODEL/config.json" >"$BATS_TEST_TMPDIR/model/config.json"
    echo '{"bos_token": {"content": "<|im_start|>"}}' >"$BATS_TEST_TMPDIR/model/tokenizer_config.json"
    ppl "$BATS_TEST_TMPDIR/model" --text "$TEXT" --bos --text-join hf --quiet --json >"$BATS_TEST_TMPDIR/report.json"
    jq '{nll, sha: .text.sha256}' "$BATS_TEST_TMPDIR/report.json" | diff "$BATS_TEST_TMPDIR/wanted" - >&2
    echo '{"bos_token": "no such token"}' >"$BATS_TEST_TMPDIR/model/tokenizer_config.json"
    refuses 3 "without --bos" -- "$BATS_TEST_TMPDIR/model" --text "$TEXT" --bos
}

@test "given a baseline, then its figures are those of its own run, and a model has no distance from itself" {
    local alone
    measured --compute f32 --baseline "$SOURCE" --per-token "$BATS_TEST_TMPDIR/tokens.tsv"
    told '.kl.mean > 0 and .kl.mean < 0.1 and .kl.max >= .kl.p99 and .kl.p99 >= .kl.median and .top1_agreement < 1' \
        '(.layers | length) == 3 and .layers[0].layer == null and .layers[2].layer == 1 and .layers[2].rel_error > 0'
    head -n 1 "$BATS_TEST_TMPDIR/tokens.tsv" | grep -qx $'position\tid\tnll\tbaseline_nll\tkl\tagrees'
    alone=$(ppl "$SOURCE" --tokens "$IDS" "${WINDOWS[@]}" --compute f32 --quiet --json | jq .nll)
    told "(.baseline.nll - $alone | fabs) < 1e-6"
    measured --compute f32 --baseline "$MODEL"
    told '.kl.max < 1e-6 and .top1_agreement == 1 and all(.layers[]; .rel_error == 0 and .cosine > 0.999999)'
    run ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --baseline "$SOURCE"
    exits 0
    says "KL divergence   mean" "same top token" "behind" "baseline        NLL"
}

@test "given --dry-run, then nothing is measured and the plan is what a run then keeps to" {
    measured --dry-run --baseline "$SOURCE"
    told '.state == "planned" and .nll == null and .kl.mean == null and .tokens_scored == 199 and .tokens_run == 360' \
        '.budget.total > 0 and .budget.total <= .budget.memory and .budget.tokens == 360'
    jq .budget "$BATS_TEST_TMPDIR/report.json" >"$BATS_TEST_TMPDIR/plan"
    measured --baseline "$SOURCE"
    jq .budget "$BATS_TEST_TMPDIR/report.json" | diff "$BATS_TEST_TMPDIR/plan" - >&2
    refuses 2 "--memory" "too small" -- "$MODEL" --tokens "$IDS" --memory 1MiB --dry-run
    run ppl "$MODEL" --tokens "$IDS" --dry-run
    exits 0
    says "weights read" "spilled"
}

# --- expected figures ---

@test "given --expect, then a perplexity further away than the tolerance ends with 1 and says by how much" {
    local near far
    near=$(ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --json | jq '.ppl * 1.004')
    far=$(jq -n "$near * 1.01")
    run ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --expect "$near" --junit "$BATS_TEST_TMPDIR/junit.xml"
    exits 0
    says "pass: ppl" "below the expected" "PASS: 0 of 1 figure"
    "$PYTHON" -c 'import sys, xml.etree.ElementTree as x; s = x.parse(sys.argv[1]).getroot()[0]; assert s.get("tests") == "1" and s.get("failures") == "0"' "$BATS_TEST_TMPDIR/junit.xml"
    run ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --expect "$far"
    exits 1
    says "FAIL: ppl" "(1.38 %) below the expected" "0.5 % is allowed"
    run --separate-stderr ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --json --expect "$far"
    exits 1
    [[ $stderr == "FAIL: ppl"* && $(jq -r .expectation.verdict <<<"$output") == fail ]]
    run ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --expect "$far" --tolerance 2%
    exits 0
}

@test "given --update, then a file is made that this run passes, another text is refused by, and other options contradict" {
    local file=$BATS_TEST_TMPDIR/new.ppl.json
    run ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --compute f32 --quiet --expect-file "$file" --update
    exits 0
    valid "$file" "$ROOT/configs/ppl.schema.json"
    run ppl "$MODEL" --tokens "$IDS" --quiet --expect-file "$file" --junit "$BATS_TEST_TMPDIR/junit.xml"
    exits 0
    says "window 64, stride 32" "compute         f32" "pass: nll" "(reproduced)" "PASS: $file, case default: 0 of 3 figures"
    "$PYTHON" -c 'import sys, xml.etree.ElementTree as x; s = x.parse(sys.argv[1]).getroot()[0]; assert [c.get("name") for c in s] == ["ppl", "nll", "tokens_scored"]' "$BATS_TEST_TMPDIR/junit.xml"
    refuses 2 "--window 64" -- "$MODEL" --tokens "$IDS" --expect-file "$file" --window 32
    refuses 2 "--compute f32" -- "$MODEL" --tokens "$IDS" --expect-file "$file" --compute bf16
    refuses 3 "SHA-256" "--update" -- "$MODEL" --text "$TEXT" --expect-file "$file"
    refuses 2 "no such case" "default" -- "$MODEL" --tokens "$IDS" --expect-file "$file" --case other

    # another model misses the figures; --update takes them, with names, notes and tolerances as they were
    jq '.notes = "kept" | .cases[0].expected.ppl.tolerance = 1e-7 | .cases[0].expected.nll.tolerance = 1e-7' "$file" >"$file.new"
    mv "$file.new" "$file"
    run ppl "$SOURCE" --tokens "$IDS" --quiet --expect-file "$file"
    exits 1
    says "FAIL: nll" "FAIL: $file"
    run ppl "$SOURCE" --tokens "$IDS" --quiet --expect-file "$file" --update
    exits 0
    [[ $(jq '.notes == "kept" and .cases[0].expected.ppl.tolerance == 1e-7' "$file") == true ]]
    valid "$file" "$ROOT/configs/ppl.schema.json"

    # a bare word is a file's name, too, while there is none of that name
    cd "$BATS_TEST_TMPDIR"
    run ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --expect-file bare-word --update
    exits 0
    valid bare-word "$ROOT/configs/ppl.schema.json"
}

@test "given a file that cannot be written, then the exit code is 4, it is named, and what was there stays" {
    local option
    for option in html per-token junit; do
        refuses 4 "$BATS_TEST_TMPDIR/nowhere/file" -- "$MODEL" --tokens "$IDS" --quiet --expect 50000 --tolerance 90% \
            "--$option" "$BATS_TEST_TMPDIR/nowhere/file"
    done
    refuses 4 "$BATS_TEST_TMPDIR/nowhere/x.ppl.json" -- "$MODEL" --tokens "$IDS" --quiet --json --update \
        --expect-file "$BATS_TEST_TMPDIR/nowhere/x.ppl.json"
}

@test "given the files in configs, then they are as their schema wants them and are found by name" {
    local file
    for file in "$ROOT"/configs/*.ppl.json; do
        valid "$file" "$ROOT/configs/ppl.schema.json"
    done
    [[ $QSTREAM == "$ROOT/build/qstream" ]] || return 0 # found beside the program
    refuses 2 "several cases" "bf16/f32" -- "$MODEL" --tokens "$IDS" --expect-file smollm2
    refuses 3 "'no-such-name' is neither a file nor a file of expectations" "mistral-medium-3.5, smollm2" -- \
        "$MODEL" --tokens "$IDS" --expect-file no-such-name
    refuses 2 "several cases" "hf-bos" -- "$MODEL" --tokens "$IDS" --expect-file mistral-medium-3.5
}

@test "given a server that is not there, then the exit code is 4; with --dry-run its windows are told" {
    run --separate-stderr ppl --tokens "$IDS" "${WINDOWS[@]}" --quiet --server http://127.0.0.1:9 --retries 0 --server-model m
    exits 4
    [[ $stderr == "qstream: "* && -z $output ]]
    run ppl --tokens "$IDS" "${WINDOWS[@]}" --server http://127.0.0.1:9 --dry-run
    exits 0
    says "6 windows; 199 tokens scored" "server          http://127.0.0.1:9"
}

@test "given the sample model and a short text, then the figures in configs are met, with a baseline too" {
    local compute short=$ROOT/tests/cli/ppl_text.txt file=$ROOT/configs/smollm2.ppl.json
    for compute in f32 ${QSTREAM_TEST_FULL:+bf16}; do
        run ppl "$ROOT/build/models/smollm2-bf16" --text "$short" --quiet --expect-file "$file" --case "short/$compute"
        exits 0
        says "window 256, stride 128, 5 windows" "PASS: " "0 of 8 figures"
        run ppl "$ROOT/build/models/smollm2-fp8" --text "$short" --quiet --expect-file "$file" \
            --case "short-fp8-float/$compute" --baseline "$ROOT/build/models/smollm2-bf16"
        exits 0
        says "activations float" "pass: kl_mean" "PASS: " "0 of 10 figures"
    done
}

@test "given variants of how a model is computed, then each changes the figure and is told" {
    local plain words
    plain=$(ppl "$SOURCE" --tokens "$IDS" "${WINDOWS[@]}" --compute f32 --quiet --json | jq .nll)
    while read -r words; do
        # shellcheck disable=SC2086 # several words
        ppl "$SOURCE" --tokens "$IDS" "${WINDOWS[@]}" --compute f32 --quiet --json $words >"$BATS_TEST_TMPDIR/report.json"
        valid "$BATS_TEST_TMPDIR/report.json" "$ROOT/docs/schemas/qstream.ppl-1.schema.json"
        told ".nll != $plain and (.nll - $plain | fabs) < 0.1" || { echo "for $words" >&2; return 1; }
    done <<'VARIANTS'
--activations float
--fused-scales
--kv-cache fp8
--kv-cache bf16
--rope-frequencies bf16
VARIANTS
    told '.variants.rope_frequencies == "bf16" and .variants.kv_cache == "auto"'
}

@test "given less memory, a spill folder or all weights read first, then the figures stay as they are" {
    local low=0 high=1048576 middle words
    ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --baseline "$SOURCE" --quiet --json | jq '{nll, windows, kl, layers}' >"$BATS_TEST_TMPDIR/wanted"
    mkdir "$BATS_TEST_TMPDIR/spill"
    while ((high - low > 64)); do # the least KiB that are not refused: then hidden states go to a file
        middle=$(((low + high) / 2))
        if ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --baseline "$SOURCE" --dry-run --memory "${middle}KiB" >/dev/null 2>&1; then
            high=$middle
        else
            low=$middle
        fi
    done
    for words in "--resident" "--jobs 3" "--memory ${high}KiB --spill-folder $BATS_TEST_TMPDIR/spill"; do
        # shellcheck disable=SC2086 # several words
        ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --baseline "$SOURCE" --quiet --json $words >"$BATS_TEST_TMPDIR/report.json"
        jq '{nll, windows, kl, layers}' "$BATS_TEST_TMPDIR/report.json" | diff "$BATS_TEST_TMPDIR/wanted" - >&2 || { echo "for $words" >&2; return 1; }
    done
    told '.budget.hidden_memory < .budget.hidden and .budget.total <= .budget.memory'
    [[ -z $(ls "$BATS_TEST_TMPDIR/spill") ]]
}

@test "given a scale that is NaN, then the tensor is named, and with a hostile file of figures the file is" {
    local file=$BATS_TEST_TMPDIR/hostile.ppl.json
    cp -r "$SOURCE" "$BATS_TEST_TMPDIR/nan"
    "$PYTHON" - "$BATS_TEST_TMPDIR/nan" <<'PYTHON'
import json, pathlib, struct, sys
for shard in pathlib.Path(sys.argv[1]).glob("*.safetensors"):
    data = bytearray(shard.read_bytes())
    size = struct.unpack("<Q", data[:8])[0]
    for name, tensor in json.loads(data[8 : 8 + size]).items():
        if name.endswith("layers.1.mlp.down_proj.weight_scale_inv") or name.endswith("layers.1.mlp.down_proj.weight_scale"):
            begin, end = (8 + size + at for at in tensor["data_offsets"])
            data[begin:end] = (b"\xc0\x7f" if tensor["dtype"] == "BF16" else b"\x00\x00\xc0\x7f") * ((end - begin) // (2 if tensor["dtype"] == "BF16" else 4))
            shard.write_bytes(data)
            break
    else:
        continue
    break
else:
    raise SystemExit("no such scale")
PYTHON
    refuses 3 "layers.1.mlp.down_proj" -- "$BATS_TEST_TMPDIR/nan" --tokens "$IDS" "${WINDOWS[@]}" --quiet
    while IFS='|' read -r words text; do
        printf '%s' "$text" >"$file"
        refuses 3 "hostile.ppl.json" "$words" -- "$MODEL" --tokens "$IDS" --expect-file "$file"
    done <<'HOSTILE'
JSON|{"schema": "qstream.ppl-expectation/1",
object|[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]
schema|{"schema": "qstream.ppl-expectation/9"}
ppl|{"schema": "qstream.ppl-expectation/1", "name": "n", "model": {"name": "m"}, "cases": [{"name": "c", "expected": {"ppl": {"value": -1, "tolerance": 0, "status": "reproduced"}}}]}
tolerance|{"schema": "qstream.ppl-expectation/1", "name": "n", "model": {"name": "m"}, "cases": [{"name": "c", "expected": {"ppl": {"value": 1, "tolerance": "nan", "status": "reproduced"}}}]}
unknown key|{"schema": "qstream.ppl-expectation/1", "name": "n", "model": {"name": "m"}, "cases": [{"name": "c", "exepcted": {}}]}
window|{"schema": "qstream.ppl-expectation/1", "name": "n", "model": {"name": "m"}, "protocol": {"window": 1e9}, "cases": [{"name": "c", "expected": {}}]}
HOSTILE
}

# oneDNN's kernels for AVX2 compute with the stack pointer in a buffer: a signal's frame must not go there.
@test "given a signal at any moment, then the exit code is 130 and nothing is printed" {
    local try pid code level=(--cpu avx2)
    [[ $(uname -m) == x86_64 ]] || level=()
    for try in {1..12}; do
        "$QSTREAM" ppl "$ROOT/build/models/smollm2-bf16" --text "$ROOT/tests/cli/ppl_text.txt" --window 256 --stride 8 --compute f32 --quiet "${level[@]}" \
            --jobs $((try % 2 + 1)) >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
        pid=$!
        sleep "0.$((200 + 47 * try))"
        kill -"$( ((try % 3)) && echo INT || echo TERM)" $pid
        code=0
        wait $pid || code=$?
        [[ $code == 130 && ! -s $BATS_TEST_TMPDIR/out ]] || { echo "try $try: exit code $code: $(<"$BATS_TEST_TMPDIR/err")" >&2; return 1; }
    done
}

@test "given a file that cannot be written, then it is told before anything is measured" {
    local option
    for option in --per-token --html; do
        refuses 4 "no-folder/file" -- "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" "$option" "$BATS_TEST_TMPDIR/no-folder/file"
        refuses 2 "without a name" -- "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" "$option" ""
    done
    refuses 4 "no-folder/file" -- "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --update --expect-file "$BATS_TEST_TMPDIR/no-folder/file"
    refuses 2 "--case" -- "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --update --expect-file new.ppl.json --case ""
    refuses 2 "--case" -- "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --update --expect-file new.ppl.json --case $'\xff'
    [[ -z $(find "$BATS_TEST_TMPDIR" -type f ! -name 'separate-stderr*') && ! -e new.ppl.json ]]
}

@test "given a tiny divergence, when a file is updated, then the same run passes it and its permissions stay" {
    local file=$BATS_TEST_TMPDIR/tiny.ppl.json near=$BATS_TEST_TMPDIR/near
    cp -r "$SOURCE" "$near"
    "$PYTHON" - "$near" <<'PYTHON'
import json, pathlib, struct, sys
path = next(iter(sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors"))))
data = bytearray(path.read_bytes())
length = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + length])
name = next(name for name in header if name.endswith("norm.weight") and header[name]["dtype"] == "BF16")
data[8 + length + header[name]["data_offsets"][0]] ^= 1
path.write_bytes(data)
PYTHON
    local settings=("$near" --baseline "$SOURCE" --tokens "$IDS" "${WINDOWS[@]}" --compute f32 --quiet --expect-file "$file")
    "$QSTREAM" ppl "${settings[@]}" --update --tolerance 0.0001% >/dev/null
    chmod 640 "$file"
    "$QSTREAM" ppl "${settings[@]}" --update >/dev/null
    [[ $(stat -c %a "$file") == 640 ]]
    jq -e '.cases[0].expected.kl_mean.value | . > 0 and . < 1e-4' "$file"
    run ppl "${settings[@]}"
    exits 0
}

@test "given a report that nobody can read, then a figure that is missed is exit code 4 as well" {
    local code=0
    "$QSTREAM" ppl "$MODEL" --tokens "$IDS" "${WINDOWS[@]}" --quiet --json --expect 1 >/dev/full 2>"$BATS_TEST_TMPDIR/err" || code=$?
    [[ $code == 4 && $(<"$BATS_TEST_TMPDIR/err") == *"standard output"* ]]
}

# bats test_tags=full
@test "given the sample model and WikiText-2, then the figures in configs are met" {
    local text=$ROOT/../shared/data/wikitext-2-raw/wiki.test.raw
    [[ -e $text ]] || skip "../shared/data is not there"
    run ppl "$ROOT/build/models/smollm2-bf16" --text "$text" --quiet --expect-file "$ROOT/configs/smollm2.ppl.json" \
        --case bf16/bf16 --junit "$BATS_TEST_TMPDIR/junit.xml"
    exits 0
    says "4,095 tokens scored" "303,415 tokens" "PASS: " "0 of 8 figures"
}

@test "given a model that was calibrated on the text, then ppl says whether it scores those tokens" {
    local out=$BATS_TEST_TMPDIR/calibrated
    for _ in {1..20}; do cat "$TEXT"; done >"$BATS_TEST_TMPDIR/long"
    "$QSTREAM" quantize "$MODEL" "$out" --recipe llama-mxfp4 --calibrate "$BATS_TEST_TMPDIR/long" --calibrate-skip 100 \
        --calibrate-tokens 64 --quiet
    run --separate-stderr ppl "$out" --text "$BATS_TEST_TMPDIR/long" --window 64 --stride 32 --windows 2
    exits 0
    [[ $stderr == *"was calibrated on tokens 100 to 163 of this text; none of them is scored"* ]]
    run --separate-stderr ppl "$out" --text "$BATS_TEST_TMPDIR/long" --window 64 --stride 32 --windows 3
    exits 0
    [[ $stderr == *"was calibrated on tokens 100 to 163 of this text, which are among those that are scored"* ]]
    run --separate-stderr ppl "$out" --text "$TEXT" --window 32 --stride 16
    exits 0
    [[ $stderr != *"calibrated"* ]]
}
