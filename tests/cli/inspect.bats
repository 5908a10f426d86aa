#!/usr/bin/env bats
# qstream inspect: what it says of a checkpoint is what an independent reader finds (check_inspect.py), sizes to the
# byte, statistics to the last count, values to the last digit; and nothing in a file harms whoever looks at it.

bats_require_minimum_version 1.5.0
load helper

setup_file() { prepare; }
setup() { fresh; }

SMALL=(--layers 1 --vocab 256)
CHECK=$ROOT/tests/cli/check_inspect.py

inspect() { "$QSTREAM" inspect "$SRC" "$@"; }

# The JSON of SRC with these options is what the independent reader finds.
report_is_right() {
    inspect --json --quiet "$@" >"$BATS_TEST_TMPDIR/report.json"
    "$PYTHON" "$CHECK" report "$SRC" "$BATS_TEST_TMPDIR/report.json" >&2
}

# The values that --show gives are what the independent reader decodes.
values_are_right() {
    inspect --json --quiet --show "$1" >"$BATS_TEST_TMPDIR/values.json" || return 1
    "$PYTHON" "$CHECK" values "$SRC" "$BATS_TEST_TMPDIR/values.json" >&2 || { echo "in $1" >&2; return 1; }
}

# A checkpoint made of nothing but the tensors that the Python statements add: SRC.
crafted() {
    own_source --layout bf16 "${TINY[@]}"
    edit_source "tensors.clear()
config.pop('quantization_config', None)
import random
random.seed($SEED)
def some(count, codes=range(256)): return bytes(random.choices(codes, k=count))
def numbers(count): return f32(*(random.uniform(0.01, 2) for _ in range(count)))
$1"
}

# describes QUERY...: each jq query is true of the JSON.
describes() {
    local query
    inspect --json --quiet >"$BATS_TEST_TMPDIR/described.json"
    for query in "$@"; do
        jq -e "$query" "$BATS_TEST_TMPDIR/described.json" >/dev/null || { echo "not so: $query" >&2; return 1; }
    done
}

# Nothing that moves a cursor, changes colours or the direction of writing; lines end by newline alone.
harmless() {
    LC_ALL=C not grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]' "$1"
}

# --- the report ---

@test "given plain checkpoints of each dtype, when reported with --stats, then every figure is right" {
    local dtype
    for dtype in bf16 f16 f32; do
        SRC=$(source_checkpoint --layout bf16 --dtype "$dtype" "${SMALL[@]}" --outliers --zeros)
        report_is_right --stats
    done
}

@test "given each FP8 layout, when reported with --stats, then every figure is right" {
    local layout
    for layout in fp8-tensor fp8-block mxfp8 ct-channel ct-tensor; do
        SRC=$(source_checkpoint --layout "$layout" "${SMALL[@]}" --zeros)
        report_is_right --stats
        [[ $(jq '[.tensors[].stats.saturated_share // 0] | max > 0' "$BATS_TEST_TMPDIR/report.json") == true ]]
    done
}

@test "given an MXFP4 checkpoint made by qstream, when reported with --stats, then histograms and shares are right" {
    SRC=$(source_checkpoint --layout fp8-tensor "${SMALL[@]}" --outliers --zeros)
    RECIPE=mistral-medium-3.5-mxfp4 quantize --quiet
    SRC=$DST report_is_right --stats
    jq -e '[.tensors[] | select(.part == "weight_packed" and .format == "mxfp4" and .stats.kind == "mxfp4")]
        | length > 0 and all(.stats.codes.saturated_share > 0 and .stats.codes.entropy_bits > 2)' \
        "$BATS_TEST_TMPDIR/report.json"
}

@test "given scales in other shards than their weights, when reported, then companions are found and nothing is lost" {
    SRC=$(source_checkpoint --layout fp8-tensor --shards 3 --split-scales "${SMALL[@]}")
    report_is_right --stats
    jq -e '.totals.shards == 3 and ([.tensors[] | select(.companions | length == 2)] | length > 0)' \
        "$BATS_TEST_TMPDIR/report.json"
}

@test "given a mixture of experts, fused or not, when reported, then roles and sums are right" {
    SRC=$(source_checkpoint --arch qwen3_moe --layout fp8-block "${SMALL[@]}")
    report_is_right --stats
    describes '[.by.role[].name] | contains(["attention", "expert", "router", "norm", "embedding", "head"])'
    SRC=$(source_checkpoint --arch qwen3_moe --layout bf16 --fused qwen3_5 "${SMALL[@]}")
    report_is_right
}

@test "given values that are NaN or infinite, when reported, then they are counted and the JSON stays valid" {
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    own_source --layout fp8-tensor "${TINY[@]}"
    edit_source "
norm = 'model.norm.weight'
tensors[norm][2] = bf16(0x7fc0, 0xff80, 0x7f80, 0x7f80) + tensors[norm][2][8:]
tensors['all.nan'] = ['F32', [2], f32(float('nan'), float('inf'))]
tensors['nothing'] = ['BF16', [0, 4], b'']
up = 'model.layers.0.mlp.up_proj.weight'
tensors[up][2] = u8(0x7f, 0xff, 0x7e) + tensors[up][2][3:]
tensors[up + '_scale_inv'][2] = f32(float('nan'))"
    report_is_right --stats
    jq -e '.tensors[] | select(.name == "model.norm.weight") | .stats.nan == 1 and .stats.inf == 3' "$BATS_TEST_TMPDIR/report.json"
    jq -e '.tensors[] | select(.name == "all.nan") | .stats | .min == null and .max == null' "$BATS_TEST_TMPDIR/report.json"
    jq -e '.tensors[] | select(.name == "model.layers.0.mlp.up_proj.weight") | .stats
        | .nan == 2 and .weight_scale.nan == 1 and .weight_scale.max == null' "$BATS_TEST_TMPDIR/report.json"
}

@test "given other numbers of threads, when reported with --stats, then the report is the same to the byte" {
    SRC=$(source_checkpoint --layout fp8-tensor --hidden 1024 --mlp 2048 --layers 1 --vocab 2048)
    report_is_right --stats --jobs 1
    inspect --stats --json --jobs 7 2>&1 | cmp - "$BATS_TEST_TMPDIR/report.json"
}

@test "given files beside the shards and in folders, when inspected, then the folder's size is right to the byte" {
    local size
    own_source --layout fp8-tensor "${TINY[@]}"
    mkdir -p "$SRC/assets/deep"
    head -c 12345 /dev/zero >"$SRC/assets/deep/tokenizer.model"
    head -c 777 /dev/zero >"$SRC/consolidated.safetensors"
    ln -s model.safetensors "$SRC/.linked"
    size=$(find -L "$SRC" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
    run inspect
    exits 0
    says "folder: $size bytes" "unindexed  consolidated.safetensors" "assets/deep/tokenizer.model"
    # tensors + headers + other files make the folder, and the tensors are those of the shards
    [[ $output =~ folder:\ ([0-9]+)\ bytes.*tensors\ ([0-9]+)\ \+\ headers\ ([0-9]+)\ \+\ other\ files\ ([0-9]+) ]]
    ((BASH_REMATCH[1] == BASH_REMATCH[2] + BASH_REMATCH[3] + BASH_REMATCH[4]))
    ((BASH_REMATCH[2] + BASH_REMATCH[3] == $(stat -c %s "$SRC/model.safetensors")))
    describes ".totals.folder_bytes == $size" '.files | map(select(.kind == "unindexed")) | length == 1'
}

# --- tables ---

@test "given a checkpoint, when its table is printed, then every tensor has its row and rows are aligned" {
    local rows
    SRC=$(source_checkpoint --layout fp8-tensor "${SMALL[@]}")
    run inspect --stats --quiet
    exits 0
    rows=$(describes true && jq '.totals.tensors' "$BATS_TEST_TMPDIR/described.json")
    [[ $(grep -c '  model\.safetensors  ' <<<"$output") -eq $rows ]]
    [[ $(grep '  model\.safetensors  ' <<<"$output" | sed 's/  model\.safetensors  .*//' | awk '{ print length }' | sort -u | wc -l) -eq 1 ]]
    jq -r '.tensors[] | "\(.name) .*\(.dtype) .*\(.bytes) .*\(.role) .*\(.format) .* \(.offset) "' "$BATS_TEST_TMPDIR/described.json" \
        | while read -r pattern; do
            grep -qE "^${pattern//./\\.}" <<<"${output}" || grep -qE "^$pattern" <<<"$output" || { echo "no row like $pattern" >&2; exit 1; }
        done
    says "activation_scale weight_scale_inv" "amax" "at +-448" "zero"
}

@test "given each grouping, when the folded table is printed, then its rows are those of the JSON and sum up to the total" {
    local by
    SRC=$(source_checkpoint --layout fp8-tensor --shards 2 "${SMALL[@]}")
    report_is_right
    for by in role layer format shard; do
        inspect --by "$by" >"$BATS_TEST_TMPDIR/table"
        jq -r --arg by "$by" '.by[$by][] | "\(.name) \(.tensors) \(.parameters) \(.bytes)"' "$BATS_TEST_TMPDIR/report.json" >"$BATS_TEST_TMPDIR/wanted"
        sed '1d;$d' "$BATS_TEST_TMPDIR/table" | sed 's/^(no layer)/(no_layer)/' | awk '{ sub("_", " ", $1); print $1, $2, $3, $4 }' \
            | sed 's/^\(model\|lm\) /\1_/' >"$BATS_TEST_TMPDIR/rows"
        diff <(awk '{ print $(NF-2), $(NF-1), $NF }' "$BATS_TEST_TMPDIR/wanted") <(awk '{ print $(NF-2), $(NF-1), $NF }' "$BATS_TEST_TMPDIR/rows")
        awk -v by="$by" 'NR > 1 && $1 != "total" { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+$/) { t += $i; b += $(i + 2); break } }
            $1 == "total" { exit !($2 == t && $4 == b && b > 0) }' "$BATS_TEST_TMPDIR/table"
        [[ $(tail -1 "$BATS_TEST_TMPDIR/table") == total*"100.0 %"* ]]
    done
}

@test "given --tensors, when inspected, then only matching tensors are listed, summed and read" {
    SRC=$(source_checkpoint --layout fp8-tensor "${SMALL[@]}")
    report_is_right --stats --tensors '*.self_attn.q_proj.weight'
    jq -e '(.tensors | length) == 1 and (.by.role | length) == 1 and .by.role[0].tensors == 1 and .totals.tensors > 1
        and .tensors[0].stats.weight_scale.count == 1 and .tensors[0].stats.input_scale > 0' "$BATS_TEST_TMPDIR/report.json"
    report_is_right --tensors 're:.*self_attn\.(k|v)_proj\.'
    jq -e '(.tensors | length) == 6 and all(.tensors[]; .name | test("[kv]_proj"))' "$BATS_TEST_TMPDIR/report.json"
    run inspect --tensors '*.self_attn.q_proj.*' --by format
    exits 0
    [[ $output == *"fp8-tensor"*" 3 "* && $output != *plain* ]]
    run inspect --tensors '*no_such*'
    exits 2
    says "no tensor" "no_such"
    run inspect --tensors 're:('
    exits 2
    says "not a valid regular expression"
}

# How often a command reads from the checkpoint.
reads() {
    with_shim SHIM_COUNT="$BATS_TEST_TMPDIR/count" -- "$QSTREAM" inspect "$SRC" --quiet --jobs 2 "$@" >"$BATS_TEST_TMPDIR/out"
    awk '$1 == "pread" { print $2 }' "$BATS_TEST_TMPDIR/count"
}

@test "given --tensors and --stats, when inspected, then only they and their companions are read" {
    local headers
    SRC=$(source_checkpoint --layout fp8-tensor --shards 2 --split-scales "${TINY[@]}")
    headers=$(reads)
    [[ $headers -gt 0 && $(reads --json) -eq $headers ]]
    [[ $(reads --stats --tensors '*.q_proj.weight') -eq $((headers + 3)) ]]
    grep -q 'q_proj\.weight .*scale .*input ' "$BATS_TEST_TMPDIR/out"
    [[ $(reads --stats --tensors '*.q_proj.activation_scale') -eq $((headers + 1)) ]]
    [[ $(reads --stats) -eq $((headers + $(inspect --json | jq .totals.tensors))) ]]
}

@test "given a disk that fails, when statistics are read, then the exit code is 4; short reads do no harm" {
    local reads
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    reads=$(reads --stats)
    run with_shim SHIM_FAIL="pread:$((reads - 1)):EIO" -- "$QSTREAM" inspect "$SRC" --stats
    exits 4
    [[ ${#lines[@]} -eq 1 && $output == "qstream: "*"Input/output error"* ]]
    inspect --stats --json >"$BATS_TEST_TMPDIR/right"
    with_shim SHIM_SHORT=1 -- "$QSTREAM" inspect "$SRC" --stats --json | cmp - "$BATS_TEST_TMPDIR/right"
}

# --- values ---

@test "given an MXFP4 checkpoint, when values are shown, then they are numpy's" {
    local name=model.language_model.layers.0
    SRC=$(source_checkpoint --layout fp8-tensor "${SMALL[@]}" --outliers --zeros)
    RECIPE=mistral-medium-3.5-mxfp4 quantize --quiet
    SRC=$DST
    values_are_right "$name.mlp.down_proj[0]"
    values_are_right "$name.mlp.down_proj.weight_packed[255, 15]"
    values_are_right "$name.mlp.up_proj"
    values_are_right "$name.mlp.up_proj.weight_scale[3]"
    values_are_right "$name.self_attn.q_proj[17]"
    values_are_right "$name.self_attn.q_proj.input_scale"
    values_are_right "$name.input_layernorm.weight[0, 2]"
    values_are_right "model.vision_tower.patch_conv.weight[5, 2, 13]"
}

@test "given FP8 in each layout, when values are shown, then they are numpy's" {
    local layout
    for layout in fp8-tensor fp8-block mxfp8 ct-channel; do
        SRC=$(source_checkpoint --layout "$layout" --arch llama --hidden 160 --mlp 288 --heads 5 --kv-heads 1 --head-dim 32 --layers 1 --vocab 64)
        values_are_right 'model.layers.0.mlp.gate_proj[287]'
        values_are_right 'model.layers.0.mlp.down_proj[0]'
        values_are_right 'model.layers.0.mlp.down_proj.weight[159, 1]'
    done
}

@test "given NVFP4, ModelOpt's NVFP4, gpt-oss and packed integers, when values are shown, then they are numpy's" {
    crafted "
tensors['nv.weight_packed'] = ['U8', [6, 24], some(144)]
tensors['nv.weight_scale'] = ['F8_E4M3', [6, 3], some(18, range(1, 120))]
tensors['nv.weight_global_scale'] = ['F32', [1], f32(313.5)]
tensors['opt.weight'] = ['U8', [6, 24], some(144)]
tensors['opt.weight_scale'] = ['F8_E4M3', [6, 3], some(18, range(1, 120))]
tensors['opt.weight_scale_2'] = ['F32', [], f32(0.0021)]
tensors['mlp.experts.down_proj_blocks'] = ['U8', [2, 5, 3, 16], some(480)]
tensors['mlp.experts.down_proj_scales'] = ['U8', [2, 5, 3], some(30, range(110, 130))]
tensors['mlp.experts.down_proj_bias'] = ['BF16', [2, 5], bytes(20)]
import struct
for name, bits, columns in ('four', 4, 44), ('eight', 8, 30):
    width = -(-columns * bits // 32)
    tensors[name + '.weight_packed'] = ['I32', [4, width], some(16 * width)]
    tensors[name + '.weight_shape'] = ['I64', [2], struct.pack('<2q', 4, columns)]
tensors['four.weight_scale'] = ['F32', [4, 2], numbers(8)]
tensors['eight.weight_scale'] = ['F32', [4, 1], numbers(4)]
tensors['ints.weight'] = ['I8', [4, 40], some(160)]
tensors['ints.weight_scale'] = ['F32', [4, 1], numbers(4)]
tensors['count'] = ['I64', [], struct.pack('<q', -5)]
tensors['mask'] = ['BOOL', [5], bytes([1, 0, 1, 1, 0])]"
    report_is_right --stats
    values_are_right 'nv[5]'
    values_are_right 'opt[2, 1]'
    values_are_right 'opt[5]'
    values_are_right 'mlp.experts.down_proj[1, 4]'
    values_are_right 'mlp.experts.down_proj_blocks[0, 3, 2]'
    values_are_right 'four[3]'
    values_are_right 'four[0, 1]'
    values_are_right 'eight[2]'
    values_are_right 'ints[1]'
    values_are_right 'count'
    values_are_right 'mask[0, 0]'
    run inspect --show 'nv[0, 1]'
    exits 0
    says "nv.weight_packed  nvfp4" "nv.weight_global_scale  313.5" "block 1, columns 16..31" "with the global scale"
    [[ $(grep -c '^  value' <<<"$output") -eq 2 ]]
}

@test "given a long row, when it is shown, then 64 values are and the rest is counted" {
    SRC=$(source_checkpoint --layout bf16 --arch llama "${SMALL[@]}")
    run inspect --show 'model.layers.0.mlp.down_proj[1]'
    exits 0
    says "row 1 of 256" "512 columns" "block 1, columns 32..63" "448 more values"
    [[ $output != *"block 2"* ]]
    inspect --show 'model.layers.0.mlp.down_proj[1]' --json | jq -e '[.blocks[].values | length] | add == 512'
}

@test "given what cannot be shown, then the reason is told: 2 for places, 3 for formats" {
    crafted "
tensors['awq.qweight'] = ['I32', [64, 8], some(2048)]
tensors['awq.qzeros'] = ['I32', [2, 8], some(64)]
tensors['awq.scales'] = ['F16', [2, 64], some(256)]
tensors['m.weight'] = ['BF16', [4, 64], some(512)]"
    run inspect --show 'm[4]'
    exits 2
    says "no row 4: there are 4"
    run inspect --show 'm[0, 2]'
    exits 2
    says "no block 2: there are 2"
    run inspect --show 'n[0, 2]'
    exits 2
    says "no tensor or module 'n'"
    run inspect --show 'm[x]'
    exits 2
    run inspect --show awq
    exits 3
    says "awq" "not decoded"
}

# --- formats of others ---

@test "given checkpoints of other tools, when inspected, then formats, parameters and companions are recognized" {
    crafted "
tensors['model.layers.0.a.qweight'] = ['I32', [64, 8], some(2048)]
tensors['model.layers.0.a.qzeros'] = ['I32', [2, 8], some(64)]
tensors['model.layers.0.a.scales'] = ['F16', [2, 64], bytes(256)]
tensors['model.layers.1.g.qweight'] = ['I32', [8, 64], some(2048)]
tensors['model.layers.1.g.qzeros'] = ['I32', [2, 8], some(64)]
tensors['model.layers.1.g.scales'] = ['F16', [2, 64], bytes(256)]
tensors['model.layers.1.g.g_idx'] = ['I32', [64], some(256)]
tensors['b.weight'] = ['U8', [2048, 1], some(2048)]
tensors['b.weight.absmax'] = ['U8', [64], some(64)]
tensors['b.weight.quant_map'] = ['F32', [16], numbers(16)]
tensors['b.weight.nested_absmax'] = ['F32', [1], numbers(1)]
tensors['b.weight.nested_quant_map'] = ['F32', [256], numbers(256)]
tensors['b.weight.quant_state.bitsandbytes__nf4'] = ['U8', [90], some(90)]
tensors['o.weight'] = ['U8', [8, 16], some(128)]
tensors['o.weight_scale'] = ['F8_E4M3', [8, 2], some(16)]
tensors['o.weight_scale_2'] = ['F32', [], numbers(1)]
tensors['o.input_scale'] = ['F32', [], numbers(1)]
tensors['n.weight_packed'] = ['U8', [8, 16], some(128)]
tensors['n.weight_scale'] = ['F8_E4M3', [8, 2], some(16)]
tensors['n.weight_global_scale'] = ['F32', [1], numbers(1)]
tensors['n.input_global_scale'] = ['F32', [1], numbers(1)]
tensors['p.weight_packed'] = ['I32', [8, 4], some(128)]
tensors['p.weight_scale'] = ['BF16', [8, 1], bytes(16)]
tensors['p.weight_shape'] = ['I64', [2], bytes([8, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0])]
tensors['model.layers.2.mlp.experts.gate_up_proj_blocks'] = ['U8', [2, 8, 3, 16], some(768)]
tensors['model.layers.2.mlp.experts.gate_up_proj_scales'] = ['U8', [2, 8, 3], some(48)]
tensors['model.layers.2.mlp.experts.gate_up_proj_bias'] = ['BF16', [2, 8], bytes(32)]
tensors['m8.weight'] = ['F8_E4M3', [4, 64], some(256)]
tensors['m8.weight_scale'] = ['F8_E8M0', [4, 2], some(8)]
tensors['u.weight'] = ['F8_E4M3', [4, 64], some(256)]
tensors['i.weight'] = ['I8', [4, 64], some(256)]
tensors['i.weight_scale'] = ['F32', [4, 1], numbers(4)]"
    report_is_right --stats
    describes '[.tensors[] | select(.companions) | {(.name): .format}] | add == {
        "model.layers.0.a.qweight": "awq", "model.layers.1.g.qweight": "gptq", "b.weight": "bitsandbytes",
        "o.weight": "modelopt-nvfp4", "n.weight_packed": "nvfp4", "p.weight_packed": "int-packed",
        "model.layers.2.mlp.experts.gate_up_proj_blocks": "gpt-oss-mxfp4", "m8.weight": "mxfp8", "u.weight": "fp8-unscaled",
        "i.weight": "int8"}' \
        '[.by.format[] | {(.name): .parameters}] | add | .awq == 4096 and .gptq == 4096 and .bitsandbytes == 4096
            and ."modelopt-nvfp4" == 256 and .nvfp4 == 256 and ."int-packed" == 256 and ."gpt-oss-mxfp4" == 1552
            and .mxfp8 == 256 and .int8 == 256' \
        '[.tensors[] | select(.companions) | {(.name): (.companions | length)}] | add | ."b.weight" == 5
            and ."model.layers.0.a.qweight" == 2 and ."model.layers.1.g.qweight" == 3 and ."o.weight" == 3
            and ."n.weight_packed" == 3 and ."model.layers.2.mlp.experts.gate_up_proj_blocks" == 1' \
        '.tensors[] | select(.name == "b.weight.quant_map") | .companion_of == "b.weight"'
}

# --- what is broken ---

@test "given a missing shard, when inspected, then it is said, the rest is shown and the exit code is 0" {
    own_source --layout fp8-tensor --shards 3 "${TINY[@]}"
    rm "$SRC"/model-00002-of-00003.safetensors
    run --separate-stderr inspect
    exits 0
    [[ $stderr == *"qstream: warning:"*"model-00002-of-00003.safetensors"* ]]
    [[ $output == *"model-00001-of-00003.safetensors"* && $output == *"folder: $(folder_bytes "$SRC") bytes"* ]]
    run --separate-stderr inspect --quiet --json
    exits 0
    [[ -z $stderr ]]
    jq -e '.totals.shards == 3 and ([.files[] | select(.kind == "shard")] | length) == 2' <<<"$output"
}

@test "given a shard cut short and an index of other tensors, when inspected, then some of each kind is told, not all" {
    own_source --layout fp8-tensor --shards 2 --layers 3 --arch llama --hidden 64 --mlp 128 --heads 2 --kv-heads 1 --head-dim 32 --vocab 64
    truncate -s -1 "$SRC"/model-00002-of-00002.safetensors
    sed -i 's/"model\.layers/"modul.layers/g' "$SRC"/model.safetensors.index.json
    run --separate-stderr inspect --stats
    exits 0
    [[ $stderr == *"model-00002-of-00002.safetensors"* && $stderr == *"warning: and "*" more "* ]]
    [[ $(wc -l <<<"$stderr") -lt 50 && $output == *"model-00001-of-00002.safetensors"* ]]
}

@test "given two shards that hold the same tensor, when inspected, then both are shown" {
    own_source --layout bf16 "${TINY[@]}"
    rm -f "$SRC/model.safetensors.index.json"
    cp "$SRC/model.safetensors" "$SRC/other.safetensors"
    mv "$SRC/model.safetensors" "$SRC/one.safetensors"
    run --separate-stderr inspect --json --stats
    exits 0
    [[ $stderr == *warning* ]]
    jq -e '.totals.tensor_bytes + ([.files[].header_bytes] | add) == ([.files[] | select(.kind == "shard") | .bytes] | add)
        and (.tensors | group_by(.name) | all(length == 2))' <<<"$output"
}

@test "given no checkpoint, when inspected, then the exit code is 3 and one line says why" {
    local damage
    for damage in 'rm -r "$SRC"' 'rm "$SRC/config.json"' 'echo "[1" >"$SRC/config.json"' 'rm "$SRC"/*.safetensors'; do
        own_source --layout bf16 "${TINY[@]}"
        eval "$damage"
        run inspect
        exits 3
        [[ ${#lines[@]} -eq 1 && $output == "qstream: "* ]]
    done
}

# --- hostile names ---

@test "given names made to do harm, when shown in any way, then none reaches the terminal" {
    local arguments evil
    own_source --layout bf16 "${TINY[@]}"
    edit_source "
evil = 'model.layers.0.\x1b[31m\n\u202egnp\x7f\u009b2J\u2028\t<script>\ufeff\r\x08'
tensors[evil + '.weight'] = ['F8_E4M3', [4, 64], bytes(256)]
tensors[evil + '.weight_scale'] = ['F32', [4, 1], f32(1, 2, 3, 4)]
config['architectures'] = [evil]
config['model_type'] = evil
config['quantization_config'] = {'quant_method': evil, 'format': evil}"
    mv "$SRC/model.safetensors" "$SRC/"$'mo\x1b[1m\n\xe2\x80\xae.safetensors'
    touch "$SRC/"$'\x1b]0;title\x07\xc2\x9b\xff'
    evil=$(inspect --json --quiet | jq -r '.tensors[] | select(.part == "weight_scale").companion_of')
    [[ $evil == *$'\x1b[31m\n'* ]]
    for arguments in "" --stats "--by layer" "--by shard" --json "--stats --json" "--html -"; do
        # shellcheck disable=SC2086 # several options
        inspect $arguments >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err"
        [[ $arguments == --html* ]] && not grep -q '<script>[^"]*gnp\|gnp.*<script>' "$BATS_TEST_TMPDIR/out" && continue
        harmless "$BATS_TEST_TMPDIR/out"
        harmless "$BATS_TEST_TMPDIR/err"
    done
    inspect --show "$evil[0]" >"$BATS_TEST_TMPDIR/out"
    harmless "$BATS_TEST_TMPDIR/out"
    inspect --show "$evil[0]" --json >"$BATS_TEST_TMPDIR/out"
    harmless "$BATS_TEST_TMPDIR/out"
    run inspect --show "$evil[99]"
    exits 2
    printf '%s' "$output" >"$BATS_TEST_TMPDIR/out"
    harmless "$BATS_TEST_TMPDIR/out"
    # and the JSON still says the true name
    inspect --json --quiet | jq -e '[.tensors[].name | select(contains("\u202e") and contains("\u001b[31m\n"))] | length == 2'
}

@test "given a name that looks like a place, when shown, then the name is tried first" {
    own_source --layout bf16 "${TINY[@]}"
    edit_source "tensors['odd[1, 2]'] = ['F32', [3], f32(4, 5, 6)]"
    inspect --show 'odd[1, 2]' --json | jq -e '.blocks[0].values == [4, 5, 6]'
    inspect --show 'odd[1, 2][0, 0]' --json | jq -e '.blocks[0].values == [4, 5, 6]'
}

# --- the page ---

# The data of a page, as a browser reads it.
page_data() {
    "$PYTHON" -c '
import re, sys
page = open(sys.argv[1], encoding="utf-8").read()
found = re.findall(r"<script id=\"data\" type=\"application/json\">(.*?)</script>", page, re.S)
assert len(found) == 1 and "<" not in found[0] and "@DATA@" not in page, "the data is not whole"
print(found[0])' "$1"
}

@test "given --html, then the page holds what --json says, and no markup of names" {
    own_source --layout fp8-tensor "${TINY[@]}"
    edit_source "tensors['</script><script>alert(1)</script>'] = ['F32', [1], f32(1)]"
    inspect --stats --json --quiet >"$BATS_TEST_TMPDIR/report.json"
    run inspect --stats --quiet --html "$BATS_TEST_TMPDIR/page.html"
    exits 0
    [[ -z $output && $(stat -c %a "$BATS_TEST_TMPDIR/page.html") == "$(printf '%o' $((0666 & ~$(umask))))" ]]
    diff <(jq -S . "$BATS_TEST_TMPDIR/report.json") <(page_data "$BATS_TEST_TMPDIR/page.html" | jq -S .inspect)
    inspect --stats --quiet --html - | cmp - "$BATS_TEST_TMPDIR/page.html"
    inspect --stats --quiet --json --html "$BATS_TEST_TMPDIR/again.html" | cmp - "$BATS_TEST_TMPDIR/report.json"
    cmp "$BATS_TEST_TMPDIR/again.html" "$BATS_TEST_TMPDIR/page.html"
    [[ $(head -c 15 "$BATS_TEST_TMPDIR/page.html") == '<!DOCTYPE html>' || $(head -c 15 "$BATS_TEST_TMPDIR/page.html") == '<!doctype html>' ]]
}

@test "given a page that cannot be written, then the old one stays, nothing else is left and the exit code is 4" {
    SRC=$(source_checkpoint --layout bf16 "${TINY[@]}")
    mkdir "$BATS_TEST_TMPDIR/pages"
    echo old >"$BATS_TEST_TMPDIR/pages/page.html"
    run prlimit --fsize=20000 "$QSTREAM" inspect "$SRC" --html "$BATS_TEST_TMPDIR/pages/page.html"
    exits 4
    [[ $(<"$BATS_TEST_TMPDIR/pages/page.html") == old && $(ls "$BATS_TEST_TMPDIR/pages") == page.html ]]
    run inspect --html /dev/full
    exits 4
    [[ -c /dev/full ]]
    run inspect --html "$BATS_TEST_TMPDIR/no/such/folder.html"
    exits 4
    says "no/such/folder.html"
}

@test "given standard output that cannot be written, then the exit code is 4" {
    SRC=$(source_checkpoint --layout bf16 "${TINY[@]}")
    for arguments in "" --json "--by role" "--html -"; do
        # shellcheck disable=SC2086 # several options
        run sh -c "'$QSTREAM' inspect '$SRC' $arguments >/dev/full"
        exits 4
        says "qstream: "
    done
}

# --- sizes ---

# A hundred thousand tensors in COUNT shards of holes, once: SRC.
many_tensors() {
    SRC=$BUILD/sources/many-$1
    [[ -e $SRC/config.json ]] || "$PYTHON" -S - "$SRC" "$1" <<'PYTHON'
import json, os, struct, sys
folder, shards = sys.argv[1], int(sys.argv[2])
os.makedirs(folder, exist_ok=True)
names = [f"model.layers.{layer}.mlp.experts.{expert}.{leaf}_proj.{part}" for layer in range(130) for expert in range(128)
         for leaf in ("gate", "up", "down") for part in ("weight_packed", "weight_scale")]
each, places, total = -(-len(names) // shards), {}, 0
for shard in range(shards):
    file, header, end = f"model-{shard + 1:05}-of-{shards:05}.safetensors", {}, 0
    for name in names[shard * each : (shard + 1) * each]:
        shape = [64, 1024] if name.endswith("packed") else [64, 64]
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + shape[0] * shape[1]]}
        end += shape[0] * shape[1]
        places[name] = file
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(f"{folder}/{file}", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    total += end
json.dump({"metadata": {"total_size": total}, "weight_map": places}, open(f"{folder}/model.safetensors.index.json", "w"))
json.dump({"architectures": ["Qwen3MoeForCausalLM"]}, open(f"{folder}/config.json", "w"))
PYTHON
}

@test "given a hundred thousand tensors, when inspected in any way, then 256 MiB of address space suffice" {
    local shards arguments
    for shards in ${QSTREAM_TEST_FULL:+1} 20; do
        many_tensors $shards
        for arguments in "" "--by layer" "--by shard" --json "--html $BATS_TEST_TMPDIR/page.html" "--stats --json --jobs 2" \
            "--show model.layers.129.mlp.experts.127.down_proj[63]" "--tensors re:.*layers\.7\."; do
            # shellcheck disable=SC2086 # several options
            prlimit --as=$((256 << 20)) --core=0 "$QSTREAM" inspect "$SRC" --quiet $arguments >"$BATS_TEST_TMPDIR/out" \
                || { echo "$shards shards: $arguments" >&2; return 1; }
            [[ $arguments != --json ]] || jq -e '(.tensors | length) == 99840 and .by.layer[129].tensors == 768' "$BATS_TEST_TMPDIR/out"
            [[ -n $arguments ]] || [[ $(grep -c '^model\.layers' "$BATS_TEST_TMPDIR/out") -eq 99840 ]]
        done
    done
}

@test "given a hundred thousand tensors, when a page is written, then it is never in memory as a whole" {
    local arguments page=$BATS_TEST_TMPDIR/page.html
    many_tensors 20
    for arguments in inspect "audit --headers-only --fail-on error"; do
        # shellcheck disable=SC2086 # several options
        run prlimit --as=$((96 << 20)) --core=0 "$QSTREAM" $arguments "$SRC" --quiet --html "$page"
        [[ $status -le 1 && $(stat -c %s "$page") -gt 30000000 ]]
        rm "$page"
    done
}

@test "given too little memory, whatever it is, then it succeeds or says so, and never crashes" {
    local space refused=0 code
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    for ((space = 8 << 10; space <= 24 << 10; space += 256)); do
        code=0
        prlimit --as=$((space << 10)) --core=0 "$QSTREAM" inspect "$SRC" --stats --json --jobs 3 >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" || code=$?
        grep -q 'shared \(libraries\|object\)\|for initial thread' "$BATS_TEST_TMPDIR/err" && continue # not even the program fits
        if [[ $code -eq 0 ]]; then
            jq -e .totals "$BATS_TEST_TMPDIR/out" >/dev/null
        else
            [[ $code -eq 4 ]] || { echo "exit code $code with $space KiB" >&2; return 1; }
            grep -q '^qstream: ' "$BATS_TEST_TMPDIR/err"
            [[ ! -s $BATS_TEST_TMPDIR/out ]]
            refused=$((refused + 1))
        fi
    done
    [[ $code -eq 0 && $refused -gt 0 ]]
}

# --foreground: timeout would signal its group as well, and a second signal ends the program at once
@test "given an interrupt while values are read, then the exit code is 130" {
    many_tensors 1
    run timeout --foreground --preserve-status -s INT 0.7 "$QSTREAM" inspect "$SRC" --stats --quiet --jobs 1
    exits 130
    says "interrupted"
}

# --- the command line ---

@test "given wrong usage, then the exit code is 2 and one line says what is wrong" {
    local arguments
    SRC=$(source_checkpoint --layout bf16 "${TINY[@]}")
    for arguments in "" "$SRC $SRC" "$SRC --by tensor" "$SRC --jobs 0" "$SRC --jobs x" "$SRC --nonsense" "$SRC --show" \
        "$SRC --stats --by role" "$SRC --show x --stats" "$SRC --show x --by role" "$SRC --json --html -" "-x $SRC" \
        "hf://org/name/more" "$SRC --show nothing.here"; do
        # shellcheck disable=SC2086 # several arguments
        run "$QSTREAM" inspect $arguments
        exits 2 || { echo "for: $arguments" >&2; return 1; }
        [[ ${#lines[@]} -eq 1 && $output == "qstream: "* ]]
    done
}

@test "given --help, then every option of the manual is there" {
    local option
    run "$QSTREAM" inspect --help
    exits 0
    for option in --tensors --by --stats --show --json --html --jobs --quiet --help; do
        says "$option"
        grep -q -- "\`$option" "$ROOT/docs/inspect.md"
    done
    run "$QSTREAM" help inspect
    exits 0
    says "--stats"
}
