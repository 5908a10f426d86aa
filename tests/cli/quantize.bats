#!/usr/bin/env bats
# What a user gets who has a good checkpoint.

load helper

setup_file() { prepare; }
setup() { fresh; }

SMALL=(--layers 1 --vocab 256)

# given LAYOUT-OPTIONS..., each rule's output is right in every tensor, byte and pattern.
every_rule_is_right() {
    local rule
    SRC=$(source_checkpoint "$@")
    for rule in amax qstream mse; do
        rm -rf "$DST"
        quantize --rule "$rule" --quiet
        output_is_right --rule "$rule" --mse-sample 100
    done
}

# --- layouts ---

@test "given BF16, when quantized by each rule, then the output is right" {
    RECIPE=mistral-medium-3.5-mxfp4
    every_rule_is_right --layout bf16 "${SMALL[@]}" --outliers --zeros
}

@test "given F16, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout bf16 --dtype f16 --arch llama "${SMALL[@]}" --zeros
}

@test "given F32, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout bf16 --dtype f32 --arch llama "${SMALL[@]}" --zeros
}

@test "given the reference model's layout, static FP8 per tensor, when quantized by each rule, then the output is right" {
    RECIPE=mistral-medium-3.5-mxfp4
    every_rule_is_right --layout fp8-tensor "${SMALL[@]}" --outliers --zeros
}

@test "given FP8 with BF16 scales of shape [1], when quantized by each rule, then the output is right" {
    RECIPE=mistral-medium-3.5-mxfp4
    every_rule_is_right --layout fp8-tensor --scale-dtype BF16 --scale-shape one "${SMALL[@]}"
}

@test "given FP8 with F32 scales of shape [1], when quantized, then it is the same as with scalars" {
    local one scalar
    one=$(source_checkpoint --layout fp8-tensor --scale-shape one --arch llama "${SMALL[@]}")
    scalar=$(source_checkpoint --layout fp8-tensor --scale-shape scalar --arch llama "${SMALL[@]}")
    SRC=$one DST=$BATS_TEST_TMPDIR/one quantize --quiet
    SRC=$scalar DST=$BATS_TEST_TMPDIR/scalar quantize --quiet
    same_weights "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/scalar"
}

@test "given scales in another shard than their weights, when quantized by each rule, then none is lost" {
    RECIPE=mistral-medium-3.5-mxfp4
    every_rule_is_right --layout fp8-tensor --shards 3 --split-scales "${SMALL[@]}"
}

@test "given FP8 in blocks of 128x128, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout fp8-block --arch llama "${SMALL[@]}"
}

@test "given FP8 in blocks and dimensions that 128 does not divide, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout fp8-block --arch llama --scale-dtype BF16 --hidden 160 --mlp 288 --heads 5 --kv-heads 1 \
        --head-dim 32 --layers 1 --vocab 64
}

@test "given MXFP8, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout mxfp8 --arch llama "${SMALL[@]}"
}

@test "given compressed-tensors with channel scales, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout ct-channel --arch llama "${SMALL[@]}"
}

@test "given compressed-tensors with tensor scales, when quantized by each rule, then the output is right" {
    every_rule_is_right --layout ct-tensor --arch llama "${SMALL[@]}"
}

# Changes a copy of a checkpoint in a way that must not matter to the weights.
means_the_same() { # PYTHON OPTIONS...
    local change=$1
    shift
    own_source "$@"
    rm -rf "$DST" "$BATS_TEST_TMPDIR/reference"
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet
    edit_source "$change"
    quantize --quiet
    same_weights "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given scales spelt otherwise, in their name, dtype or shape, then the output is the same" {
    local scales='for name in [n for n in tensors if n.endswith("weight_scale_inv") or n.endswith("weight_scale")]:'
    means_the_same "$scales tensors[name][0] = 'F8_E8M0'" --layout mxfp8 "${TINY[@]}"
    means_the_same "$scales tensors[name.replace('_inv', '')] = tensors.pop(name)" --layout mxfp8 "${TINY[@]}"
    means_the_same "$scales tensors[name.replace('_inv', '')] = tensors.pop(name)" --layout fp8-tensor "${TINY[@]}"
    means_the_same "$scales tensors[name][1] = [1, 1]" --layout ct-tensor "${TINY[@]}"
    means_the_same "$scales tensors[name][1] = []" --layout ct-tensor "${TINY[@]}"
    means_the_same "$scales tensors[name][1] = tensors[name][1][:1]" --layout ct-channel "${TINY[@]}"
    means_the_same 'config["quantization_config"]["ignored_layers"] = config["quantization_config"].pop("modules_to_not_convert")' \
        --layout fp8-block "${TINY[@]}"
}

@test "given a quantization_config inside of text_config, then it counts, and the output's stands at the top only" {
    RECIPE=mistral-medium-3.5-mxfp4
    own_source --layout fp8-tensor "${SMALL[@]}"
    quantize --quiet
    mv "$DST" "$BATS_TEST_TMPDIR/reference"
    edit_source 'config["text_config"]["quantization_config"] = config.pop("quantization_config")'
    quantize --quiet
    cmp "$BATS_TEST_TMPDIR/reference/model.safetensors" "$DST/model.safetensors"
    jq -e '(.text_config | has("quantization_config") | not) and .quantization_config.quant_method == "compressed-tensors"' \
        "$DST/config.json"
    diff <(jq -S .quantization_config "$BATS_TEST_TMPDIR/reference/config.json") <(jq -S .quantization_config "$DST/config.json")
}

@test "given tensors of other kinds, empty ones and scalars, then they are carried over as they are" {
    own_source --layout fp8-tensor "${TINY[@]}"
    edit_source "tensors['model.empty'] = ['BF16', [0, 64], b'']
tensors['model.another_empty'] = ['F32', [3, 0], b'']
tensors['model.step'] = ['I64', [], bytes(range(8))]
tensors['model.mask'] = ['BOOL', [3], u8(0, 1, 1)]
tensors['model.layers.0.self_attn.q_proj.bias'] = ['BF16', [64], bytes(128)]
tensors['model.rotary.inv_freq'] = ['F32', [4], f32(float('nan'), -0.0, float('inf'), 1e-45)]
tensors['model.deep'] = ['U8', [1, 1, 1, 1, 1, 1, 1, 2], u8(3, 4)]
tensors['model.ünï \"quoted\" \\\\ name'] = ['F64', [1], bytes(8)]"
    quantize --quiet
    output_is_right --rule mse --mse-sample 20
    "$PYTHON" - "$ROOT" "$SRC" "$DST" <<'PY'
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1] + "/tests/models")
from safetensors_files import checkpoint_tensors
source, made = (checkpoint_tensors(Path(folder)) for folder in sys.argv[2:])
odd = [name for name in source if "proj.weight" not in name and "scale" not in name]
assert len(odd) == 13, odd
for name in odd:
    a, b = source[name], made[name]
    assert (a.dtype, a.shape, a.array().tobytes()) == (b.dtype, b.shape, b.array().tobytes()), name
PY
}

# --- architectures ---

MOE=(--arch qwen3_moe --hidden 128 --mlp 96 --layers 1 --heads 2 --kv-heads 1 --vocab 64 --experts 3)

@test "given a mixture of experts, one tensor each, when quantized by each rule, then the output is right" {
    RECIPE=qwen3-moe-mxfp4
    every_rule_is_right --layout bf16 "${MOE[@]}"
}

@test "given a mixture of experts in FP8 blocks, when quantized by each rule, then the output is right" {
    RECIPE=qwen3-moe-mxfp4
    every_rule_is_right --layout fp8-block "${MOE[@]}"
}

# Splits the fused experts of a checkpoint into the tensors that the unfused layout has.
unfuse() { # FROM TO
    "$PYTHON" - "$1" "$2" <<'PY'
import json, shutil, struct, sys
from pathlib import Path
import numpy as np
source, target = map(Path, sys.argv[1:])
shutil.copytree(source, target)
content = (source / "model.safetensors").read_bytes()
(length,) = struct.unpack("<Q", content[:8])
header = json.loads(content[8 : 8 + length])
entries, data = {}, b""
hidden = json.loads((source / "config.json").read_text())["text_config"]["hidden_size"]
def add(name, array):
    global data
    body = np.ascontiguousarray(array).tobytes()
    entries[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(body)]}
    data += body
for name, entry in header.items():
    if name == "__metadata__":
        continue
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    array = np.frombuffer(content[begin:end], np.uint16).reshape(entry["shape"])
    parent, _, leaf = name.rpartition(".")
    if not parent.endswith(".experts"):
        add(name, array)
        continue
    for number, matrix in enumerate(array):
        out = matrix.shape[1] if leaf == "gate_up_proj" else matrix.shape[0]
        if (out if leaf == "down_proj" else matrix.shape[1]) != hidden:
            matrix = matrix.T  # stored [in, out]
        if leaf == "down_proj":
            add(f"{parent}.{number}.down_proj.weight", matrix)
            continue
        half = len(matrix) // 2
        add(f"{parent}.{number}.gate_proj.weight", matrix[:half])
        add(f"{parent}.{number}.up_proj.weight", matrix[half:])
text = json.dumps(entries).encode()
(target / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
PY
}

fused_is_the_same_as_unfused() { # FUSED
    local fused unfused=$BATS_TEST_TMPDIR/unfused rule
    RECIPE=qwen3-moe-mxfp4
    fused=$(source_checkpoint --layout bf16 --fused "$1" "${MOE[@]}")
    unfuse "$fused" "$unfused"
    for rule in amax qstream mse; do
        SRC=$fused DST=$BATS_TEST_TMPDIR/a-$rule quantize --rule $rule --quiet
        SRC=$unfused DST=$BATS_TEST_TMPDIR/b-$rule quantize --rule $rule --quiet
        cmp "$BATS_TEST_TMPDIR"/{a,b}-$rule/model.safetensors
        cmp "$BATS_TEST_TMPDIR"/{a,b}-$rule/config.json
    done
    SRC=$fused DST=$BATS_TEST_TMPDIR/a-mse output_is_right --rule mse --mse-sample 100
}

@test "given fused experts [E, 2I, H] (Qwen3.5), when quantized, then they become what single experts become" {
    fused_is_the_same_as_unfused qwen3_5
}

@test "given fused experts stored transposed (Qwen3-VL), when quantized, then they become what single experts become" {
    fused_is_the_same_as_unfused qwen3_vl
}

# --- what must not matter ---

reference() { # OPTIONS of quantize...: the same as DST must be, in $BATS_TEST_TMPDIR/reference
    DST=$BATS_TEST_TMPDIR/reference quantize --quiet --jobs 1 "$@"
}

@test "given 1, 2 or 7 workers, then the folders are the same to the byte" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 3 --hidden 512 --mlp 3008 --vocab 256)
    reference
    for jobs in 2 7; do
        rm -rf "$DST"
        quantize --quiet --jobs $jobs
        same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
    done
}

@test "given any instruction set of this machine, each rule and format, then the folders are the same to the byte" {
    local level rule layout levels
    levels=$("$QSTREAM" version | sed -n 's/.*variants: \(.*\))/\1/p')
    [[ $levels == portable* ]]
    for layout in "bf16" "bf16 --dtype f16" "bf16 --dtype f32" "fp8-tensor" "fp8-block" "ct-channel"; do
        # shellcheck disable=SC2086
        SRC=$(source_checkpoint --layout $layout --arch llama --hidden 160 --mlp 288 --heads 5 --kv-heads 1 --head-dim 32 \
            --vocab 64 --outliers --zeros)
        for rule in amax qstream mse; do
            rm -rf "$BATS_TEST_TMPDIR/reference"
            reference --rule $rule --cpu portable
            for level in $levels; do
                rm -rf "$DST"
                quantize --quiet --rule $rule --cpu "$level"
                same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
            done
        done
    done
}

@test "given --gamma, when the instruction set changes, then the folders are the same, and differ from those without" {
    local level gamma
    SRC=$(source_checkpoint --layout bf16 --arch llama "${SMALL[@]}")
    reference --rule qstream
    mv "$BATS_TEST_TMPDIR/reference" "$BATS_TEST_TMPDIR/plain"
    for gamma in layernorm original; do
        rm -rf "$BATS_TEST_TMPDIR/reference"
        reference --rule qstream --gamma $gamma --cpu portable
        not cmp -s "$BATS_TEST_TMPDIR"/{plain,reference}/model.safetensors
        for level in $("$QSTREAM" version | sed -n 's/.*variants: \(.*\))/\1/p'); do
            rm -rf "$DST"
            quantize --quiet --rule qstream --gamma $gamma --cpu "$level"
            same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
        done
        output_is_right --rule qstream --gamma $gamma
    done
}

@test "given parts run one by one, in any order or at once, when finished, then the folder is the same as from one run" {
    local parts i
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 5 --split-scales "${SMALL[@]}")
    reference
    for parts in 1 2 3 9; do # 9: some have nothing to do
        rm -rf "$DST"
        for ((i = parts - 1; i >= 0; i--)); do
            quantize --quiet --part $i/$parts
            not_published
        done
        quantize --quiet --finish
        same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
    done
    rm -rf "$DST"
    for i in 0 1 2 3; do
        quantize --quiet --part $i/4 3>&- &
    done
    wait
    quantize --quiet --finish
    same_folders "$BATS_TEST_TMPDIR/reference" "$DST"
}

@test "given a part that is missing, when finished, then that is said, and after it ran, --finish publishes" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 5 --split-scales "${SMALL[@]}")
    quantize --quiet --part 0/3
    quantize --quiet --part 2/3
    refuses 2 "not complete" "model-0000" -- --finish
    quantize --quiet --part 1/3
    quantize --quiet --finish
    output_is_right --rule mse --mse-sample 20
}

@test "given parts of one cut, when a part of another is run, or the whole, then that is refused" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 5 --split-scales "${SMALL[@]}")
    quantize --quiet --part 0/3
    refuses 2 "cut otherwise" -- --part 0/2
    refuses 2 "cut otherwise" --
}

@test "given --shard-size, then shards are cut anew, modules stay whole, and the tensors are the same" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 2 "${SMALL[@]}")
    quantize --quiet --shard-size 200KB
    [[ $(ls "$DST"/model-*.safetensors | wc -l) -gt 3 ]]
    output_is_right --rule mse --mse-sample 20
    "$PYTHON" - "$DST" <<'PY'
import json, sys
from pathlib import Path
index = json.loads((Path(sys.argv[1]) / "model.safetensors.index.json").read_text())["weight_map"]
modules = {}
for name, shard in index.items():
    modules.setdefault(name.rpartition(".")[0], set()).add(shard)
split = [module for module, shards in modules.items() if len(shards) > 1]
assert not split, split
PY
    rm -rf "$DST"
    quantize --quiet --shard-size 1GB
    [[ -e $DST/model.safetensors ]]
    output_is_right --rule mse --mse-sample 20
}

# --- what a run says ---

@test "given --dry-run, then the exact size of the folder is printed and nothing is written" {
    local promised option
    for option in "" "--shard-size=100KB" "--hash-source"; do
        own_source --layout fp8-tensor --arch llama --shards 3 "${SMALL[@]}"
        echo hello >"$SRC/tokenizer.json"
        echo "# card" >"$SRC/README.md"
        rm -rf "$DST"
        # shellcheck disable=SC2086
        run quantize --dry-run $option
        exits 0
        [[ ! -e $DST ]]
        promised=$(sed -n 's/^folder: \([0-9]*\) bytes.*/\1/p' <<<"$output")
        # shellcheck disable=SC2086
        quantize --quiet $option
        [[ $promised -eq $(folder_bytes "$DST") ]] || { echo "$option: $promised promised, $(folder_bytes "$DST") made"; false; }
    done
}

@test "given --json, then stdout is one JSON object with the documented keys, in every state" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 3 "${SMALL[@]}")
    one_object() { # STATE-WORD OPTIONS...
        local word=$1
        shift
        quantize --json "$@" >"$BATS_TEST_TMPDIR/json" 2>/dev/null
        jq -es 'length == 1 and (.[0] | .schema == "qstream.quantize/1" and .folder_bytes > 0 and (.state | contains("'"$word"'")))' \
            "$BATS_TEST_TMPDIR/json" >/dev/null || { cat "$BATS_TEST_TMPDIR/json"; return 1; }
    }
    one_object planned --dry-run
    one_object part --part 0/2
    one_object part --part 1/2
    one_object finished --finish
    one_object complete
    [[ $(jq .folder_bytes "$BATS_TEST_TMPDIR/json") -eq $(folder_bytes "$DST") ]]
    rm -rf "$DST"
    one_object finished
    [[ $(jq .folder_bytes "$BATS_TEST_TMPDIR/json") -eq $(folder_bytes "$DST") ]]
    run quantize --json --rule amax
    exits 2
    [[ $(quantize --json --rule amax 2>/dev/null | wc -c) -eq 0 ]] # an error goes to stderr only
}

@test "given --quiet, then a good run says nothing at all" {
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    run quantize --quiet
    exits 0
    [[ -z $output ]]
}

@test "given no option, then the summary is on stdout, and nothing but a note on stderr" {
    own_source --layout fp8-tensor "${TINY[@]}"
    echo x >"$SRC/params.json"
    quantize >"$BATS_TEST_TMPDIR/stdout" 2>"$BATS_TEST_TMPDIR/stderr"
    grep -q '^mlp  *mxfp4' "$BATS_TEST_TMPDIR/stdout"
    grep -q '^attention  *fp8' "$BATS_TEST_TMPDIR/stdout"
    grep -q 'finished in' "$BATS_TEST_TMPDIR/stdout"
    [[ $(wc -l <"$BATS_TEST_TMPDIR/stderr") -eq 1 ]]
    grep -q 'not carried over.* params.json' "$BATS_TEST_TMPDIR/stderr"
}

@test "given --hash-source, then qstream.json has a digest for each tensor that changes when the source does" {
    own_source --layout fp8-tensor "${TINY[@]}"
    quantize --quiet --hash-source
    jq -r '.source.tensors | to_entries[] | "\(.key) \(.value)"' "$DST/qstream.json" >"$BATS_TEST_TMPDIR/before"
    grep -q '^model.layers.0.mlp.up_proj.weight_packed [0-9a-f]\{64\}$' "$BATS_TEST_TMPDIR/before"
    edit_source 'tensors["model.layers.0.mlp.up_proj.weight"][2] = b"\x38" + tensors["model.layers.0.mlp.up_proj.weight"][2][1:]'
    rm -rf "$DST"
    quantize --quiet --hash-source
    jq -r '.source.tensors | to_entries[] | "\(.key) \(.value)"' "$DST/qstream.json" >"$BATS_TEST_TMPDIR/after"
    run diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
    [[ $(grep -c '^>' <<<"$output") -eq 1 ]]
    says "up_proj"
}

@test "given the manifest, then its digests and sizes are those of the files" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 3 "${SMALL[@]}")
    quantize --quiet
    jq -r '.files[] | "\(.sha256)  \(.name)"' "$DST/qstream.json" >"$BATS_TEST_TMPDIR/sums"
    (cd "$DST" && sha256sum --quiet --strict -c "$BATS_TEST_TMPDIR/sums")
    [[ $(wc -l <"$BATS_TEST_TMPDIR/sums") -eq $(($(find "$DST" -type f | wc -l) - 1)) ]] # all but itself
}

@test "given a recipe by its name, by path, or as a file of one's own, then the weights are the same" {
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    quantize --quiet
    mv "$DST" "$BATS_TEST_TMPDIR/by-name"
    RECIPE=$ROOT/configs/llama-mxfp4.json
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/by-name" "$DST"
    RECIPE=$BATS_TEST_TMPDIR/mine.json
    jq '.name = "mine"' "$ROOT/configs/llama-mxfp4.json" >"$RECIPE"
    rm -rf "$DST"
    quantize --quiet
    cmp "$BATS_TEST_TMPDIR/by-name/model.safetensors" "$DST/model.safetensors"
    (cd / && rm -rf "$DST" && RECIPE=llama-mxfp4 quantize --quiet) # a name works from any folder
    same_folders "$BATS_TEST_TMPDIR/by-name" "$DST"
}

@test "given a finished folder, when the command is repeated, then it says so, exits with 0 and touches nothing" {
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    quantize --quiet
    find "$DST" -printf '%p %T@ %s\n' | sort >"$BATS_TEST_TMPDIR/before"
    run quantize
    exits 0
    says "complete"
    find "$DST" -printf '%p %T@ %s\n' | sort | diff "$BATS_TEST_TMPDIR/before" -
}

@test "given a finished folder that has lost a shard, when the command is repeated, then it does not say complete" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama --shards 3 "${SMALL[@]}")
    quantize --quiet
    rm "$DST/model-00002-of-00003.safetensors"
    run quantize
    [[ $output != *"complete already"* || $status -ne 0 ]]
}

@test "given an empty folder as DST, or one to be made with its parents, or a trailing slash, then it is used" {
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    mkdir "$DST"
    quantize --quiet
    DST=$BATS_TEST_TMPDIR/a/b/c quantize --quiet
    same_folders "$DST" "$BATS_TEST_TMPDIR/a/b/c"
    DST=$BATS_TEST_TMPDIR/slash/ quantize --quiet
    same_folders "$DST" "$BATS_TEST_TMPDIR/slash"
    (cd "$BATS_TEST_TMPDIR" && DST=plain-name quantize --quiet)
    same_folders "$DST" "$BATS_TEST_TMPDIR/plain-name"
}

# --- files ---

@test "given other files, then they are carried over as they are, and those of the other weight format are not" {
    own_source --layout fp8-tensor "${TINY[@]}"
    mkdir -p "$SRC/extra/deeper/deepest" "$SRC/.cache"
    echo '{"a": 1}' >"$SRC/tokenizer.json"
    head -c 700000 /dev/urandom >"$SRC/extra/deeper/deepest/image one.png"
    echo 'ünïcode' >"$SRC/extra/chat vorlage – 模板.jinja"
    : >"$SRC/empty.txt"
    echo mine >"$SRC/README.md"
    echo '{"x": 2}' >"$SRC/params.json"
    cp "$SRC/model.safetensors" "$SRC/consolidated-00001-of-00002.safetensors"
    echo bin >"$SRC/pytorch_model.bin"
    echo junk >"$SRC/.cache/junk"
    printf 'no newline' >"$SRC/LICENSE"
    quantize --quiet
    for file in tokenizer.json "extra/deeper/deepest/image one.png" "extra/chat vorlage – 模板.jinja" empty.txt LICENSE \
        generation_config.json; do
        cmp "$SRC/$file" "$DST/$file"
    done
    cmp "$SRC/README.md" "$DST/README.source.md"
    [[ ! -e $DST/params.json && ! -e $DST/pytorch_model.bin && ! -e $DST/.cache ]]
    not compgen -G "$DST/consolidated*"
    [[ -z $(find "$DST" -name '*.partial' -o -name .qstream) ]]
}

@test "given what an unfinished download left under a shard's name, then the shards are those that were made" {
    local shard
    own_source --layout fp8-tensor "${TINY[@]}"
    for shard in "$SRC"/*.safetensors; do
        printf 'half of a download' >"$shard.partial"
    done
    quantize 2>"$BATS_TEST_TMPDIR/stderr"
    grep -q 'not carried over.*\.safetensors\.partial' "$BATS_TEST_TMPDIR/stderr"
    [[ -z $(find "$DST" -name '*.partial') ]]
    jq -r '.files[] | "\(.sha256)  \(.name)"' "$DST/qstream.json" | (cd "$DST" && sha256sum --check --quiet)
    "$QSTREAM" verify "$SRC" "$DST" --quiet
}

@test "given consolidated weights without an index beside them, then they are not taken for shards" {
    own_source --layout fp8-tensor "${TINY[@]}"
    mv "$SRC/model.safetensors" "$SRC/weights.safetensors"
    cp "$SRC/weights.safetensors" "$SRC/consolidated.safetensors"
    quantize --quiet
    output_is_right --rule mse --mse-sample 20
    not compgen -G "$DST/consolidated*"
}

@test "given files that the index does not name, then they are ignored" {
    own_source --layout fp8-tensor --arch llama --shards 2 "${SMALL[@]}"
    cp "$SRC/model-00001-of-00002.safetensors" "$SRC/model-old.safetensors"
    quantize --quiet
    [[ ! -e $DST/model-old.safetensors ]]
    output_is_right --rule mse --mse-sample 20
}

@test "given many shards and no index, then the output has an index and the same bytes as with one" {
    own_source --layout fp8-tensor --arch llama --shards 4 "${SMALL[@]}"
    quantize --quiet
    mv "$DST" "$BATS_TEST_TMPDIR/with"
    rm "$SRC/model.safetensors.index.json"
    quantize --quiet
    same_folders "$BATS_TEST_TMPDIR/with" "$DST"
    output_is_right --rule mse --mse-sample 20
}

@test "given FP8 attention, then its bytes in the output are those of the source, and its scales have the same values" {
    SRC=$(source_checkpoint --layout fp8-tensor --arch llama "${SMALL[@]}")
    quantize --quiet
    "$PYTHON" - "$ROOT" "$SRC" "$DST" <<'PY'
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1] + "/tests/models")
from safetensors_files import checkpoint_tensors
source, made = (checkpoint_tensors(Path(folder)) for folder in sys.argv[2:])
checked = 0
for name, tensor in source.items():
    if ".self_attn." not in name or not name.endswith("proj.weight"):
        continue
    module = name.removesuffix(".weight")
    assert made[name].dtype == "F8_E4M3" and made[name].array().tobytes() == tensor.array().tobytes(), name
    for old, new in ("weight_scale_inv", "weight_scale"), ("activation_scale", "input_scale"):
        assert f"{module}.{old}" not in made
        scale = made[f"{module}.{new}"]
        assert scale.dtype == "F32" and scale.shape == (1,)
        assert scale.array()[0] == source[f"{module}.{old}"].array().reshape(-1)[0]
    checked += 1
assert checked == 4, checked
PY
}

@test "given a recipe with FP8 per tensor, then one scale covers the largest value of each weight" {
    SRC=$(source_checkpoint --layout bf16 --arch llama --hidden 512 --mlp 1536 --layers 1 --vocab 64)
    RECIPE=$BATS_TEST_TMPDIR/recipe.json
    jq '.rules |= map(if .format == "fp8" then .strategy = "tensor" else . end)' "$ROOT/configs/llama-mxfp4.json" >"$RECIPE"
    quantize --quiet --jobs 3
    "$PYTHON" - "$ROOT" "$SRC" "$DST" <<'PY'
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1] + "/tests/models")
import numpy as np
from number_formats import bf16_decode, bf16_encode, fp8_decode
from safetensors_files import checkpoint_tensors
source, made = (checkpoint_tensors(Path(folder)) for folder in sys.argv[2:])
for part in "qkvo":
    name = f"model.layers.0.self_attn.{part}_proj.weight"
    values = bf16_decode(source[name].array())
    code = np.asarray(made[name + "_scale"].array()).reshape(-1)
    assert code.size == 1
    scale = bf16_decode(code)[0]
    assert abs(scale / (np.abs(values).max() / 448) - 1) < 1 / 128, (part, scale)
    back = fp8_decode(made[name].array()) * scale
    assert np.abs(back - values).max() <= np.abs(values).max() / 16
PY
}
