#!/usr/bin/env bats
# What a user gets for whom something is wrong: the right exit code, one line that says what and where, nothing that looks
# finished; and once the cause is gone, the right result from the same command.

load helper

setup_file() { prepare; }
setup() {
    fresh
    RECIPE=llama-mxfp4
}
teardown() {
    if mountpoint -q "$BATS_TEST_TMPDIR/disk"; then
        umount -l "$BATS_TEST_TMPDIR/disk"
    fi
}

fp8() { own_source --layout fp8-tensor "${TINY[@]}"; }
bf16() { own_source --layout bf16 "${TINY[@]}"; }
three_shards() { own_source --layout fp8-tensor --shards 3 "${TINY[@]}"; }

UP=model.layers.0.mlp.up_proj
Q=model.layers.0.self_attn.q_proj

# --- the command line ---

@test "given no recipe, then that is said" {
    bf16
    run "$QSTREAM" quantize "$SRC" "$DST"
    exits 2
    says "--recipe is missing" "--help"
    not_published
}

@test "given an option that does not exist, lacks its value or has a wrong one, then it is named" {
    bf16
    refuses 2 "'--speed'" "--help" -- --speed
    refuses 2 "'--rule'" -- --rule
    refuses 2 "'-r'" -- -rq
    refuses 2 "'best'" "mse" -- --rule best
    refuses 2 "'some'" "layernorm" -- --gamma some --rule qstream
    refuses 2 "--gamma goes with --rule qstream" -- --gamma layernorm
    refuses 2 "'0'" "--jobs" -- --jobs 0
    refuses 2 "'x'" "--jobs" -- --jobs x
    refuses 2 "'-1'" "--jobs" -- --jobs -1
    refuses 2 "'3/3'" "--part" -- --part 3/3
    refuses 2 "'1'" "--part" -- --part 1
    refuses 2 "'-1/2'" "--part" -- --part -1/2
    refuses 2 "exclude" -- --part 0/2 --finish
    refuses 2 "'lots'" "--memory" -- --memory lots
    refuses 2 "--memory is too small" "at least" -- --memory 1MiB
    refuses 2 "'0'" "--shard-size" -- --shard-size 0
    refuses 2 "'quantum'" "qstream version" -- --cpu quantum
    refuses 2 "two folders" -- one-too-many
    [[ ! -e $DST ]]
}

@test "given no command, one that does not exist, or a call for help, then the text and the exit code fit" {
    run "$QSTREAM"
    exits 2
    says "usage: qstream COMMAND"
    run "$QSTREAM" quantise
    exits 2
    says "'quantise'" "qstream help"
    run "$QSTREAM" --help
    exits 0
    says "quantize" "version"
    run "$QSTREAM" help quantize
    exits 0
    says "--recipe FILE"
    run "$QSTREAM" quantize --help
    exits 0
    says "--recipe FILE"
    run "$QSTREAM" help nothing
    exits 2
}

@test "given --finish before any part, then that is said" {
    fp8
    refuses 2 "--finish" "no parts" -- --finish
}

# --- recipes ---

recipe() { # JQ-FILTER on llama-mxfp4
    RECIPE=$BATS_TEST_TMPDIR/recipe.json
    jq "$1" "$ROOT/configs/llama-mxfp4.json" >"$RECIPE"
}

@test "given a recipe that is not there, is a folder, or is no JSON, then it is named" {
    bf16
    RECIPE=$BATS_TEST_TMPDIR/none.json refuses 3 "none.json" "No such file"
    RECIPE=no-such-name refuses 3 "'no-such-name' is neither a file nor a recipe that comes with qstream"
    RECIPE=$BATS_TEST_TMPDIR refuses 3 "$BATS_TEST_TMPDIR" "not a regular file"
    echo '{"schema": ' >"$BATS_TEST_TMPDIR/bad.json"
    RECIPE=$BATS_TEST_TMPDIR/bad.json refuses 3 "bad.json" "not valid JSON" "line"
    head -c 2000000 /dev/zero | tr '\0' ' ' >"$BATS_TEST_TMPDIR/big.json"
    RECIPE=$BATS_TEST_TMPDIR/big.json refuses 3 "big.json" "2000000"
    head -c 100000 /dev/zero | tr '\0' '[' >"$BATS_TEST_TMPDIR/deep.json"
    RECIPE=$BATS_TEST_TMPDIR/deep.json refuses 3 "deep.json" "not valid JSON"
    [[ $QSTREAM == "$ROOT/build/qstream" ]] || return 0 # found beside the program
    RECIPE=no-such-name refuses 3 "there are: llama-mxfp4, mistral-medium-3.5-mxfp4, qwen3-moe-mxfp4"
    [[ ${lines[0]} == *qwen3-moe-mxfp4 ]] # and no other file of the folder
}

@test "given a recipe with unknown keys, formats or another schema, then each is named" {
    bf16
    recipe '.colour = "red"'
    refuses 3 "recipe.json" "'colour'"
    recipe '.rules[2].foramt = "mxfp4"'
    refuses 3 "rule 3" "'foramt'"
    recipe '.rules[2].format = "int4"'
    refuses 3 "rule 3" "'int4'" "mxfp4"
    recipe '.rules[2].strategy = "tensor"'
    refuses 3 "rule 3" "strategy"
    recipe '.rules[0].optional = "yes"'
    refuses 3 "rule 1" "optional"
    recipe 'del(.rules[1].match)'
    refuses 3 "rule 2" "match"
    recipe '.schema = "qstream.recipe/9"'
    refuses 3 "schema" "qstream.recipe/1"
    recipe 'del(.rules)'
    refuses 3 "rules"
    recipe '.rules = "all"'
    refuses 3 "rules"
    recipe '.rules = [1]'
    refuses 3 "rule 1"
    echo '[]' >"$RECIPE"
    refuses 3 "recipe.json"
}

@test "given a rule that matches nothing, then it is named, and that it may be marked optional" {
    bf16
    recipe '.rules += [{"match": "re:.*shared_expert.*", "format": "mxfp4"}]'
    refuses 3 "shared_expert" "rule 5" "optional"
    recipe '.rules += [{"match": "re:.*shared_expert.*", "format": "mxfp4", "optional": true}]'
    quantize --quiet
}

@test "given a bad regular expression, then it is named with the place" {
    bf16
    recipe '.rules[0].match = "re:.*(unclosed"'
    refuses 3 "rule 1" "(unclosed" "regular expression"
}

@test "given a regular expression that would take forever, then it is refused within seconds" {
    bf16
    recipe '.rules = [{"match": "re:([a-z._0-9]+)+[#!]", "format": "keep", "optional": true}] + .rules'
    run timeout 20 "$QSTREAM" quantize "$SRC" "$DST" --recipe "$RECIPE"
    exits 3
    says "([a-z._0-9]+)+[#!]"
    not_published
}

@test "given a recipe that keeps an FP8 weight, or matches it with nothing, then the format fp8 is recommended" {
    fp8
    recipe '.rules[2].format = "keep"'
    refuses 3 "model.layers.0.mlp" "format fp8"
    recipe 'del(.rules[2])'
    refuses 3 "model.layers.0.mlp" "format fp8"
}

@test "given a rule for something that is no matrix, then tensor, dtype, shape and pattern are named" {
    bf16
    recipe '.rules = [{"match": "re:.*norm$", "format": "mxfp4"}] + .rules'
    refuses 3 "norm.weight" "BF16" "[64]" "re:.*norm$"
}

@test "given a width that 32 does not divide, then the weight is named" {
    own_source --layout bf16 --arch llama --hidden 64 --mlp 80 --layers 1 --heads 2 --kv-heads 1 --head-dim 32 --vocab 64
    refuses 3 "model.layers.0.mlp.down_proj" "80" "32"
}

# --- folders ---

@test "given a SRC that is not there, a file, or an empty folder, then it is named" {
    SRC=$BATS_TEST_TMPDIR/nowhere refuses 3 "nowhere" "No such file"
    touch "$BATS_TEST_TMPDIR/file"
    SRC=$BATS_TEST_TMPDIR/file refuses 3 "file" "not a folder"
    mkdir "$BATS_TEST_TMPDIR/empty"
    SRC=$BATS_TEST_TMPDIR/empty refuses 3 "empty/config.json" "No such file"
    echo '{}' >"$BATS_TEST_TMPDIR/empty/config.json"
    SRC=$BATS_TEST_TMPDIR/empty refuses 3 "empty" "safetensors"
}

@test "given a DST that holds something else, or is a file, then it is left alone" {
    bf16
    mkdir "$DST"
    echo precious >"$DST/thesis.txt"
    refuses 2 "$DST" "not empty"
    [[ $(ls -A "$DST") == thesis.txt ]]
    DST=$BATS_TEST_TMPDIR/file
    echo precious >"$DST"
    refuses 2 "$DST"
    [[ $(cat "$DST") == precious ]]
}

@test "given DST and SRC that are the same or inside each other, however spelt, then that is refused and SRC is untouched" {
    bf16
    local before
    before=$(ls -AR "$SRC")
    overlaps() { # FOLDER SRC DST
        run env -C "$1" "$QSTREAM" quantize "$2" "$3" --recipe llama-mxfp4
        exits 2 || { echo "SRC=$2 DST=$3 in $1"; return 1; }
        says "separate"
        [[ $(ls -AR "$SRC") == "$before" ]]
    }
    overlaps / "$SRC" "$SRC"
    overlaps / "$SRC" "$SRC/"
    overlaps / "$SRC" "$SRC/out"
    overlaps / "$SRC" "$SRC/out/deeper"
    overlaps / "$SRC/" "$SRC/../source/./out"
    overlaps / "$SRC" "$BATS_TEST_TMPDIR"
    ln -s "$SRC" "$BATS_TEST_TMPDIR/link"
    overlaps / "$SRC" "$BATS_TEST_TMPDIR/link/out"
    overlaps "$SRC" . ./out
    overlaps "$SRC" . .
    overlaps "$SRC" . out
    overlaps "$SRC" . out/
    overlaps "$SRC" . new/deeper
}

@test "given a DST beside SRC whose name begins with SRC's, then that is fine" {
    bf16
    DST=$SRC-quantized
    quantize --quiet
}

@test "given a finished DST made with another rule, recipe or source, then it is refused and stays as it is" {
    bf16
    quantize --quiet --rule mse
    cp -r "$DST" "$BATS_TEST_TMPDIR/before"
    made_otherwise() {
        run quantize "$@"
        exits 2
        says "$DST" "made otherwise"
        same_folders "$BATS_TEST_TMPDIR/before" "$DST"
    }
    made_otherwise --rule amax
    made_otherwise --shard-size 100KB
    made_otherwise --hash-source
    recipe '.name = "other"'
    made_otherwise
    RECIPE=llama-mxfp4
    touch "$SRC/model.safetensors"
    made_otherwise
}

# An unfinished DST: killed when everything is written, before it is published.
interrupted_run() {
    local count=$BATS_TEST_TMPDIR/count
    rm -rf "$DST"
    with_shim SHIM_COUNT="$count" -- quantize --quiet "$@"
    rm -rf "$DST"
    local kill=$(($(sed -n 's/^operations //p' "$count") - 30))
    run with_shim SHIM_KILL=$kill -- quantize --quiet "$@"
    exits 137
    not_published
    [[ -e $DST/.qstream/journal ]]
}

@test "given an unfinished DST of another rule, recipe or source, then it says which; the right command still ends it" {
    own_source --layout bf16 --shards 4 "${TINY[@]}"
    for name in a b c d e f g h i j; do echo $name >"$SRC/$name.txt"; done
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    interrupted_run
    recipe '.name = "other"'
    refuses 2 "another recipe" "remove"
    RECIPE=llama-mxfp4
    refuses 2 "--rule" -- --rule amax
    refuses 2 "--shard-size" -- --shard-size 10KB
    refuses 2 "--hash-source" -- --hash-source
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"

    interrupted_run
    touch "$SRC/model-00001-of-00004.safetensors"
    refuses 3 "source" "remove"
}

@test "given another qstream at work on DST, then the second is refused, and the first ends well" {
    three_shards
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    with_shim SHIM_HOLD=10:"$BATS_TEST_TMPDIR/go" -- quantize --quiet 3>&- &
    local first=$!
    for ((i = 0; i < 500; i++)); do
        [[ -e $BATS_TEST_TMPDIR/go.held ]] && break
        sleep 0.02
    done
    refuses 2 "another qstream" "$DST"
    refuses 2 "another qstream" "$DST" -- --part 0/2
    refuses 2 "another qstream" "$DST" -- --finish
    touch "$BATS_TEST_TMPDIR/go"
    wait $first
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given another qstream at work on the same part, then the second is refused; another part is not" {
    three_shards
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    with_shim SHIM_HOLD=7:"$BATS_TEST_TMPDIR/go" -- quantize --quiet --part 0/2 3>&- &
    local first=$!
    for ((i = 0; i < 500; i++)); do
        [[ -e $BATS_TEST_TMPDIR/go.held ]] && break
        sleep 0.02
    done
    refuses 2 "another qstream" -- --part 0/2
    refuses 2 "another qstream" -- --finish
    quantize --quiet --part 1/2
    touch "$BATS_TEST_TMPDIR/go"
    wait $first
    quantize --quiet --finish
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

# --- shards ---

@test "given a shard that the index names and that is missing, then it is named" {
    three_shards
    rm "$SRC/model-00002-of-00003.safetensors"
    refuses 3 "model-00002-of-00003.safetensors" "missing" "download"
}

@test "given an index that places a tensor where it is not, or forgets one, then tensor and shard are named" {
    three_shards
    local index=$SRC/model.safetensors.index.json
    cp "$index" "$BATS_TEST_TMPDIR/index"
    jq '.weight_map["model.layers.7.extra"] = "model-00002-of-00003.safetensors"' "$BATS_TEST_TMPDIR/index" >"$index"
    refuses 3 "model.layers.7.extra" "model-00002-of-00003.safetensors"
    jq '.weight_map["lm_head.weight"] = "model-00001-of-00003.safetensors"' "$BATS_TEST_TMPDIR/index" >"$index"
    refuses 3 "lm_head.weight" "model-0000"
    jq 'del(.weight_map["lm_head.weight"])' "$BATS_TEST_TMPDIR/index" >"$index"
    refuses 3 "lm_head.weight" "index"
    jq '.weight_map["lm_head.weight"] = 3' "$BATS_TEST_TMPDIR/index" >"$index"
    refuses 3 "lm_head.weight" "not a string"
    echo '{"weight_map": {}}' >"$index"
    refuses 3 "model.safetensors.index.json" "weight_map"
    echo 'garbage' >"$index"
    refuses 3 "model.safetensors.index.json" "not valid JSON"
}

@test "given an index that names a shard outside of the folder, then it is refused and nothing is read there" {
    three_shards
    local index=$SRC/model.safetensors.index.json name
    cp "$index" "$BATS_TEST_TMPDIR/index"
    cp "$SRC/model-00001-of-00003.safetensors" "$BATS_TEST_TMPDIR/outside.safetensors"
    for name in ../outside.safetensors "$BATS_TEST_TMPDIR/outside.safetensors" .hidden.safetensors sub/x.safetensors \
        config.json ""; do
        jq --arg name "$name" '.weight_map["lm_head.weight"] = $name' "$BATS_TEST_TMPDIR/index" >"$index"
        refuses 3 "'$name'" "model.safetensors.index.json"
    done
}

@test "given a truncated shard, cut anywhere, then it is named" {
    fp8
    cp "$SRC/model.safetensors" "$BATS_TEST_TMPDIR/whole"
    local size cut
    size=$(stat -c %s "$BATS_TEST_TMPDIR/whole")
    for cut in 0 1 7 8 9 100 $((size / 2)) $((size - 1)); do
        head -c $cut "$BATS_TEST_TMPDIR/whole" >"$SRC/model.safetensors"
        refuses 3 "$SRC/model.safetensors"
    done
    says "truncated" "download"
    { cat "$BATS_TEST_TMPDIR/whole"; echo more; } >"$SRC/model.safetensors"
    refuses 3 "$SRC/model.safetensors" "bytes"
}

@test "given a shard that is a folder, then it is named" {
    fp8
    rm "$SRC/model.safetensors"
    mkdir "$SRC/model.safetensors"
    refuses 3 "model.safetensors" "not a regular file"
}

@test "given a shard that is a FIFO, then that does not hang" {
    fp8
    rm "$SRC/model.safetensors"
    mkfifo "$SRC/model.safetensors"
    run timeout 10 "$QSTREAM" quantize "$SRC" "$DST" --recipe llama-mxfp4
    exits 3
    says "model.safetensors" "not a regular file"
}

header() { # PYTHON: from `h`, the parsed header
    edit_source "import json
def change(text):
    h = json.loads(text)
    first, second = [n for n in h if n != '__metadata__'][:2]
    $1
    return json.dumps(h)
raw(change)"
}

@test "given overlapping tensors, a hole, or offsets that do not fit, then file and tensor are named" {
    fp8
    header 'h[second] = dict(h[first])'
    refuses 3 "$SRC/model.safetensors" "overlap"
    fp8
    header 'del h[first]'
    refuses 3 "$SRC/model.safetensors" "hole"
    fp8
    header 'h[first]["data_offsets"] = h[first]["data_offsets"][::-1]'
    refuses 3 "$SRC/model.safetensors" "data_offsets"
    fp8
    header 'h[first]["data_offsets"] = [0, 2**62]'
    refuses 3 "$SRC/model.safetensors" "data_offsets"
    fp8
    header 'h[first]["data_offsets"] = [-8, 0]'
    refuses 3 "$SRC/model.safetensors" "data_offsets"
    fp8
    header 'h[first]["shape"] = [2**40, 2**40]'
    refuses 3 "$SRC/model.safetensors" "has no size"
    fp8
    header 'h[first]["shape"] = [3]'
    refuses 3 "$SRC/model.safetensors" "by its shape"
    fp8
    header 'h[first]["shape"] = [1] * 1000'
    refuses 3 "$SRC/model.safetensors" "dimensions"
    fp8
    header 'h[first]["shape"] = ["1"]'
    refuses 3 "$SRC/model.safetensors" "shape"
}

@test "given a header that is no JSON, no object, too long, nested deeply or empty, then the file is named" {
    fp8
    edit_source 'raw(lambda text: text[:-5] + "}}}}}")'
    refuses 3 "$SRC/model.safetensors" "not valid JSON"
    fp8
    edit_source 'raw(lambda text: "[" + text[1:])'
    refuses 3 "$SRC/model.safetensors" "'{'"
    fp8
    edit_source 'raw(lambda text: "{" * 100000)'
    refuses 3 "$SRC/model.safetensors" "not valid JSON"
    fp8
    edit_source 'raw(lambda text: "{\"a\":" + "[" * 100000)'
    refuses 3 "$SRC/model.safetensors" "not valid JSON"
    fp8
    edit_source 'raw(lambda text: "")'
    refuses 3 "$SRC/model.safetensors"
    local length
    for length in 'b"\xff" * 8' '(100_000_001).to_bytes(8, "little")' '(2**63).to_bytes(8, "little")' \
        '(99_000_000).to_bytes(8, "little")'; do
        fp8
        edit_source "raw(change_file=lambda bytes: $length + bytes[8:])"
        refuses 3 "$SRC/model.safetensors" "header"
    done
}

@test "given an unknown dtype, or an entry that is none, then file and tensor are named" {
    fp8
    header 'h["lm_head.weight"]["dtype"] = "INT2"'
    refuses 3 "$SRC/model.safetensors" "lm_head.weight" "INT2"
    fp8
    header 'h["lm_head.weight"] = 7'
    refuses 3 "$SRC/model.safetensors" "lm_head.weight"
    fp8
    header 'h["__metadata__"] = {"format": 3}'
    refuses 3 "$SRC/model.safetensors" "__metadata__"
}

@test "given a name that occurs twice, in a header or in two shards, then it is refused" {
    fp8
    edit_source 'raw(lambda text: text.replace("input_layernorm", "post_attention_layernorm"))'
    refuses 3 "$SRC/model.safetensors" "duplicate"
    fp8
    cp "$SRC/model.safetensors" "$SRC/model-a.safetensors"
    mv "$SRC/model.safetensors" "$SRC/model-b.safetensors"
    refuses 3 "exists twice" "model-a.safetensors" "model-b.safetensors"
}

@test "given names with control characters, then no escape sequence reaches the terminal" {
    fp8
    edit_source 'tensors["evil\x1b[31m\x9b\x07.weight_scale"] = ["F32", [1], f32(1)]'
    run quantize --quiet
    exits 3
    says '\x1b[31m'
    [[ $output != *$'\x1b'* && $output != *$'\x07'* && $output != *$'\xc2\x9b'* ]]
    not_published
    three_shards
    jq '.weight_map["lm_head.weight"] = "\u001b[2Jx.safetensors"' "$SRC/model.safetensors.index.json" >"$BATS_TEST_TMPDIR/index"
    cp "$BATS_TEST_TMPDIR/index" "$SRC/model.safetensors.index.json"
    refuses 3 '\x1b[2Jx.safetensors'
    [[ $output != *$'\x1b'* ]]
    fp8
    touch "$SRC/consolidated"$'\x1b[31m'
    run quantize
    exits 0
    says 'consolidated\x1b[31m'
    [[ $output != *$'\x1b'* ]]
}

# --- scales and config.json ---

@test "given an FP8 weight without its scale, then both are named" {
    fp8
    edit_source "del tensors['$UP.weight_scale_inv']"
    refuses 3 "$UP.weight" "no scale" "weight_scale_inv"
}

@test "given a scale without its weight, then it is named" {
    fp8
    edit_source "tensors['model.layers.9.mlp.up_proj.weight_scale_inv'] = ['F32', [], f32(1)]"
    refuses 3 "model.layers.9.mlp.up_proj.weight_scale_inv" "no FP8 weight"
    fp8
    edit_source "tensors['model.layers.9.mlp.up_proj.activation_scale'] = ['F32', [], f32(1)]"
    refuses 3 "model.layers.9.mlp.up_proj.activation_scale" "no FP8 weight"
}

@test "given a weight with two scales, then both are named" {
    fp8
    edit_source "tensors['$UP.weight_scale'] = ['F32', [], f32(1)]"
    refuses 3 "$UP.weight" "two scales" "weight_scale_inv"
}

@test "given config.json and tensors that contradict each other, then it says what each says" {
    fp8
    edit_source 'config["quantization_config"]["weight_block_size"] = [128, 128]'
    refuses 3 "config.json" "[128, 128]" "weight_scale_inv" "[]"
    own_source --layout fp8-block "${TINY[@]}" --mlp 256
    edit_source 'config["quantization_config"]["weight_block_size"] = None'
    refuses 3 "config.json" "without weight_block_size" "weight_scale_inv" "[1, 2]"
    own_source --layout fp8-block "${TINY[@]}" --mlp 256
    edit_source 'config["quantization_config"]["weight_block_size"] = [64, 64]'
    refuses 3 "config.json" "[64, 64]" "weight_scale_inv"
    own_source --layout fp8-block "${TINY[@]}"
    edit_source 'config["quantization_config"]["weight_block_size"] = "128x128"'
    refuses 3 "config.json" "weight_block_size"
    fp8
    edit_source 'del config["quantization_config"]'
    refuses 3 "config.json" "no quantization_config" "F8_E4M3" ".weight"
    fp8
    edit_source 'config["quantization_config"] = None'
    refuses 3 "config.json" "no quantization_config"
    fp8
    edit_source 'config["quantization_config"] = [1]'
    refuses 3 "config.json" "quantization_config"
    bf16
    edit_source 'config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static"}'
    refuses 3 "config.json" "no tensor is F8_E4M3"
    fp8
    edit_source "del tensors['$UP.activation_scale']"
    refuses 3 "static" "$UP.weight" "activation_scale"
    fp8
    edit_source 'config["quantization_config"]["activation_scheme"] = "dynamic"'
    refuses 3 "dynamic" "activation_scale"
    fp8
    edit_source 'config["quantization_config"]["modules_to_not_convert"].append("model.layers.0.mlp")'
    refuses 3 "'model.layers.0.mlp'" "is FP8"
    own_source --layout ct-channel "${TINY[@]}"
    edit_source 'config["quantization_config"]["config_groups"]["group_0"]["weights"]["strategy"] = "tensor"'
    refuses 3 "config.json" "weight_scale" "1]"
    own_source --layout mxfp8 "${TINY[@]}"
    edit_source "tensors['$UP.weight_scale_inv'][1].reverse()"
    refuses 3 "config.json" "$UP.weight_scale_inv"
}

@test "given a scale of the wrong dtype or more than one activation scale, then it is named" {
    fp8
    edit_source "tensors['$UP.weight_scale_inv'] = ['I32', [], b'\0\0\0\0']"
    refuses 3 "$UP.weight_scale_inv" "I32"
    fp8
    edit_source "tensors['$UP.activation_scale'] = ['F32', [2], f32(1, 2)]"
    refuses 3 "$UP.activation_scale"
}

@test "given a quantization that cannot be read, or MXFP4 already, then its name is said" {
    bf16
    edit_source 'config["quantization_config"] = {"quant_method": "gptq", "bits": 4}'
    refuses 3 "config.json" "'gptq'" "BF16"
    edit_source 'config["quantization_config"] = {"quant_method": "mxfp4"}'
    refuses 3 "config.json" "'mxfp4'"
    edit_source 'config["quantization_config"] = {"bits": 4}'
    refuses 3 "config.json" "quant_method"
    bf16
    quantize --quiet
    SRC=$DST DST=$BATS_TEST_TMPDIR/again
    refuses 3 "config.json" "already quantized" "source"
}

@test "given a config.json that is missing, empty, no JSON, no object, or nested 5000 deep, then it is named" {
    bf16
    rm "$SRC/config.json"
    refuses 3 "$SRC/config.json" "No such file"
    : >"$SRC/config.json"
    refuses 3 "$SRC/config.json" "not valid JSON"
    echo 'model: mistral' >"$SRC/config.json"
    refuses 3 "$SRC/config.json" "not valid JSON"
    echo '[]' >"$SRC/config.json"
    refuses 3 "$SRC/config.json" "not valid JSON"
    echo '{"a": 1} {"b": 2}' >"$SRC/config.json"
    refuses 3 "$SRC/config.json" "not valid JSON" "line 1"
    for bracket in '[' '{"a":'; do
        { echo -n '{"a": '; for ((i = 0; i < 5000; i++)); do echo -n "$bracket"; done; } >"$SRC/config.json"
        refuses 3 "$SRC/config.json" "nested too deeply"
    done
    rm "$SRC/config.json"
    mkdir "$SRC/config.json"
    refuses 3 "$SRC/config.json" "not a regular file"
}

@test "given a config.json with integers beyond 64 bits, then it is used, and they stay as they are" {
    bf16
    edit_source 'config["huge"] = 123456789012345678901234567890; config["tiny"] = 1e-5'
    sed -i 's/1e-05,/0.0000100,/' "$SRC/config.json"
    quantize --quiet
    grep -q '"huge": 123456789012345678901234567890' "$DST/config.json"
    grep -q '0.0000100' "$DST/config.json"
    "$PYTHON" -c 'import json, sys; assert json.load(open(sys.argv[1]))["quantization_config"]["quantization_status"] == "compressed"' \
        "$DST/config.json"
}

# --- values ---

@test "given a NaN or an infinity in a weight, then tensor, row and column are named, by each rule" {
    local rule code word
    for word in "NaN 0x7fc1" "NaN 0xffff" "infinite 0x7f80" "infinite 0xff80"; do
        bf16
        code=${word#* }
        edit_source "t = tensors['$UP.weight']; at = 2 * (5 * t[1][1] + 37); t[2] = t[2][:at] + bf16($code) + t[2][at + 2:]"
        for rule in amax qstream mse; do
            rm -rf "$DST"
            refuses 3 "$UP.weight" "${word% *}" "row 5" "column 37" -- --rule $rule
        done
        bf16
        rm -rf "$DST"
        edit_source "t = tensors['$Q.weight']; at = 2 * (5 * t[1][1] + 37); t[2] = t[2][:at] + bf16($code) + t[2][at + 2:]"
        refuses 3 "$Q.weight" "${word% *}" "row 5" "column 37"
    done
    rm -rf "$DST"
    fp8
    edit_source "t = tensors['$UP.weight']; at = 3 * t[1][1] + 63; t[2] = t[2][:at] + u8(255) + t[2][at + 1:]"
    refuses 3 "$UP.weight" "NaN" "row 3" "column 63" "$UP.weight_scale_inv"
}

@test "given a scale that is NaN, infinite or negative, then it is named" {
    local value module
    for module in $UP $Q; do
        for value in nan inf -1; do
            rm -rf "$DST"
            fp8
            edit_source "tensors['$module.weight_scale_inv'][2] = f32(float('$value'))"
            refuses 3 "$module.weight_scale_inv"
        done
    done
    rm -rf "$DST"
    fp8
    edit_source "tensors['$Q.activation_scale'][2] = f32(float('nan'))"
    refuses 3 "$Q.activation_scale" "nan"
    rm -rf "$DST"
    own_source --layout fp8-block "${TINY[@]}"
    edit_source "tensors['$UP.weight_scale_inv'][2] = f32(float('nan'))"
    refuses 3 "$UP.weight" "NaN" "$UP.weight_scale_inv"
}

@test "given a NaN that was mended in the source, then a new run from an emptied DST is right" {
    bf16
    cp -r "$SRC" "$BATS_TEST_TMPDIR/good"
    edit_source "t = tensors['$UP.weight']; t[2] = bf16(0x7fc0) + t[2][2:]"
    refuses 3 "$UP.weight"
    SRC=$BATS_TEST_TMPDIR/good
    rm -r "$DST"
    quantize --quiet
    output_is_right --rule mse
}

# --- the machine ---

@test "given too small a disk, then the need and the room are said before anything is written, and with room it ends well" {
    [[ $EUID -eq 0 ]] || skip "mounting a small file system needs root"
    bf16
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    mkdir "$BATS_TEST_TMPDIR/disk"
    mount -t tmpfs -o size=40k none "$BATS_TEST_TMPDIR/disk" || skip "cannot mount a tmpfs"
    DST=$BATS_TEST_TMPDIR/disk/out
    refuses 4 "$DST" "needs" "free"
    mount -o remount,size=10m "$BATS_TEST_TMPDIR/disk"
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given room for one of two parts only, then the second says what it needs, though the first's shards lie there" {
    [[ $EUID -eq 0 ]] || skip "mounting a small file system needs root"
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 2 --layers 2 --vocab 256)
    quantize --quiet --part 0/2
    local size
    size=$(folder_bytes "$DST")
    mkdir "$BATS_TEST_TMPDIR/disk"
    mount -t tmpfs -o size=$((size / 1024 + 200))k none "$BATS_TEST_TMPDIR/disk" || skip "cannot mount a tmpfs"
    DST=$BATS_TEST_TMPDIR/disk/out
    quantize --quiet --part 0/2
    refuses 4 "$DST" "needs" "free" -- --part 1/2
    mount -o remount,size=10m "$BATS_TEST_TMPDIR/disk"
    quantize --quiet --part 1/2
    quantize --quiet --finish
    output_is_right --rule mse
}

@test "given a disk that others fill during the run, then it stops with 4, and when there is room again it ends well" {
    [[ $EUID -eq 0 ]] || skip "mounting a small file system needs root"
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 3 --layers 2 --vocab 256)
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    mkdir "$BATS_TEST_TMPDIR/disk"
    mount -t tmpfs -o size=4m none "$BATS_TEST_TMPDIR/disk" || skip "cannot mount a tmpfs"
    DST=$BATS_TEST_TMPDIR/disk/out
    (run with_shim SHIM_HOLD=15:"$BATS_TEST_TMPDIR/go" -- quantize --quiet
        echo "$status $output" >"$BATS_TEST_TMPDIR/result") 3>&- &
    local first=$!
    for ((i = 0; i < 500; i++)); do
        [[ -e $BATS_TEST_TMPDIR/go.held ]] && break
        sleep 0.02
    done
    head -c 4100000 /dev/zero >"$BATS_TEST_TMPDIR/disk/others" 2>/dev/null || true
    touch "$BATS_TEST_TMPDIR/go"
    wait $first
    grep -q '^4 qstream: .*No space left' "$BATS_TEST_TMPDIR/result" || { cat "$BATS_TEST_TMPDIR/result"; false; }
    not_published
    rm "$BATS_TEST_TMPDIR/disk/others"
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given a disk with room for one output only, when a run fails after its shards were named, then it can go on" {
    [[ $EUID -eq 0 ]] || skip "mounting a small file system needs root"
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 3 --layers 2 --vocab 256)
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    local size
    size=$(folder_bytes "$BATS_TEST_TMPDIR/reference")
    mkdir "$BATS_TEST_TMPDIR/disk"
    mount -t tmpfs -o size=$((size / 1024 + 200))k none "$BATS_TEST_TMPDIR/disk" || skip "cannot mount a tmpfs"
    DST=$BATS_TEST_TMPDIR/disk/out
    run with_shim SHIM_FAIL=rename:5:EIO -- quantize --quiet # the first is of generation_config.json
    exits 4
    [[ -e $DST/model-00003-of-00003.safetensors ]]
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given a limit on the size of files, then it is an error like any other and no crash" {
    bf16
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    run bash -c "ulimit -f 20
        '$QSTREAM' quantize '$SRC' '$DST' --recipe llama-mxfp4 --quiet"
    exits 4
    says "qstream: " "File too large"
    not_published
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given a source that cannot be read at some place, then it is named, and when it can be, the run ends well" {
    three_shards
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    local total k
    with_shim SHIM_COUNT="$BATS_TEST_TMPDIR/count" -- quantize --quiet
    total=$(sed -n 's/^pread //p' "$BATS_TEST_TMPDIR/count")
    for ((k = 3; k <= total; k += 7)); do
        rm -rf "$DST"
        run with_shim SHIM_FAIL=pread:$k:EIO -- quantize --quiet
        exits 4
        says "qstream: " "Input/output error"
        not_published
    done
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given a source that changes during the run, then the shard is named, and going on with the old work is refused" {
    three_shards
    run with_shim SHIM_TOUCH=20:"$SRC/model-00003-of-00003.safetensors" -- quantize --quiet
    exits 3
    says "model-00003-of-00003.safetensors" "changed"
    not_published
    refuses 3 "source" "remove"
    rm -r "$DST"
    quantize --quiet
    output_is_right --rule mse --mse-sample 20
}

@test "given another file that changes during the run, then it is published with its new bytes or the run is refused" {
    three_shards
    echo old >"$SRC/tokenizer.json"
    (with_shim SHIM_HOLD=20:"$BATS_TEST_TMPDIR/go" -- quantize --quiet 3>&- || true) &
    local first=$!
    for ((i = 0; i < 500; i++)); do
        [[ -e $BATS_TEST_TMPDIR/go.held ]] && break
        sleep 0.02
    done
    echo newer >"$SRC/tokenizer.json"
    touch "$BATS_TEST_TMPDIR/go"
    wait $first
    [[ -e $DST/config.json ]] || quantize --quiet
    cmp "$SRC/tokenizer.json" "$DST/tokenizer.json"
    jq -r '.files[] | "\(.sha256)  \(.name)"' "$DST/qstream.json" | (cd "$DST" && sha256sum --quiet --strict -c -)
}

@test "given a standard output that is full or closed, then the exit code says so, and the folder is right" {
    fp8
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    run bash -c "'$QSTREAM' quantize '$SRC' '$DST' --recipe llama-mxfp4 >/dev/full"
    exits 4
    says "standard output"
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
    rm -r "$DST"
    run bash -c "'$QSTREAM' quantize '$SRC' '$DST' --recipe llama-mxfp4 >&-"
    exits 4
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
    run bash -c "'$QSTREAM' quantize '$SRC' '$DST.dry' --recipe llama-mxfp4 --json --dry-run >/dev/full"
    exits 4
}

@test "given closed standard input, output and error, then messages go into no file of the output" {
    local shards
    for shards in 1 3; do
        own_source --layout fp8-tensor --shards $shards "${TINY[@]}"
        touch "$SRC/params.json" # worth a note on stderr
        rm -rf "$DST" "$BATS_TEST_TMPDIR/reference"
        DST=$BATS_TEST_TMPDIR/reference quantize --quiet
        run bash -c "'$QSTREAM' quantize '$SRC' '$DST' --recipe llama-mxfp4 <&- >&- 2>&-"
        same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
        rm -r "$DST"
        # the fast clock makes it tell its progress
        run bash -c "exec <&- >&- 2>&-
            SHIM_OUTPUT='$DST' SHIM_TERM=25 SHIM_HASTE=1 SHIM_SLOW=5000 LD_PRELOAD='$SHIM' \
                '$QSTREAM' quantize '$SRC' '$DST' --recipe llama-mxfp4"
        exits 130
        not_published
        quantize --quiet # the journal was not overwritten by the message
        same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
    done
}

@test "given a folder that may not be written to, then it is named" {
    bf16
    DST=/proc/nothing refuses 4 "/proc/nothing"
    DST=/dev/null/out
    run quantize --quiet
    [[ $status -eq 2 || $status -eq 4 ]]
    says "/dev/null"
}

@test "given a damaged journal, then it is named with what to do, and the work is not trusted" {
    three_shards
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    for name in a b c d e f g h i j; do echo $name >"$SRC/$name.txt"; done
    rm -r "$BATS_TEST_TMPDIR/reference"
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    interrupted_run
    cp -r "$DST" "$BATS_TEST_TMPDIR/unfinished"
    printf 'X' | dd of="$DST/.qstream/journal" bs=1 seek=0 conv=notrunc status=none
    refuses 3 "journal" "remove"
    # a flipped bit in a record: that record and those behind it do not count
    local size at
    size=$(stat -c %s "$BATS_TEST_TMPDIR/unfinished/.qstream/journal")
    for ((at = 112; at < size; at += 31)); do
        rm -rf "$DST"
        cp -r "$BATS_TEST_TMPDIR/unfinished" "$DST"
        printf '\xa5' | dd of="$DST/.qstream/journal" bs=1 seek=$at conv=notrunc status=none
        quantize --quiet
        same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
    done
}

@test "given an unfinished DST whose shard was deleted or cut, then it is named with what to do" {
    three_shards
    for name in a b c d e f g h i j; do echo $name >"$SRC/$name.txt"; done
    interrupted_run
    local shard
    shard=$(ls "$DST"/*.safetensors* | head -1)
    truncate -s -1 "$shard"
    refuses 3 "$(basename "${shard%.partial}")" "remove"
    rm "$shard"
    refuses 3 "$(basename "${shard%.partial}")" "remove"
}
