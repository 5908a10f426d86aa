#!/usr/bin/env bats
# qstream generate: the sample model says what it has always said; a seed repeats its text and another gives another, for any
# number of threads; text comes in whole characters; BOS and end tokens are those of the checkpoint's files; wrong options and
# files end with their exit codes and one line; signals and closed pipes end it.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
    prepare
    [[ -e $ROOT/build/models/smollm2-bf16/config.json && -e $ROOT/build/models/smollm2-fp8/config.json ]] \
        || "$PYTHON" "$ROOT/tests/models/make_sample.py" --out "$ROOT/build/models" >&2
    export SAMPLE=$ROOT/build/models/smollm2-bf16 FP8=$ROOT/build/models/smollm2-fp8
    # the tokenizer of the sample model, and nearly nothing else
    export MODEL=$BATS_FILE_TMPDIR/model
    cp -r "$(source_checkpoint --layout bf16 --arch llama --hidden 64 --mlp 128 --layers 2 --heads 2 --kv-heads 1 \
        --head-dim 32 --vocab 49152)" "$MODEL"
    cp "$SAMPLE"/tokenizer*.json "$MODEL"
}

generate() { "$QSTREAM" generate "$@"; }

# made ARGUMENTS...: the JSON of a run, held against the schema, in $BATS_TEST_TMPDIR/made.json.
made() {
    generate "$@" --quiet --json >"$BATS_TEST_TMPDIR/made.json"
    "$PYTHON" - "$BATS_TEST_TMPDIR/made.json" "$ROOT" <<'PYTHON' >&2
import json, sys
sys.path.insert(0, sys.argv[2] + "/tests/cli")
import check_inspect
def never(word):
    raise SystemExit(f"{word} is no JSON")
told = json.loads(open(sys.argv[1], encoding="ascii").read(), parse_constant=never)
schema = json.load(open(sys.argv[2] + "/docs/schemas/qstream.generate-1.schema.json"))
check_inspect.validate(told, schema, schema, "made")
for failure in check_inspect.failures[:20]:
    print(failure)
sys.exit(bool(check_inspect.failures))
PYTHON
}

# told QUERY...: each jq query is true of the last made.json.
told() {
    local query
    for query in "$@"; do
        jq -e "$query" "$BATS_TEST_TMPDIR/made.json" >/dev/null || { echo "not so: $query" >&2; return 1; }
    done
}

# own_model: a copy of MODEL that the test may change, OWN.
own_model() {
    OWN=$BATS_TEST_TMPDIR/own
    cp -r "$MODEL" "$OWN"
}

# edit FILE 'PYTHON': changes the JSON `d` of a file of OWN.
edit() {
    "$PYTHON" -c 'import json, sys
d = json.load(open(sys.argv[1]))
exec(sys.argv[2])
json.dump(d, open(sys.argv[1], "w"))' "$OWN/$1" "$2"
}

# refuses CODE WORD... -- ARGUMENTS...: ends with the code and one line that has each WORD, and prints no text.
refuses() {
    local code=$1 words=() word
    shift
    while [[ $1 != -- ]]; do
        words+=("$1")
        shift
    done
    shift
    run --separate-stderr "$QSTREAM" generate "$@" </dev/null
    [[ $status -eq $code ]] || { printf 'exit code %s, expected %s, for: %s: %s\n' "$status" "$code" "$*" "$stderr" >&2; return 1; }
    [[ -z $output && ${#stderr_lines[@]} -eq 1 && $stderr == "qstream: "* ]] || { printf 'for %s: %s|%s\n' "$*" "$output" "$stderr" >&2; return 1; }
    for word in "${words[@]}"; do
        [[ $stderr == *"$word"* ]] || { printf 'expected "%s" in: %s\n' "$word" "$stderr" >&2; return 1; }
    done
}

# --- what is said ---

@test "given the sample model, then its most probable words are those of transformers" {
    run --separate-stderr generate "$SAMPLE" --prompt "Gravity is" --max-tokens 24 --quiet
    exits 0
    [[ -z $stderr ]]
    [[ $output == " a fundamental concept in physics that describes the curvature of spacetime caused by the presence of matter and energy. It's a beautiful" ]]
    made "$SAMPLE" --prompt "The capital of France is" --max-tokens 64
    told '.prompt_tokens == [504, 3575, 282, 4649, 314]' '.stop == "end"' '.tokens[:4] == [7042, 30, 198, 198]' \
        '.text | startswith(" Paris.\n\nThe answer is")' '(.tokens | length) == 29' '.tokens_per_second > 0' \
        '.weight_bytes_per_token > 269000000' '.memory.total >= .weight_bytes_per_token'
    made "$SAMPLE" --prompt "The capital of France is" --max-tokens 64 --ignore-eos
    told '.stop == "max-tokens"' '(.tokens | length) == 64' '.tokens[29] == 2'
}

@test "given the FP8 sample and each way to run it, then it knows the capital" {
    local way
    for way in "" "--activations float" "--fused-scales" "--kv-cache fp8" "--kv-cache bf16"; do
        # shellcheck disable=SC2086 # two words
        run generate "$FP8" --prompt "The capital of France is" --max-tokens 2 --quiet $way
        exits 0
        [[ $output == " Paris." ]] || { echo "with '$way': $output" >&2; return 1; }
    done
}

@test "given the figures, then they are on standard error" {
    run --separate-stderr generate "$SAMPLE" --prompt "The capital of France is" --max-tokens 3 --top-p 0.5 --seed 8
    exits 0
    [[ $output == " Paris."* ]]
    [[ ${stderr_lines[0]} =~ ^prompt\ +5\ tokens\ in\ .*\ tokens/s$ ]]
    [[ ${stderr_lines[1]} =~ ^generation\ +3\ tokens\ in\ .*\ tokens/s,\ up\ to\ --max-tokens$ ]]
    [[ ${stderr_lines[2]} =~ ^weights\ .*\ GB/s,\ .*\ %\ of\ the\ .*\ GB/s\  ]]
    [[ ${stderr_lines[3]} =~ ^seed\ +8$ ]]
}

@test "given a seed, then the text repeats for any number of threads, and another seed gives another" {
    local options=(--prompt "Once upon a time" --max-tokens 24 --temperature 1.2 --top-p 0.95 --quiet) first jobs
    first=$(generate "$SAMPLE" "${options[@]}" --seed 1)
    [[ ${#first} -gt 40 ]]
    for jobs in 1 2 3; do
        [[ $(generate "$SAMPLE" "${options[@]}" --seed 1 --jobs $jobs) == "$first" ]]
    done
    [[ $(generate "$SAMPLE" "${options[@]}" --seed 2) != "$first" ]]
    made "$MODEL" --prompt x --max-tokens 30 --temperature 2
    jq -r '.tokens, .seed | tostring' "$BATS_TEST_TMPDIR/made.json" >"$BATS_TEST_TMPDIR/random"
    made "$MODEL" --prompt x --max-tokens 30 --temperature 2 # the seed is another one each time
    [[ $(jq -r '.tokens, .seed | tostring' "$BATS_TEST_TMPDIR/made.json") != "$(<"$BATS_TEST_TMPDIR/random")" ]]
    made "$MODEL" --prompt x --max-tokens 30 --temperature 2 --seed "$(tail -n 1 "$BATS_TEST_TMPDIR/random")"
    [[ $(jq -r '.tokens, .seed | tostring' "$BATS_TEST_TMPDIR/made.json") == "$(<"$BATS_TEST_TMPDIR/random")" ]]
}

@test "given tokens of parts of characters, then the text is whole characters" {
    made "$MODEL" --prompt x --max-tokens 400 --temperature 100 --seed 8 --cpu portable
    "$PYTHON" - "$MODEL" "$BATS_TEST_TMPDIR/made.json" <<'PYTHON'
import json, sys
import tokenizers
told = json.load(open(sys.argv[2]))
text = tokenizers.Tokenizer.from_file(sys.argv[1] + "/tokenizer.json").decode(told["tokens"], skip_special_tokens=True)
assert "\ufffd" in text and text == told["text"], (text, told["text"])
PYTHON
    generate "$MODEL" --prompt x --max-tokens 400 --temperature 100 --seed 8 --cpu portable --quiet >"$BATS_TEST_TMPDIR/text"
    jq -j .text "$BATS_TEST_TMPDIR/made.json" | cmp - "$BATS_TEST_TMPDIR/text"
}

# --- prompts ---

@test "given the same prompt in four ways, then the same follows" {
    local expected
    expected=$(generate "$MODEL" --prompt "two words" --max-tokens 8 --quiet)
    printf 'two words' >"$BATS_TEST_TMPDIR/prompt"
    "$QSTREAM" tokenize "$MODEL" --text "$BATS_TEST_TMPDIR/prompt" >"$BATS_TEST_TMPDIR/ids"
    [[ $(generate "$MODEL" --prompt-file "$BATS_TEST_TMPDIR/prompt" --max-tokens 8 --quiet) == "$expected" ]]
    [[ $(generate "$MODEL" --tokens "$BATS_TEST_TMPDIR/ids" --max-tokens 8 --quiet) == "$expected" ]]
    [[ $(printf 'two words' | generate "$MODEL" --max-tokens 8 --quiet) == "$expected" ]]
}

@test "given what a tokenizer puts before a text, then it is there, unless told otherwise" {
    own_model
    made "$OWN" --prompt "<|im_end|>a" --max-tokens 1
    told '.prompt_tokens == [2, 81]'
    made "$OWN" --prompt a --max-tokens 1 --bos
    told '.prompt_tokens == [1, 81]'
    made "$OWN" --prompt "" --max-tokens 1 --bos
    told '.prompt_tokens == [1]'
    : >"$BATS_TEST_TMPDIR/nothing"
    made "$OWN" --prompt-file "$BATS_TEST_TMPDIR/nothing" --max-tokens 1 --bos
    told '.prompt_tokens == [1]'
    edit tokenizer.json 'd["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True,
        "trim_offsets": False, "use_regex": True}, {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>",
        "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<e>", "type_id": 0}}], "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [4, 5], "tokens": ["<s>", "x"]}, "<e>": {"id": "<e>", "ids": [6],
        "tokens": ["<e>"]}}}]}'
    made "$OWN" --prompt a --max-tokens 1
    told '.prompt_tokens == [4, 5, 81]'
    made "$OWN" --prompt a --max-tokens 1 --no-bos
    told '.prompt_tokens == [81]'
    echo '[7, 8]' >"$BATS_TEST_TMPDIR/ids"
    made "$OWN" --tokens "$BATS_TEST_TMPDIR/ids" --max-tokens 1
    told '.prompt_tokens == [7, 8]'
    edit tokenizer.json 'd["post_processor"]["processors"][1]["special_tokens"] = {}'
    refuses 3 "tokenizer.json" "post_processor" -- "$OWN" --prompt a
}

@test "given another post-processor, then its first token is there or it is refused" {
    local type
    own_model
    for type in BertProcessing RobertaProcessing; do
        edit tokenizer.json "d['post_processor'] = {'type': '$type', 'sep': ['<|im_end|>', 2], 'cls': ['<|im_start|>', 1]}"
        made "$OWN" --prompt a --max-tokens 1
        told '.prompt_tokens == [1, 81]'
    done
    edit tokenizer.json 'd["post_processor"]["cls"] = "<|im_start|>"'
    refuses 3 "tokenizer.json" "post_processor" "damaged" -- "$OWN" --prompt a
    edit tokenizer.json 'd["post_processor"] = {"type": "Another"}'
    refuses 3 "tokenizer.json" "post_processor" "not supported" -- "$OWN" --prompt a
}

@test "given tokens that end a text, then those of both files count" {
    local id
    own_model
    edit config.json 'd["eos_token_id"] = None'
    rm -f "$OWN/generation_config.json"
    made "$OWN" --prompt a --max-tokens 12
    told '.stop == "max-tokens"'
    id=$(jq '.tokens[3]' "$BATS_TEST_TMPDIR/made.json")
    count=$(jq --argjson id "$id" '.tokens | index($id)' "$BATS_TEST_TMPDIR/made.json")
    edit config.json "d['eos_token_id'] = [49151, $id]"
    made "$OWN" --prompt a --max-tokens 12
    told '.stop == "end"' "(.tokens | length) == $count"
    edit config.json 'd["eos_token_id"] = 49151'
    echo "{\"eos_token_id\": $id}" >"$OWN/generation_config.json"
    made "$OWN" --prompt a --max-tokens 12
    told '.stop == "end"' "(.tokens | length) == $count"
    echo '{"eos_token_id": "</s>"}' >"$OWN/generation_config.json"
    refuses 3 "generation_config.json" "eos_token_id" -- "$OWN" --prompt a
    echo '{"eos_token_id"' >"$OWN/generation_config.json"
    refuses 3 "generation_config.json" -- "$OWN" --prompt a
}

@test "given the end of the context, then it stops there, and a longer prompt is refused" {
    own_model
    edit config.json 'd["max_position_embeddings"] = 10'
    made "$OWN" --prompt "a b c" --max-tokens 12 --ignore-eos
    told '.stop == "context"' '(.tokens | length) == 8'
    refuses 3 "11 tokens" "context of 10" -- "$OWN" --prompt "a b c d e f g h i j k"
}

# --- plans ---

@test "given --dry-run, then it prints the memory as a table and as JSON, and makes nothing" {
    run --separate-stderr generate "$MODEL" --prompt "two words" --max-tokens 8 --dry-run --memory 2GB
    exits 0
    [[ -z $stderr && ${#lines[@]} -eq 6 ]]
    [[ ${lines[0]} =~ ^tokens\ +9$ ]] # the last one is made, and needs no place
    [[ ${lines[1]} =~ ^weights\ read\ +.*\ MB\ for\ each\ token$ ]]
    [[ ${lines[2]} =~ ^memory\ +.*\ MB\ of\ 2.00\ GB\ that\ it\ may\ use$ ]]
    [[ ${lines[3]} =~ ^\ \ weights\  && ${lines[4]} =~ ^\ \ keys,\ values\  && ${lines[5]} =~ ^\ \ all\ else\  ]]
    made "$MODEL" --prompt "two words" --max-tokens 8 --dry-run --memory 2GB
    told '.state == "planned"' '(.prompt_tokens | length) == 2' '.device == null' '.tokens == null' \
        '.memory.total == .memory.weights + .memory.cache + .memory.work' '.memory.total < 2e9'
    local weights total
    weights=$(jq '.weight_bytes_per_token, .memory.weights' "$BATS_TEST_TMPDIR/made.json")
    total=$(jq .memory.total "$BATS_TEST_TMPDIR/made.json")
    made "$MODEL" --prompt "two words" --max-tokens 8 --ignore-eos
    told '.state == "generated"' '.device == null' ".memory.total == $total"
    [[ $(jq '.weight_bytes_per_token, .memory.weights' "$BATS_TEST_TMPDIR/made.json") == "$weights" ]]
}

@test "given a plan that does not fit, or a damaged checkpoint, then --dry-run refuses it as a run does" {
    refuses 2 "--memory" "too small" -- "$MODEL" --prompt x --dry-run --memory 1M
    own_model
    rm "$OWN"/*.safetensors
    refuses 3 "$OWN" -- "$OWN" --prompt x --dry-run
}

@test "given a card of some memory, then --dry-run plans for it without one" {
    made "$MODEL" --prompt "two words" --max-tokens 8 --dry-run --device cuda --device-memory 4GB
    told '.state == "planned"' '.device.unified == false' '.device.memory < 4e9' '.device.weights > 0' '.device.cache > 0' \
        '.device.total == .device.weights + .device.cache + .device.work'
    made "$MODEL" --prompt "two words" --max-tokens 8 --dry-run --device cuda --device-memory unified:4GB
    told '.device.unified'
    run --separate-stderr generate "$MODEL" --prompt "two words" --dry-run --device cuda --device-memory unified:4GB
    exits 0
    says "device memory" "its memory is the machine's" "on their way to the device"
    refuses 2 "too little memory" "weights" -- "$MODEL" --prompt x --dry-run --device cuda --device-memory 540MB
    refuses 2 "--device-memory" "--device cuda" -- "$MODEL" --prompt x --dry-run --device-memory 4GB
    refuses 2 "--device" "'gpu'" -- "$MODEL" --prompt x --dry-run --device gpu
}

# --- the command line ---

@test "given --help, then every option of the manual, the man page and the completions is there" {
    local option
    run "$QSTREAM" generate --help
    exits 0
    says "usage: qstream generate MODEL"
    for option in $(grep -o -- '^  --[a-z-]*' <<<"$output"); do
        grep -q -e "^| .*\`$option" "$ROOT/docs/generate.md" || { echo "$option is not in docs/generate.md" >&2; return 1; }
        grep -qF -- "${option//-/\\-}" "$ROOT/docs/qstream.1" || { echo "$option is not in the man page" >&2; return 1; }
        grep -q -e "$option" "$ROOT/completions/_qstream" || { echo "$option is not in zsh's completion" >&2; return 1; }
        grep -q -e "$option" "$ROOT/completions/qstream.bash" || { echo "$option is not in bash's completion" >&2; return 1; }
    done
}

@test "given a wrong option or value, then it is named with exit code 2" {
    refuses 2 "one folder, MODEL" -- --prompt x
    refuses 2 "one folder, MODEL" -- "$MODEL" "$MODEL" --prompt x
    refuses 2 "'--speed'" "--help" -- "$MODEL" --speed
    refuses 2 "'-x'" -- "$MODEL" -x
    refuses 2 "'--prompt'" "a value is missing" -- "$MODEL" --prompt
    refuses 2 "--prompt" "--tokens" -- "$MODEL" --prompt x --tokens y
    refuses 2 "--bos" "--no-bos" -- "$MODEL" --prompt x --bos --no-bos
    refuses 2 "--bos" "--tokens" -- "$MODEL" --tokens x --bos
    refuses 2 "--memory" "too small" "at least" -- "$MODEL" --prompt x --memory 1M
    run generate "$MODEL" --prompt x --max-tokens 1 --quiet --memory "$(sed -n 's/.*at least \([0-9]*\)MiB.*/\1/p' <<<"$stderr")MiB"
    exits 0
    while read -r option value words; do
        # shellcheck disable=SC2086 # several words
        refuses 2 "$option" "'$value'" $words -- "$MODEL" --prompt x "$option" "$value"
    done <<'WRONG'
--max-tokens 0
--max-tokens x
--temperature -1 0.001
--temperature 0.0001
--temperature nan
--temperature 101
--temperature 1x
--top-p 0
--top-p 1.1
--top-p nan
--top-p -0.5
--seed -1
--seed 4294967296
--activations none as-served
--kv-cache int8 fp8
--memory lots
--jobs 0
--jobs 1025
--cpu quantum
WRONG
}

@test "given a prompt or a model that cannot be used, then it is named with exit code 3" {
    refuses 3 "no token" "--bos" -- "$MODEL" --prompt ""
    refuses 3 "no token" "--bos" -- "$MODEL"
    refuses 3 "'nowhere'" -- "$MODEL" --prompt-file nowhere
    echo '[1, x]' >"$BATS_TEST_TMPDIR/ids"
    refuses 3 "ids'" "byte" -- "$MODEL" --tokens "$BATS_TEST_TMPDIR/ids"
    echo '[1, 49152]' >"$BATS_TEST_TMPDIR/ids"
    refuses 3 "49152" "vocabulary" -- "$MODEL" --tokens "$BATS_TEST_TMPDIR/ids"
    refuses 3 "nowhere" -- nowhere --prompt x
    own_model
    rm "$OWN/tokenizer.json"
    refuses 3 "no tokenizer" -- "$OWN" --prompt x
    cp "$MODEL/tokenizer.json" "$OWN"
    truncate -s -100 "$OWN"/*.safetensors
    refuses 3 "safetensors" -- "$OWN" --prompt x
}

@test "given a signal, then the text so far is there and the exit code is 130" {
    # --foreground: timeout would signal its group as well, and a second signal ends the program at once
    timeout --foreground 60 "$QSTREAM" generate "$SAMPLE" --prompt "The capital of France is" --ignore-eos --max-tokens 8000 \
        >"$BATS_TEST_TMPDIR/text" 2>"$BATS_TEST_TMPDIR/errors" 3>&- &
    local process=$! status=0 tries=0
    while [[ ! -s $BATS_TEST_TMPDIR/text && $((tries += 1)) -lt 200 ]]; do sleep 0.05; done
    kill -TERM "$process"
    wait "$process" || status=$?
    [[ $status -eq 130 ]]
    [[ $(<"$BATS_TEST_TMPDIR/text") == " Paris"* ]]
    [[ $(<"$BATS_TEST_TMPDIR/errors") == "qstream: interrupted" ]]
}

@test "given an output that takes nothing, then it ends" {
    run --separate-stderr bash -c '"$0" generate "$1" --prompt x --ignore-eos --max-tokens 1000000 >/dev/full' "$QSTREAM" "$SAMPLE"
    exits 4
    [[ $stderr == "qstream: cannot write to standard output" ]]
    [[ $(generate "$SAMPLE" --prompt "Gravity is" --ignore-eos --max-tokens 8000 --quiet | head -c 14) == " a fundamental" ]]
}
