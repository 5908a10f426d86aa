#!/usr/bin/env bats
# qstream verify: what qstream itself made passes, whatever the recipe, rule and layout; one changed byte, name, file or
# figure is found and named with its place; and the command keeps to its limits, exit codes and formats.

bats_require_minimum_version 1.5.0
load helper

setup_file() { prepare; }
setup() { fresh; }
teardown() { rm -rf "$BUILD/verify-output"; }

UP=model.layers.0.mlp.up_proj
DOWN=model.layers.0.mlp.down_proj
Q=model.layers.0.self_attn.q_proj
# One layer of the reference model's true shapes; memory.bats has the same one.
LAYER=(--hidden 12288 --mlp 28672 --layers 1 --heads 96 --kv-heads 8 --head-dim 128)

verify() { "$QSTREAM" verify "$SRC" "$DST" "$@"; }

# given LAYOUT OPTIONS...: the tiny checkpoint in a layout, and DST made from it with `quantize OPTIONS`.
given() {
    local layout=$1
    shift
    SRC=$(source_checkpoint --layout "$layout" "${TINY[@]}")
    rm -rf "$DST"
    quantize --quiet "$@"
}
# The same of three shards, each.
given_three() {
    SRC=$(source_checkpoint --layout fp8-tensor --shards 3 "${TINY[@]}")
    quantize --quiet
}

# edit_output 'PYTHON': as edit_source, for DST. The shard is written anew: its size may differ, hence not the manifest.
edit_output() {
    "$PYTHON" -S "$ROOT/tests/cli/edit_checkpoint.py" "$DST" "$1"
    rm -f "$DST/qstream.json"
}

# flip FOLDER TENSOR OFFSET MASK: some bits of one byte of a tensor, in place; =VALUE instead of MASK sets the byte.
flip() {
    "$PYTHON" -S - "$@" <<'PYTHON'
import json, struct, sys
from pathlib import Path
folder, name, offset, mask = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4].lstrip("="), 0)
found = 0
for shard in sorted(Path(folder).glob("*.safetensors*")):
    with open(shard, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        if name in header:
            place = 8 + length + header[name]["data_offsets"][0] + offset
            assert place < 8 + length + header[name]["data_offsets"][1]
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([mask if sys.argv[4][0] == "=" else byte ^ mask]))
            found += 1
assert found == 1, f"{name} is in {found} shards"
PYTHON
}

# passes OPTIONS...: verify ends with 0; $output is what it printed.
passes() {
    run verify "$@"
    exits 0
}

# fails ID WORD... [-- OPTIONS...]: the verdict is fail with an error of that id whose subject and message have each WORD;
# the text and the JSON both tell.
fails() {
    local id=$1 words=() told
    shift
    while [[ $# -gt 0 && $1 != -- ]]; do
        words+=("$1")
        shift
    done
    [[ $# -gt 0 ]] && shift
    run verify "$@"
    exits 1 || return 1
    says "$id" "${words[@]}" || return 1
    run --separate-stderr verify --json --quiet "$@"
    exits 1 || return 1
    told=$(jq -r --arg id "$id" '.findings[] | select(.id == $id and .severity == "error") | "\(.subject)\n\(.message)"' <<<"$output")
    [[ -n $told && $(jq -r .verdict <<<"$output") == fail ]] || { echo "no error $id: $(jq -c .findings <<<"$output")" >&2; return 1; }
    for word in "${words[@]}"; do
        [[ $told == *"$word"* ]] || { printf 'expected "%s" in: %s\n' "$word" "$told" >&2; return 1; }
    done
}

# warns ID WORD [OPTIONS...]: the verdict is pass, with a warning of that id about WORD.
warns() {
    local id=$1 word=$2
    shift 2
    report "$@" || return 1
    told '.verdict == "pass"' ".findings[] | select(.id == \"$id\" and .severity == \"warning\") | .subject + .message | contains(\"$word\")"
}

# report OPTIONS...: the JSON, in $BATS_TEST_TMPDIR/report.json, held against the schema; exit codes 0 and 1 are both fine.
report() {
    local code=0
    verify --json --quiet "$@" >"$BATS_TEST_TMPDIR/report.json" || code=$?
    [[ $code -le 1 ]] || { echo "exit code $code" >&2; return 1; }
    valid "$BATS_TEST_TMPDIR/report.json" "$code"
}

# valid FILE CODE: one object, as the schema wants it, that goes with the exit code; every number in it is finite.
valid() {
    "$PYTHON" - "$1" "$2" "$ROOT" <<'PYTHON' >&2
import json, sys
sys.path.insert(0, sys.argv[3] + "/tests/cli")
import check_inspect
def never(word):
    raise SystemExit(f"{word} is no JSON")
told = json.loads(open(sys.argv[1], encoding="ascii").read(), parse_constant=never)
schema = json.load(open(sys.argv[3] + "/docs/schemas/qstream.verify-1.schema.json"))
check_inspect.validate(told, schema, schema, "report")
check = check_inspect.check
counted = {severity: sum(f["severity"] == severity for f in told["findings"]) for severity in ("error", "warning", "note")}
check("counts", told["counts"], counted)
check("verdict", told["verdict"], "fail" if counted["error"] else "pass")
check("exit code", sys.argv[2], "1" if counted["error"] else "0")
a = told["accounting"]
check("accounting", a["source_tensors"], a["quantized"] + a["kept"] + a["consumed"] + a["missing"] + a["not_yet"])
check("elements by role", sum(r["elements"] for r in told["roles"]), sum(t["elements"] for t in told["tensors"]))
for key in ("source_not_finite", "output_not_finite", "not_nearest"):
    check(f"{key} by role", sum(r[key] for r in told["roles"]), sum(t[key] for t in told["tensors"]))
for tensor in told["tensors"]:
    check(f"blocks of {tensor['name']}", tensor["blocks"] is not None, tensor["format"] == "mxfp4")
    check(f"unread or exact {tensor['name']}", tensor["read"] == 0 or tensor["exact"], tensor["worst_block"] is None)
numbers = []
def walk(value):
    if isinstance(value, dict):
        for item in value.values(): walk(item)
    elif isinstance(value, list):
        for item in value: walk(item)
    elif isinstance(value, float):
        numbers.append(value)
walk(told)
if any(n != n or n in (float("inf"), float("-inf")) for n in numbers):
    check_inspect.failures.append("a number is not finite")
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

# refuses CODE WORD... -- ARGUMENTS...: verify with these arguments ends with the code and one line that has each WORD,
# and nothing on standard output.
refuses() {
    local code=$1 words=()
    shift
    while [[ $1 != -- ]]; do
        words+=("$1")
        shift
    done
    shift
    run --separate-stderr "$QSTREAM" verify "$@"
    [[ $status -eq $code ]] || { printf 'exit code %s, expected %s, for: %s: %s\n' "$status" "$code" "$*" "$stderr" >&2; return 1; }
    [[ -z $output && ${#stderr_lines[@]} -eq 1 && $stderr == "qstream: "* ]] || { printf 'for %s: %s|%s\n' "$*" "$output" "$stderr" >&2; return 1; }
    local word
    for word in "${words[@]}"; do
        [[ $stderr == *"$word"* ]] || { printf 'expected "%s" in: %s\n' "$word" "$stderr" >&2; return 1; }
    done
}

# Nothing that moves a cursor, changes colours or the direction of writing; lines end by newline alone.
harmless() {
    LC_ALL=C not grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]' "$1"
}

# --- the command line ---

@test "given --help, then every option of the manual is there" {
    local option
    run "$QSTREAM" verify --help
    exits 0
    says "usage: qstream verify SRC DST"
    for option in --rounding --rule --gamma --recipe --min-sqnr --max-rel --thresholds --sample --part --hash --memory \
        --jobs --cpu --json --html --quiet --help; do
        says "$option"
        grep -q -- "^| \`$option" "$ROOT/docs/verify.md" || grep -q -- "\`$option" "$ROOT/docs/verify.md"
    done
    run "$QSTREAM" help verify
    exits 0
    says "--min-sqnr"
    run "$QSTREAM" help
    exits 0
    says "  verify "
}

@test "given folders that are missing, too many or elsewhere, then the exit code is 2 and one line says so" {
    given bf16
    refuses 2 "--help" --
    refuses 2 "" -- "$SRC"
    refuses 2 "" -- "$SRC" "$DST" "$DST"
    refuses 2 "hf://org/name/more" -- hf://org/name/more "$DST"
    refuses 2 "hf://org/name/more" -- "$SRC" hf://org/name/more
}

@test "given an option that does not exist, lacks its value or has a wrong one, then it is named with exit code 2" {
    local option
    given bf16
    refuses 2 "'--speed'" "--help" -- "$SRC" "$DST" --speed
    for option in rounding rule gamma recipe min-sqnr max-rel thresholds sample part memory jobs cpu html; do
        refuses 2 "--$option" -- "$SRC" "$DST" "--$option"
    done
    while read -r option value words; do
        # shellcheck disable=SC2086 # several words
        refuses 2 "--$option" "'$value'" $words -- "$SRC" "$DST" "--$option" "$value"
    done <<'WRONG'
rounding best nearest any
rounding NEAREST nearest
rule best amax qstream mse
gamma some layernorm original
sample 0
sample 0%
sample 101%
sample 1.5
sample -1%
sample 1%%
sample lots
sample nan
part 3/3
part 1
part -1/2
part 0/0
part a/b
memory lots
memory 0
jobs 0
jobs x
jobs -1
jobs 1025
min-sqnr high
min-sqnr mlp=
min-sqnr =5
min-sqnr inf
min-sqnr nan
max-rel -1
max-rel mlp=x
max-rel nan
WRONG
    refuses 2 "--cpu" "'quantum'" -- "$SRC" "$DST" --cpu quantum
    refuses 2 "--min-sqnr" "regular expression" -- "$SRC" "$DST" --min-sqnr 're:(=5'
    refuses 2 "standard output" -- "$SRC" "$DST" --json --html -
}

@test "given --gamma with another rule than qstream, then that is refused" {
    given fp8-tensor
    refuses 2 "--gamma goes with --rule qstream" -- "$SRC" "$DST" --gamma layernorm --rule mse
}

@test "given SRC and DST that are the same folder, however spelt, then that is refused" {
    given bf16
    refuses 2 "same" -- "$SRC" "$SRC"
    refuses 2 "same" -- "$SRC" "$SRC/."
    ln -s "$SRC" "$BATS_TEST_TMPDIR/link"
    refuses 2 "same" -- "$BATS_TEST_TMPDIR/link" "$SRC/"
}

@test "given less memory than one thread needs, then the least that would do is said, and that does" {
    local least
    given fp8-tensor
    refuses 2 "--memory" "at least" -- "$SRC" "$DST" --memory 1KiB
    least=$(sed -n 's/.*at least \([0-9]*[KM]iB\).*/\1/p' <<<"$stderr")
    [[ -n $least ]]
    passes --memory "$least"
}

# --- folders that are none ---

@test "given a SRC that is missing, damaged or incomplete, then the exit code is 3 and it is named" {
    given_three
    local good=$SRC
    refuses 3 "nowhere" -- "$BATS_TEST_TMPDIR/nowhere" "$DST"
    SRC=$BATS_TEST_TMPDIR/source
    cp -r "$good" "$SRC"
    truncate -s -1 "$SRC/model-00002-of-00003.safetensors"
    refuses 3 "model-00002-of-00003.safetensors" -- "$SRC" "$DST"
    rm "$SRC/model-00002-of-00003.safetensors"
    refuses 3 "model-00002-of-00003.safetensors" -- "$SRC" "$DST"
    rm -rf "$SRC"
    cp -r "$good" "$SRC"
    echo '{"model_type": ' >"$SRC/config.json"
    refuses 3 "config.json" -- "$SRC" "$DST"
    rm "$SRC/config.json"
    refuses 3 "config.json" -- "$SRC" "$DST"
    echo x >"$BATS_TEST_TMPDIR/file"
    refuses 3 "$BATS_TEST_TMPDIR/file" -- "$BATS_TEST_TMPDIR/file" "$DST"
}

@test "given a DST that is no checkpoint, then the exit code is 3 and it is named" {
    given bf16
    refuses 3 "nowhere" -- "$SRC" "$BATS_TEST_TMPDIR/nowhere"
    mkdir "$BATS_TEST_TMPDIR/empty"
    refuses 3 "empty" -- "$SRC" "$BATS_TEST_TMPDIR/empty"
    echo '{}' >"$BATS_TEST_TMPDIR/empty/config.json"
    refuses 3 "empty" -- "$SRC" "$BATS_TEST_TMPDIR/empty"
    rm "$DST"/*.safetensors
    refuses 3 "$DST" -- "$SRC" "$DST"
}

@test "given a SRC that is quantized in a way that cannot be decoded, then the exit code is 3" {
    given bf16
    refuses 3 mlp mxfp4 -- "$DST" "$SRC" # the two mistaken for each other
}

# --- what qstream made passes ---

@test "given each layout and rule, when qstream's own output is verified, then it passes" {
    local layout rule rules=(mse amax qstream) tried=1 # of them for each layout: all, or each in its turn
    [[ -z ${QSTREAM_TEST_FULL:-} ]] || tried=3
    for layout in bf16 fp8-tensor fp8-block mxfp8 ct-channel ct-tensor; do
        rules=("${rules[@]:1}" "${rules[0]}")
        for rule in "${rules[@]:0:tried}"; do
            SRC=$(source_checkpoint --layout "$layout" "${TINY[@]}" --outliers --zeros)
            rm -rf "$DST"
            quantize --quiet --rule "$rule"
            report || { echo "$layout, $rule" >&2; return 1; }
            told '.verdict == "pass" and .counts == {"error": 0, "warning": 0, "note": 0}' \
                '.settings.rule == "'$rule'" and .settings.rule_from == "manifest" and .settings.rounding == "nearest"' \
                '.settings.recipe == "llama-mxfp4" and .accounting.missing == 0 and .accounting.extra == 0' \
                '[.tensors[] | select(.format == "mxfp4")] | length == 3 and all(.blocks.scale_of_rule == 1 and .not_nearest == 0)' \
                || { echo "$layout, $rule" >&2; jq -c .findings "$BATS_TEST_TMPDIR/report.json" >&2; return 1; }
            [[ $rule != mse ]] || told '[.tensors[] | select(.blocks) | .blocks] | all(.at_optimum == 1 and .excess < 1e-12)'
        done
    done
}

@test "given F16 and F32 sources, gamma, multimodal models and several shards, when verified, then they pass" {
    local dtype gamma
    for dtype in f16 f32; do
        SRC=$(source_checkpoint --layout bf16 --dtype "$dtype" "${TINY[@]}" --outliers --zeros)
        rm -rf "$DST"
        quantize --quiet
        passes
    done
    for gamma in layernorm original; do
        given fp8-tensor --rule qstream --gamma $gamma
        report
        told '.verdict == "pass" and .settings.gamma == "'$gamma'" and all(.tensors[]; .blocks.scale_of_rule == 1)'
        rm "$DST/qstream.json"
        passes --rule qstream --gamma $gamma --rounding nearest
    done
    RECIPE=mistral-medium-3.5-mxfp4
    SRC=$(source_checkpoint --layout fp8-tensor --shards 3 --split-scales --layers 2 --vocab 256 --zeros)
    rm -rf "$DST"
    quantize --quiet --shard-size 512KiB
    report
    told '.verdict == "pass"' '[.layers[].layer] == [0, 1]' '.kept | map(.role) | contains(["vision", "attention", "norm"])'
}

@test "given mixtures of experts, one tensor per expert or fused, when verified, then they pass" {
    local fused
    RECIPE=qwen3-moe-mxfp4
    for fused in none qwen3_5 qwen3_vl; do
        SRC=$(source_checkpoint --arch qwen3_moe --layout bf16 --fused $fused --hidden 64 --mlp 96 --layers 1 --heads 2 \
            --kv-heads 1 --head-dim 32 --vocab 64 --experts 3)
        rm -rf "$DST"
        quantize --quiet
        report
        told '.verdict == "pass" and .accounting.extra == 0' '.roles[] | select(.role == "expert") | .elements == 3 * 3 * 64 * 96' \
            || { echo "$fused" >&2; jq -c .findings "$BATS_TEST_TMPDIR/report.json" >&2; return 1; }
    done
}

@test "given the sample model under each rule, when verified, then it passes, and mse has the highest SQNR" {
    local rule
    declare -A figure
    [[ -e $ROOT/build/models/smollm2-fp8/config.json && -e $ROOT/build/models/smollm2-bf16/config.json ]] \
        || "$PYTHON" "$ROOT/tests/models/make_sample.py" --out "$ROOT/build/models"
    SRC=$ROOT/build/models/smollm2-fp8 RECIPE=mistral-medium-3.5-mxfp4
    for rule in mse amax qstream; do
        rm -rf "$DST"
        quantize --quiet --rule $rule
        report
        told '.verdict == "pass" and (.findings | length) == 0 and (.tensors | length) == 90'
        figure[$rule]=$(jq '.roles[] | select(.role == "mlp").sqnr_db' "$BATS_TEST_TMPDIR/report.json")
        told '.roles[] | select(.role == "mlp") | .sqnr_db > 16 and .sqnr_db < 22 and .cosine > 0.98'
    done
    [[ $(jq -n "${figure[mse]} > ${figure[amax]} and ${figure[mse]} >= ${figure[qstream]}") == true ]]
    SRC=$ROOT/build/models/smollm2-bf16 RECIPE=llama-mxfp4
    rm -rf "$DST"
    quantize --quiet
    report
    told '.verdict == "pass"' '[.roles[].format] | contains(["mxfp4", "fp8-channel"])'
}

@test "given an FP8 weight made from BF16, when verified, then it has figures, no blocks, and passes" {
    given bf16
    report
    told '[.tensors[] | select(.format == "fp8-channel")] | length == 4 and all(.blocks == null and .sqnr_db > 25 and .elements > 0)' \
        '.roles[] | select(.role == "attention") | .format == "fp8-channel" and .flushed < 0.1'
}

# --- one changed byte ---

@test "given one changed code, when verified, then tensor, row and column are named" {
    given fp8-tensor
    flip "$DST" "$UP.weight_packed" $((5 * 32 + 7)) 0x02 # the even column
    fails not-nearest "$UP" "row 5" "column 14"
    flip "$DST" "$UP.weight_packed" $((5 * 32 + 7)) 0x22 # the odd column instead
    fails not-nearest "$UP" "row 5" "column 15"
    report
    told '[.tensors[] | select(.not_nearest == 1) | .module] == ["'$UP'"]'
}

@test "given one changed scale, when verified, then the rule, tensor, row and column are named" {
    given fp8-tensor --rule amax
    flip "$DST" "$DOWN.weight_scale" $((9 * 4 + 2)) 0x01
    fails scale-not-of-rule "$DOWN" amax "row 9" "column 64"
    report
    told '.tensors[] | select(.module == "'$DOWN'") | .blocks | .scale_of_rule < 1 and .scale_of_rule > 0.99'
}

@test "given one changed byte of a weight, a norm or an embedding that is kept, then tensor, row and column are named" {
    given fp8-tensor
    flip "$DST" "$Q.weight" $((3 * 64 + 9)) 0x80
    fails bits-changed "$Q.weight" "row 3" "column 9"
    given fp8-tensor
    flip "$DST" model.norm.weight 21 0x01
    fails bits-changed model.norm.weight 10
    given bf16
    flip "$DST" model.embed_tokens.weight $((7 * 128 + 12)) 0x40
    fails bits-changed model.embed_tokens.weight "row 7" "column 6"
    report
    told '.kept[] | select(.role == "embedding").different == 1'
}

@test "given a changed weight scale or input scale, then it is named with both values" {
    given fp8-tensor
    flip "$DST" "$Q.weight_scale" 2 0x10
    fails scale-changed "$Q.weight_scale"
    given fp8-tensor
    flip "$DST" "$Q.input_scale" 2 0x10
    fails input-scale-changed "$Q.input_scale"
}

@test "given values that are not finite on either side, then tensor and place are named, and figures stay finite" {
    given fp8-tensor
    flip "$DST" "$UP.weight_scale" $((4 * 2 + 1)) =255
    fails output-not-finite "$UP" "row 4" "column 32"
    report
    told '.tensors[] | select(.module == "'$UP'") | .output_not_finite == 32 and .sqnr_db > 10 and .elements == 64 * 128 and (.exact | not)'
    own_source --layout fp8-tensor "${TINY[@]}"
    rm -rf "$DST"
    quantize --quiet
    flip "$SRC" "$UP.weight" $((2 * 64 + 2)) =0x7f
    fails source-not-finite "$UP" "row 2" "column 2"
    report
    told '.tensors[] | select(.module == "'$UP'") | .source_not_finite == 1 and .sqnr_db > 10'
}

@test "given rows in another order, zeros for a hole, or swapped nibbles, then the weight is corrupt without any manifest" {
    local damage
    given fp8-tensor
    cp -r "$DST" "$BATS_TEST_TMPDIR/good"
    for damage in 'body[:32 * 8] = body[32 * 8:32 * 16] + body[:0]' 'body[:] = bytes(len(body))' \
        'body[:] = bytes(b >> 4 | (b & 15) << 4 for b in body)' 'body[:] = body[32:] + body[:32]'; do
        rm -rf "$DST"
        cp -r "$BATS_TEST_TMPDIR/good" "$DST"
        edit_output "
name = '$UP.weight_packed'
body = bytearray(tensors[name][2])
$damage
tensors[name][2] = bytes(body)"
        fails corrupt "$UP" || { echo "$damage" >&2; return 1; }
    done
}

@test "given the codes of one weight under the name of another, then both are corrupt" {
    given fp8-tensor
    edit_output "
up, gate = '$UP.weight_packed', '$UP.weight_packed'.replace('up', 'gate')
tensors[up][2], tensors[gate][2] = tensors[gate][2], tensors[up][2]"
    fails corrupt "$UP"
    fails corrupt "${UP/up/gate}"
}

# --- names, shapes, formats ---

@test "given tensors that were dropped, then each is named for what it is" {
    given fp8-tensor
    edit_output "del tensors['$Q.input_scale']"
    fails input-scale-missing "$Q"
    given fp8-tensor
    edit_output "del tensors['$Q.weight_scale']"
    fails scale-missing "$Q"
    given fp8-tensor
    edit_output "del tensors['model.norm.weight']"
    fails tensor-missing model.norm.weight
    report
    told '.accounting.missing == 1'
    given fp8-tensor
    edit_output "del tensors['$UP.weight_packed'], tensors['$UP.weight_scale']"
    fails tensor-missing "$UP.weight"
}

@test "given tensors too many, then each is named for what it is" {
    given fp8-tensor
    edit_output "tensors['model.layers.0.surprise'] = ['F32', [1], f32(1)]"
    fails tensor-extra model.layers.0.surprise
    report
    told '.accounting.extra == 1'
    given fp8-tensor
    edit_output "tensors['$UP.weight_scale_inv'] = ['F32', [], f32(1)]"
    fails companion-left "$UP.weight_scale_inv"
}

@test "given another shape or dtype, then the tensor is named with what it was expected to be" {
    given fp8-tensor
    edit_output "tensors['model.embed_tokens.weight'][1] = [32, 128]"
    fails shape-mismatch model.embed_tokens.weight "[32, 128]" "[64, 64]"
    given fp8-tensor
    edit_output "tensors['model.norm.weight'][0] = 'F16'"
    fails dtype-changed model.norm.weight F16 BF16
    given fp8-tensor
    edit_output "
for part in 'weight_packed', 'weight_scale':
    entry = tensors['$UP.' + part]
    entry[1] = [entry[1][0] // 2, entry[1][1]]
    entry[2] = entry[2][:len(entry[2]) // 2]"
    fails shape-mismatch "$UP"
}

@test "given a weight in a format that cannot be decoded, then it is named" {
    given fp8-tensor
    edit_output "
del tensors['$UP.weight_packed'], tensors['$UP.weight_scale']
tensors['$UP.qweight'] = ['I32', [64, 16], bytes(4096)]
tensors['$UP.qzeros'] = ['I32', [1, 16], bytes(64)]
tensors['$UP.scales'] = ['F16', [1, 128], bytes(256)]"
    fails format-unknown "$UP" awq
}

@test "given --recipe, or a recipe in the manifest, then formats that are not its are named" {
    given bf16
    jq '.rules |= map(if .format == "mxfp4" then .format = "fp8" else . end)' "$ROOT/configs/llama-mxfp4.json" >"$BATS_TEST_TMPDIR/other.json"
    fails not-of-recipe "$UP" mxfp4 fp8 -- --recipe "$BATS_TEST_TMPDIR/other.json"
    passes --recipe llama-mxfp4
    passes --recipe "$ROOT/configs/llama-mxfp4.json"
    jq '.recipe.rules[-1].format = "keep"' "$DST/qstream.json" >"$BATS_TEST_TMPDIR/manifest"
    cp "$BATS_TEST_TMPDIR/manifest" "$DST/qstream.json"
    fails not-of-recipe "$Q" keep
    refuses 3 "none.json" -- "$SRC" "$DST" --recipe "$BATS_TEST_TMPDIR/none.json"
    echo '{"schema": ' >"$BATS_TEST_TMPDIR/bad.json"
    refuses 3 "bad.json" -- "$SRC" "$DST" --recipe "$BATS_TEST_TMPDIR/bad.json"
}

@test "given a shard or an index of DST that is damaged, then it is a finding, not a failure of the program" {
    # shellcheck disable=SC2034 # the commands below use it
    local index=$DST/model.safetensors.index.json
    given_three
    cp -r "$DST" "$BATS_TEST_TMPDIR/good"
    # shellcheck disable=SC2016 # commands, run by eval
    damaged() { # ID WORD COMMAND
        rm -rf "$DST"
        cp -r "$BATS_TEST_TMPDIR/good" "$DST"
        eval "$3"
        fails "$1" "$2"
    }
    damaged shard-missing model-00002 'rm "$DST/model-00002-of-00003.safetensors"'
    damaged shard-unreadable model-00002 'truncate -s -1 "$DST/model-00002-of-00003.safetensors"'
    damaged index-invalid model.safetensors.index.json 'echo "{" >"$index"'
    damaged index-wrong-shard lm_head.weight 'jq ".weight_map[\"lm_head.weight\"] = \"model-00001-of-00003.safetensors\"" "$index" >"$index.new" && mv "$index.new" "$index"'
    damaged index-dangling no.such.tensor 'jq ".weight_map[\"no.such.tensor\"] = \"model-00001-of-00003.safetensors\"" "$index" >"$index.new" && mv "$index.new" "$index"'
    damaged tensor-unindexed lm_head.weight 'jq "del(.weight_map[\"lm_head.weight\"])" "$index" >"$index.new" && mv "$index.new" "$index"'
}

# --- config.json, the other files, the manifest ---

@test "given a config.json that is not the source's, then the key is named" {
    given fp8-tensor
    cp -r "$DST" "$BATS_TEST_TMPDIR/good"
    config() { # ID WORD JQ
        rm -rf "$DST"
        cp -r "$BATS_TEST_TMPDIR/good" "$DST"
        rm "$DST/qstream.json"
        jq "$3" "$BATS_TEST_TMPDIR/good/config.json" >"$DST/config.json"
        fails "$1" "$2"
    }
    config config-key-changed rms_norm_eps '.rms_norm_eps = 1e-6'
    config config-key-missing head_dim 'del(.head_dim)'
    config config-key-changed rope_theta '.rope_parameters.rope_theta = 5'
    config config-formats "$Q" 'del(.quantization_config.config_groups.group_1)'
    config config-formats "$UP" '.quantization_config.config_groups.group_0.weights.group_size = 16'
    # the same in another spelling is the same
    rm -rf "$DST"
    cp -r "$BATS_TEST_TMPDIR/good" "$DST"
    rm "$DST/qstream.json"
    jq -S . "$BATS_TEST_TMPDIR/good/config.json" >"$DST/config.json"
    passes
}

@test "given keys of config.json that came in, or a quantization_config that is none, then that is told" {
    given fp8-tensor
    rm "$DST/qstream.json"
    cp "$DST/config.json" "$BATS_TEST_TMPDIR/good.json"
    jq '.colour = "red"' "$BATS_TEST_TMPDIR/good.json" >"$DST/config.json"
    warns config-key-added colour
    jq '.quantization_config = 7' "$BATS_TEST_TMPDIR/good.json" >"$DST/config.json"
    fails config-invalid quantization_config
}

@test "given files of the source that did not come along, or that changed, then they are named" {
    own_source --layout fp8-tensor "${TINY[@]}"
    echo '{"version": 1}' >"$SRC/tokenizer.json"
    quantize --quiet
    passes
    echo '{ "version":1 }' >"$DST/tokenizer.json" # the same in another spelling, but not the manifest's bytes
    fails manifest-size tokenizer.json
    echo '{"version": 2}' >"$DST/tokenizer.json"
    fails file-changed tokenizer.json
    rm "$DST/tokenizer.json"
    fails file-missing tokenizer.json
    rm "$DST/qstream.json"
    warns file-missing tokenizer.json
    echo '{ "version":1 }' >"$DST/tokenizer.json"
    passes
    echo '{"version": 2}' >"$DST/tokenizer.json"
    fails file-changed tokenizer.json
}

@test "given a file that is not as the manifest says, then it is named; shards are digested with --hash only" {
    given fp8-tensor
    cp -r "$DST" "$BATS_TEST_TMPDIR/good"
    passes --hash
    echo >>"$DST/generation_config.json"
    fails manifest-size generation_config.json
    cp "$BATS_TEST_TMPDIR/good/generation_config.json" "$DST"
    sed -i 's/false/true /' "$DST/generation_config.json"
    fails manifest-hash generation_config.json
    cp "$BATS_TEST_TMPDIR/good/generation_config.json" "$DST"
    touch "$DST/notes.txt"
    report
    told '.verdict == "pass"' '.findings[] | select(.id == "file-not-in-manifest" and .severity == "note") | .subject == "notes.txt"'
    rm "$DST/notes.txt"
    # the model card is for people to edit
    echo more >>"$DST/README.md"
    warns manifest-size README.md
    cp "$BATS_TEST_TMPDIR/good/README.md" "$DST"
    sed -i 's/a/b/' "$DST/README.md"
    warns manifest-hash README.md
    rm "$DST/README.md"
    fails file-missing README.md
}

@test "given --hash, then a changed byte in a norm and in a header's padding is found; without it the padding passes" {
    given fp8-tensor
    flip "$DST" model.norm.weight 21 0x01
    fails manifest-hash model.safetensors -- --hash
    given fp8-tensor
    "$PYTHON" -S - "$DST/model.safetensors" <<'PYTHON'
import struct, sys
with open(sys.argv[1], "r+b") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    file.seek(8 + length - 1)
    assert file.read(1) == b" ", "this header has no padding: take another checkpoint"
    file.seek(8 + length - 1)
    file.write(b"\n")
PYTHON
    passes
    fails manifest-hash model.safetensors -- --hash
    report --hash
    told '.settings.hash == true'
}

@test "given a manifest that is no JSON, or none that it could be, then that is an error, and the rest is verified" {
    local text
    given fp8-tensor
    for text in 'garbage' '{"schema": "qstream.manifest/1"' '[]' '{"schema": "qstream.manifest/9"}' \
        '{"schema": "qstream.manifest/1", "files": 3}'; do
        printf '%s' "$text" >"$DST/qstream.json"
        fails manifest-invalid qstream.json || { echo "$text" >&2; return 1; }
        report
        told '(.tensors | length) == 3 and all(.tensors[]; .sqnr_db > 10)'
    done
}

@test "given a manifest that names files elsewhere, then nothing is read there" {
    given fp8-tensor
    echo secret >"$BATS_TEST_TMPDIR/secret"
    for name in ../secret "$BATS_TEST_TMPDIR/secret" a/../../secret; do
        jq --arg name "$name" '.files[0].name = $name' "$DST/qstream.json" >"$BATS_TEST_TMPDIR/manifest"
        cp "$BATS_TEST_TMPDIR/manifest" "$DST/qstream.json"
        fails manifest-invalid qstream.json
    done
}

@test "given a manifest of another source, then that is told" {
    given fp8-tensor
    jq '.source.files[0].size += 1' "$DST/qstream.json" >"$BATS_TEST_TMPDIR/manifest"
    cp "$BATS_TEST_TMPDIR/manifest" "$DST/qstream.json"
    fails manifest-source model.safetensors
}

# --- rounding and rule ---

@test "given no manifest, then the rule is told from the scales, and what deviates is no error unless it was asked for" {
    local rule
    # outliers, in which amax and the others differ; zeros with a sign, which only mse keeps: scales of mse and qstream are the same
    for rule in mse amax qstream; do
        SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}" --outliers --zeros)
        rm -rf "$DST"
        quantize --quiet --rule $rule
        rm "$DST/qstream.json"
        report
        told '.verdict == "pass" and .settings.rounding == "any" and .settings.rounding_from == "default"' \
            '.settings.rule_from == "scales" and .settings.recipe == null' 'all(.tensors[]; .blocks.scale_of_rule == 1)'
        told ".settings.rule == \"$rule\""
    done
    given fp8-tensor --rule amax
    rm "$DST/qstream.json"
    flip "$DST" "$DOWN.weight_scale" $((9 * 4 + 2)) 0x01
    report
    told '.verdict == "pass" and .settings.rule == "amax"' \
        '[.findings[] | select(.id == "scale-not-of-rule" and .severity == "warning")] | length == 1'
    fails scale-not-of-rule "$DOWN" "row 9" "column 64" -- --rounding nearest
    fails scale-not-of-rule "$DOWN" "row 9" "column 64" -- --rule amax
}

@test "given codes that are not nearest and no manifest, then they pass, and fail with --rounding nearest" {
    given fp8-tensor
    rm "$DST/qstream.json"
    flip "$DST" "$UP.weight_packed" $((5 * 32 + 7)) 0x01
    report
    told '.verdict == "pass"' '.tensors[] | select(.module == "'$UP'") | .not_nearest == 1'
    fails not-nearest "$UP" "row 5" "column 14" -- --rounding nearest
    report --rounding nearest
    told '.settings.rounding == "nearest" and .settings.rounding_from == "option"'
}

@test "given a manifest and --rounding any or another --rule, then the option counts" {
    given fp8-tensor --rule mse
    flip "$DST" "$UP.weight_packed" $((5 * 32 + 7)) 0x01
    report --rounding any
    told '.settings.rounding == "any" and .settings.rounding_from == "option"' '[.findings[].id] | contains(["not-nearest"]) | not'
    given fp8-tensor --rule mse
    fails scale-not-of-rule amax -- --rule amax
    report --rule amax
    told '.settings.rule == "amax" and .settings.rule_from == "option"'
}

@test "given scales of no rule and no manifest, then the rule is null and nothing is said of it" {
    given fp8-tensor
    edit_output "
import random
random.seed($SEED)
for name in tensors:
    if name.endswith('weight_scale') and '.mlp.' in name:
        tensors[name][2] = bytes(code + random.choice((0, 0, 1)) for code in tensors[name][2])"
    report
    told '.settings.rule == null and .settings.rule_from == null' '[.findings[].id] | contains(["scale-not-of-rule"]) | not' \
        'all(.tensors[]; .blocks.scale_of_rule == null)'
}

@test "given the scale of a block of zeros, then any will do" {
    own_source --layout bf16 "${TINY[@]}"
    edit_source "
name = '$UP.weight'
tensors[name][2] = bytes(64) + tensors[name][2][64:]"
    quantize --quiet
    passes
    flip "$DST" "$UP.weight_scale" 0 0x05
    passes
}

# --- limits ---

@test "given --min-sqnr and --max-rel that are met, then it passes" {
    given fp8-tensor
    passes --min-sqnr 5 --max-rel 0.9
    passes --min-sqnr mlp=5 --max-rel mlp=0.9
    passes --min-sqnr 're:.*\.mlp\.=5' --max-rel '*.down_proj=0.9'
}

@test "given limits that are too high, then the exit code is 1 and the worst are listed" {
    given fp8-tensor
    fails below-threshold "$UP" "$DOWN" 90 -- --min-sqnr 90
    fails below-threshold "$UP" "$DOWN" 90 -- --min-sqnr mlp=90
    fails below-threshold "$UP" 0.0001 -- --max-rel 0.0001
    run --separate-stderr verify --json --min-sqnr '*.down_proj=90'
    exits 1
    jq -e '[.findings[] | select(.id == "below-threshold") | .subject] | length == 1 and (.[0] | startswith("'"$DOWN"'"))' <<<"$output"
    run --separate-stderr verify --json --max-rel "re:.*\.(up|gate)_proj\$=0.0001"
    exits 1
    jq -e '[.findings[] | select(.id == "below-threshold")] | length == 2' <<<"$output"
}

@test "given several limits, then the last that says something about a weight counts" {
    given fp8-tensor
    passes --min-sqnr 90 --min-sqnr 5
    passes --min-sqnr mlp=90 --min-sqnr 5
    fails below-threshold "$DOWN" -- --min-sqnr 5 --min-sqnr '*.down_proj=90'
    run --separate-stderr verify --json --min-sqnr 90 --min-sqnr '*.down_proj=5'
    exits 1
    jq -e '[.findings[] | select(.id == "below-threshold") | .subject | contains("down_proj")] | length == 2 and (any | not)' <<<"$output"
}

@test "given a limit that applies to no quantized weight, then it is named with exit code 2" {
    given fp8-tensor
    refuses 2 "attention" -- "$SRC" "$DST" --min-sqnr attention=5
    refuses 2 "*.no_proj" -- "$SRC" "$DST" --max-rel '*.no_proj=0.5'
    refuses 2 "re:nothing" -- "$SRC" "$DST" --min-sqnr 're:nothing=5'
}

@test "given a thresholds file, then its rules count, and options after them" {
    given fp8-tensor
    limits() { jq -n "{schema: \"qstream.thresholds/1\", name: \"mine\", rules: $1}" >"$BATS_TEST_TMPDIR/mine.thresholds.json"; }
    FILE=$BATS_TEST_TMPDIR/mine.thresholds.json
    limits '[{role: "mlp", min_sqnr_db: 5, max_rel_error: 0.9}, {match: "re:.*nothing", min_sqnr_db: 5, optional: true, comment: "."}]'
    report --thresholds "$FILE"
    told '.verdict == "pass" and .settings.thresholds == "mine"'
    limits '[{min_sqnr_db: 5}, {match: "*.down_proj", role: "mlp", min_sqnr_db: 90}]'
    fails below-threshold "$DOWN" -- --thresholds "$FILE"
    passes --thresholds "$FILE" --min-sqnr 4
    limits '[{role: "attention", min_sqnr_db: 5}]'
    refuses 2 "attention" -- "$SRC" "$DST" --thresholds "$FILE"
}

@test "given a thresholds file with mistakes, then the rule is named with exit code 3" {
    given fp8-tensor
    wrong() { # JSON WORD...
        printf '%s' "$1" >"$BATS_TEST_TMPDIR/wrong.json"
        refuses 3 "wrong.json" "${@:2}" -- "$SRC" "$DST" --thresholds "$BATS_TEST_TMPDIR/wrong.json"
    }
    refuses 3 "none.json" -- "$SRC" "$DST" --thresholds "$BATS_TEST_TMPDIR/none.json"
    refuses 3 "'no-such-name' is neither a file nor a file of thresholds" -- "$SRC" "$DST" --thresholds no-such-name
    refuses 3 "'no-such-name' is neither a file nor a recipe" -- "$SRC" "$DST" --recipe no-such-name
    wrong 'garbage' "JSON"
    wrong '[]'
    wrong '{"schema": "qstream.thresholds/9", "name": "x", "rules": [{"min_sqnr_db": 5}]}' "schema"
    wrong '{"schema": "qstream.thresholds/1", "name": "x"}' "rules"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [{"min_sqnr_db": 5}, {"role": "mlp"}]}' "rule 2"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [{"min_sqnr_db": 5}, {"role": "mlps", "min_sqnr_db": 5}]}' "rule 2" "mlps"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [{"min_sqnr": 5}]}' "rule 1" "min_sqnr"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [{"min_sqnr_db": "5"}]}' "rule 1"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [{"max_rel_error": -1}]}' "rule 1"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [{"match": "re:(", "max_rel_error": 1}]}' "rule 1"
    wrong '{"schema": "qstream.thresholds/1", "name": "x", "rules": [7]}' "rule 1"
}

@test "given the thresholds that come with qstream, then they are found by name, in any folder, and qstream's output meets them" {
    local rule layout
    for layout in fp8-tensor bf16; do
        for rule in mse amax; do
            given $layout --rule $rule
            run env -C / "$QSTREAM" verify "$SRC" "$DST" --thresholds mxfp4 --json --quiet
            exits 0
            jq -e '.settings.thresholds == "mxfp4"' <<<"$output"
        done
    done
}

# --- samples and parts ---

@test "given --sample, then a reproducible share is read, and what was not read is said" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --hidden 128 --mlp 256 --layers 24 --heads 2 --kv-heads 1 --head-dim 64 --vocab 64)
    quantize --quiet
    report --sample 0.25
    cp "$BATS_TEST_TMPDIR/report.json" "$BATS_TEST_TMPDIR/first.json"
    told '.verdict == "pass" and .settings.sample == 0.25 and .read.tiles < .read.tiles_total and .read.tiles > 0' \
        '.read.bytes < .read.bytes_total and .read.tensors_unread > 0 and .accounting.missing == 0' \
        '.read.tiles / .read.tiles_total | . > 0.1 and . < 0.5'
    report --sample 25% --jobs 7
    cmp "$BATS_TEST_TMPDIR/first.json" "$BATS_TEST_TMPDIR/report.json"
    passes --sample 25%
    says "not all was read"
    report --sample 100%
    told '.read.tiles == .read.tiles_total and .read.tensors_unread == 0'
    report
    told '.settings.sample == null and .read.tiles == .read.tiles_total and .read.bytes == .read.bytes_total'
}

@test "given --sample, then headers, small tensors and files are still verified" {
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    quantize --quiet
    edit_output "del tensors['$Q.input_scale']"
    fails input-scale-missing "$Q" -- --sample 1%
}

@test "given --part I/N, then all parts together read everything once, and each checks headers and files" {
    local part whole
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --hidden 128 --mlp 256 --layers 6 --heads 2 --kv-heads 1 --head-dim 64 --vocab 64)
    quantize --quiet
    report
    whole=$(jq -c '[([.tensors[].elements] | add), .read.tiles, .read.bytes]' "$BATS_TEST_TMPDIR/report.json")
    for part in 0 1 2; do
        report --part $part/3
        told '.verdict == "pass" and .settings.part == "'$part/3'" and .read.tiles > 0'
        cp "$BATS_TEST_TMPDIR/report.json" "$BATS_TEST_TMPDIR/part$part.json"
    done
    [[ $(jq -sc '[([.[].tensors[].elements] | add), ([.[].read.tiles] | add), ([.[].read.bytes] | add)]' "$BATS_TEST_TMPDIR"/part?.json) == "$whole" ]]
    # a damaged byte is found by exactly one of them, a missing scale by all
    flip "$DST" model.layers.3.mlp.up_proj.weight_packed 100 0x20
    local found=0
    for part in 0 1 2; do
        run verify --part $part/3 --quiet
        found=$((found + status))
    done
    [[ $found -eq 1 ]]
    edit_output "del tensors['$Q.input_scale']"
    for part in 0 1 2; do fails input-scale-missing "$Q" -- --part $part/3; done
}

# --- unfinished folders ---

@test "given a folder of which only part 0/2 was made, then its complete shards are verified and the rest is not missing" {
    SRC=$(source_checkpoint --layout fp8-tensor --shards 4 "${TINY[@]}")
    quantize --quiet --part 0/2
    not_published
    report
    told '.state == "unfinished" and .verdict == "pass" and .accounting.not_yet > 0 and .accounting.missing == 0 and .accounting.kept > 0'
    passes
    says "unfinished"
    local shard name
    shard=$(ls "$DST"/*.safetensors* | head -1)
    name=$("$PYTHON" -S -c '
import json, struct, sys
content = open(sys.argv[1], "rb").read()
header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
print(next(name for name in header if name.endswith("norm.weight") or name.endswith("embed_tokens.weight")))' "$shard")
    flip "$DST" "$name" 1 0x01
    fails bits-changed "$name"
    flip "$DST" "$name" 1 0x01
    quantize --quiet --part 1/2
    quantize --quiet --finish
    report
    told '.state == "complete" and .verdict == "pass" and .accounting.not_yet == 0'
}

# --- output ---

@test "given --json, then standard output is one object and nothing else, valid, for a pass and for a failure" {
    given bf16
    run --separate-stderr verify --json
    exits 0
    jq -e '.schema == "qstream.verify/1"' <<<"$output"
    [[ $(jq -s length <<<"$output") -eq 1 ]]
    report
    told '(.histograms | length) > 0' '.histograms[] | select(.format == "mxfp4") | (.scales.counts | add) > 0' \
        '[.tensors[] | select(.format == "mxfp4")][0].worst_block | (.source | length) == 32 and (.codes | length) == 32 and (.values | length) == 32' \
        'all(.tensors[]; .projection as $p | .module | endswith($p))'
    flip "$DST" "$UP.weight_packed" 3 0x22
    run --separate-stderr verify --json
    exits 1
    jq -e '.verdict == "fail" and .counts.error > 0' <<<"$output"
    report
}

@test "given --json, then figures that do not exist are null and a weight of zeros has them" {
    own_source --layout bf16 "${TINY[@]}"
    edit_source "tensors['$UP.weight'][2] = bytes(len(tensors['$UP.weight'][2]))"
    quantize --quiet
    report
    told '.verdict == "pass"' '.tensors[] | select(.module == "'$UP'") | .exact and .sqnr_db == null and .rel_error == 0 and .cosine == null and .worst_row == null'
    passes
}

@test "given figures, then they are those of their definitions" {
    own_source --layout bf16 "${TINY[@]}"
    # one row that MXFP4 holds exactly, one that it does not: 0.25 between 0 and 0.5 is lost whole, 7 saturates at 6
    edit_source "
row = bf16(*([0x3f80] * 31 + [0x40c0]))  # 1, ..., 1, 6
name = '$UP.weight'
tensors[name][2] = row * (len(tensors[name][2]) // 64)"
    quantize --quiet --rule amax
    report
    told '.tensors[] | select(.module == "'$UP'") | .exact and .sqnr_db == null and .rel_error == 0 and .max_abs_error == 0
        and .mean_abs_error == 0 and .saturated == 0 and .flushed == 0 and .cosine > 0.9999999 and .cosine < 1.0000001'
    own_source --layout bf16 "${TINY[@]}"
    edit_source "
row = bf16(*([0x3e80] * 16 + [0x40c0] * 15 + [0x40e0]))  # 0.25 x 16, 6 x 15, 7: amax takes the scale 2^1 from 7 on
name = '$UP.weight'
tensors[name][2] = row * (len(tensors[name][2]) // 64)"
    rm -rf "$DST"
    quantize --quiet --rule mse
    report
    # under the scale 1: 0.25 is a tie that goes to 0, 7 becomes 6
    told '.tensors[] | select(.module == "'$UP'") | (.flushed - 0.5 | fabs) < 1e-12 and (.saturated - 1 / 32 | fabs) < 1e-12
        and .max_abs_error == 1 and (.mean_abs_error - (16 * 0.25 + 1) / 32 | fabs) < 1e-12
        and (.rel_error - ((16 * 0.0625 + 1) / (16 * 0.0625 + 15 * 36 + 49) | sqrt) | fabs) < 1e-12
        and (.sqnr_db - 10 * ((16 * 0.0625 + 15 * 36 + 49) / (16 * 0.0625 + 1) | log10) | fabs) < 1e-9
        and .worst_row.row == 0 and .worst_block.row == 0 and .worst_block.column == 0 and .worst_block.squared_error == 2
        and .worst_block.scale == 1 and .worst_block.scale_code == 127 and .worst_block.source[31] == 7 and .worst_block.values[31] == 6'
}

@test "given the table, then it has rows for roles and layers, the ten worst weights and a verdict" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --hidden 64 --mlp 128 --layers 5 --heads 2 --kv-heads 1 --head-dim 32 --vocab 64)
    quantize --quiet
    run --separate-stderr verify
    exits 0
    says "SQNR" "worst"
    [[ $(grep -cE '^ *mlp +mxfp4 ' <<<"$output") -eq 1 ]]
    local layer
    for layer in 0 1 2 3 4; do grep -qE "^ *(layer )?$layer " <<<"$output"; done
    [[ $(grep -cE 'model\.layers\.[0-4]\.mlp\.(up|gate|down)_proj' <<<"$output") -eq 10 ]]
    [[ $(tail -1 <<<"$output") == PASS:*"0 errors"* ]]
    flip "$DST" "$UP.weight_packed" 3 0x22
    run --separate-stderr verify
    exits 1
    [[ $(tail -1 <<<"$output") == FAIL:*error* ]]
}

@test "given --quiet, then standard error is empty and the exit code is the same" {
    given fp8-tensor
    run --separate-stderr verify --quiet
    exits 0
    [[ -z $stderr ]]
    flip "$DST" "$UP.weight_packed" 3 0x22
    run --separate-stderr verify --quiet
    exits 1
    [[ -z $stderr ]]
}

@test "given other numbers of threads, instruction sets and memory, then text and JSON are the same to the byte" {
    local level
    SRC=$(source_checkpoint --layout bf16 --hidden 1024 --mlp 2048 --layers 1 --vocab 2048)
    RECIPE=mistral-medium-3.5-mxfp4 quantize --quiet
    flip "$DST" model.language_model.layers.0.mlp.up_proj.weight_packed 700000 0x22
    report --jobs 1
    cp "$BATS_TEST_TMPDIR/report.json" "$BATS_TEST_TMPDIR/one.json"
    run verify --jobs 1 --quiet
    local text=$output
    for level in $("$QSTREAM" version | sed -n 's/.*variants: \(.*\))/\1/p'); do
        report --jobs 3 --cpu "$level"
        cmp "$BATS_TEST_TMPDIR/one.json" "$BATS_TEST_TMPDIR/report.json"
    done
    report --jobs 7 --memory 64MiB
    cmp "$BATS_TEST_TMPDIR/one.json" "$BATS_TEST_TMPDIR/report.json"
    run verify --jobs 7 --quiet
    [[ $output == "$text" ]]
}

@test "given a run, then nothing in either folder has changed" {
    own_source --layout fp8-tensor "${TINY[@]}"
    quantize --quiet
    cp -r "$SRC" "$BATS_TEST_TMPDIR/source-before"
    cp -r "$DST" "$BATS_TEST_TMPDIR/output-before"
    passes --hash
    same_folders "$SRC" "$BATS_TEST_TMPDIR/source-before"
    same_folders "$DST" "$BATS_TEST_TMPDIR/output-before"
}

@test "given names made to do harm, when verified in any way, then none reaches the terminal" {
    local arguments
    own_source --layout bf16 "${TINY[@]}"
    edit_source "
evil = 'model.layers.0.\x1b[31m\n\u202egnp\x7f\u009b2J\u2028\t<script>\ufeff\r\x08'
tensors[evil + '.weight'] = ['BF16', [4, 64], bytes(512)]
tensors['model.layers.0.mlp.\x1b[31mup_proj.weight'] = ['BF16', [4, 64], bytes(512)]"
    jq '.rules |= [{match: "*up_proj", format: "mxfp4"}] + .' "$ROOT/configs/llama-mxfp4.json" >"$BATS_TEST_TMPDIR/recipe.json"
    RECIPE=$BATS_TEST_TMPDIR/recipe.json quantize --quiet
    passes
    edit_output "
for name in tensors:
    if '\x1b' in name and 'scale' not in name:
        tensors[name][2] = bytes(len(tensors[name][2]) - 1) + b'\x77'
tensors['\x1b]0;title\x07.extra'] = ['F32', [1], f32(1)]"
    touch "$DST/"$'\x1b]0;title\x07\xc2\x9b\xff'
    for arguments in "" --json "--rounding nearest" "--min-sqnr 90" "--html -"; do
        # shellcheck disable=SC2086 # several options
        run --separate-stderr verify $arguments
        exits 1
        printf '%s\n' "$stderr" >"$BATS_TEST_TMPDIR/said"
        printf '%s\n' "$output" >"$BATS_TEST_TMPDIR/told"
        harmless "$BATS_TEST_TMPDIR/said"
        [[ $arguments == --html* ]] && not grep -q '<script>[^"]*gnp\|gnp.*<script>' "$BATS_TEST_TMPDIR/told" && continue
        harmless "$BATS_TEST_TMPDIR/told" || { echo "for: $arguments" >&2; return 1; }
    done
}

@test "given --html, then the page holds what --json says, and - is standard output" {
    given fp8-tensor
    report
    run --separate-stderr verify --quiet --html "$BATS_TEST_TMPDIR/page.html"
    exits 0
    [[ $(head -c 15 "$BATS_TEST_TMPDIR/page.html" | tr '[:upper:]' '[:lower:]') == '<!doctype html>' ]]
    verify --quiet --html - | cmp - "$BATS_TEST_TMPDIR/page.html"
    verify --quiet --json --html "$BATS_TEST_TMPDIR/again.html" | cmp - "$BATS_TEST_TMPDIR/report.json"
    cmp "$BATS_TEST_TMPDIR/again.html" "$BATS_TEST_TMPDIR/page.html"
    "$PYTHON" -c '
import json, re, sys
page = open(sys.argv[1], encoding="utf-8").read()
found = re.findall(r"<script[^>]* type=\"application/json\"[^>]*>(.*?)</script>", page, re.S)
assert len(found) == 1 and "<" not in found[0] and "@DATA@" not in page, "the data is not whole"
assert json.loads(found[0])["verify"] == json.load(open(sys.argv[2])), "another report"
assert not re.search(r"(?:src|href)\s*=\s*[\"\x27]?https?:", page), "it needs a network"' \
        "$BATS_TEST_TMPDIR/page.html" "$BATS_TEST_TMPDIR/report.json"
}

# --- accidents ---

@test "given a page that cannot be written, then the old one stays, nothing else is left and the exit code is 4" {
    given fp8-tensor
    mkdir "$BATS_TEST_TMPDIR/pages"
    echo old >"$BATS_TEST_TMPDIR/pages/page.html"
    run prlimit --fsize=4000 "$QSTREAM" verify "$SRC" "$DST" --html "$BATS_TEST_TMPDIR/pages/page.html"
    exits 4
    [[ $(<"$BATS_TEST_TMPDIR/pages/page.html") == old && $(ls "$BATS_TEST_TMPDIR/pages") == page.html ]]
    run verify --html /dev/full
    exits 4
    run verify --html "$BATS_TEST_TMPDIR/no/such/folder.html"
    exits 4
    says "no/such/folder.html"
}

@test "given standard output that is full or closed, then the exit code is 4" {
    local arguments
    given fp8-tensor
    for arguments in "" --json "--html -"; do
        run sh -c "'$QSTREAM' verify '$SRC' '$DST' $arguments >/dev/full"
        exits 4 || { echo "for: $arguments" >&2; return 1; }
        says "qstream: "
        run sh -c "'$QSTREAM' verify '$SRC' '$DST' $arguments >&-"
        exits 4 || { echo "closed, for: $arguments" >&2; return 1; }
    done
}

@test "given a disk that fails, then the exit code is 4 and one line says where; short reads do no harm" {
    local reads at
    given fp8-tensor
    report
    with_shim SHIM_SHORT=1 -- "$QSTREAM" verify "$SRC" "$DST" --json --quiet | cmp - "$BATS_TEST_TMPDIR/report.json"
    with_shim SHIM_COUNT="$BATS_TEST_TMPDIR/count" -- "$QSTREAM" verify "$SRC" "$DST" --quiet --jobs 1 >/dev/null
    reads=$(awk '$1 == "pread" { print $2 }' "$BATS_TEST_TMPDIR/count")
    ((reads > 10))
    for at in $((reads / 2)) $((reads - 1)) $reads; do
        run --separate-stderr with_shim SHIM_FAIL="pread:$at:EIO" -- "$QSTREAM" verify "$SRC" "$DST" --quiet --jobs 1
        exits 4 || { echo "read $at of $reads" >&2; return 1; }
        [[ -z $output && ${#stderr_lines[@]} -eq 1 && $stderr == "qstream: "*"Input/output error"* ]]
    done
}

starved() { # BYTES; 127, which bats takes for a missing command, becomes 4
    local code=0
    prlimit --as="$1" --core=0 "$QSTREAM" verify "$SRC" "$DST" --json --quiet --jobs 3 >"$BATS_TEST_TMPDIR/told" 2>"$BATS_TEST_TMPDIR/said" || code=$?
    return $((code == 127 ? 4 : code))
}

@test "given too little memory after all, whatever it is, then it succeeds or says so, and never crashes" {
    local space refused=0 code
    given fp8-tensor
    for ((space = 8 << 10; space <= 48 << 10; space += 512)); do
        code=0
        starved $((space << 10)) || code=$?
        grep -q 'shared \(libraries\|object\)\|for initial thread' "$BATS_TEST_TMPDIR/said" && continue # not even the program fits
        if [[ $code -eq 0 ]]; then
            jq -e '.verdict == "pass"' "$BATS_TEST_TMPDIR/told" >/dev/null
        else
            [[ $code -eq 4 ]] || { echo "exit code $code with $space KiB: $(<"$BATS_TEST_TMPDIR/said")" >&2; return 1; }
            grep -q '^qstream: ' "$BATS_TEST_TMPDIR/said"
            [[ ! -s $BATS_TEST_TMPDIR/told ]]
            refused=$((refused + 1))
        fi
    done
    [[ $code -eq 0 && $refused -gt 0 ]]
}

# One layer of true shapes and what becomes of it, below build/cli: not in /tmp, which may be memory.
given_layer() {
    SRC=$BUILD/sources/none
    if [[ $(df --output=avail -B1 "$BUILD" | tail -1) -lt $((4 << 30)) ]]; then
        skip "less than 4 GB are free below $BUILD"
    fi
    SRC=$(source_checkpoint "${LAYER[@]}")
    DST=$BUILD/verify-output
    rm -rf "$DST"
    RECIPE=mistral-medium-3.5-mxfp4 quantize --quiet
}

# --foreground: timeout would signal its group as well, and a second signal ends the program at once
@test "given a layer of the reference model, then 64 MiB suffice to verify it; an interrupt ends it with 130 and no page" {
    local peak
    given_layer
    # address space that is never touched, above all of the thread stacks, comes on top
    run prlimit --as=$((72 << 20)) --core=0 /usr/bin/time -f 'peak %M' \
        "$QSTREAM" verify "$SRC" "$DST" --quiet --memory 64MiB --jobs 16
    exits 0
    peak=$(($(sed -n 's/^peak //p' <<<"$output") / 1024))
    echo "# peak $peak MiB" >&3
    ((peak <= 64))
    mkdir "$BATS_TEST_TMPDIR/pages"
    run --separate-stderr timeout --foreground --preserve-status -s INT 0.3 "$QSTREAM" verify "$SRC" "$DST" --quiet --jobs 1 \
        --cpu portable --json --html "$BATS_TEST_TMPDIR/pages/page.html"
    exits 130
    [[ -z $output && $stderr == "qstream: "*interrupted* ]]
    [[ -z $(ls -A "$BATS_TEST_TMPDIR/pages") ]]
}
