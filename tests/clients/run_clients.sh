#!/usr/bin/env bash
# Quantizes the sample model and small synthetic checkpoints of every layout with build/qstream, and has
# check_output.py judge each result. Prints TAP; what a failed check said follows as comments.
#
# QSTREAM names another binary, GOLDEN another folder of reference outputs than ../shared/golden.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
qstream=${QSTREAM:-build/qstream}
golden=${GOLDEN:-../shared/golden}
python=build/venv/bin/python
work=build/clients
log=$work/log
tests=0
failures=0

bail() {
    echo "Bail out! $1"
    exit 1
}

# result NAME STATUS: one TAP line; on failure the log, which the test must have written.
result() {
    tests=$((tests + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $tests - $1"
    else
        failures=$((failures + 1))
        echo "not ok $tests - $1"
        grep -v '^ok ' "$log" | sed 's/^/# /'
    fi
}

skip() {
    tests=$((tests + 1))
    echo "ok $tests - $1 # SKIP $2"
}

# judge NAME SRC RECIPE RULE [--gamma KIND] [-- QUANTIZE OPTIONS]
judge() {
    local name=$1 source=$2 recipe=configs/$3.json rule=$4
    shift 4
    local shared=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        shared+=("$1")
        shift
    done
    shift $(($# > 0))
    rm -rf "$work/out"
    "$qstream" quantize "$source" "$work/out" --recipe "$recipe" --rule "$rule" --quiet "${shared[@]}" "$@" >"$log" 2>&1 &&
        "$python" tests/clients/check_output.py "$source" "$work/out" --rule "$rule" "${shared[@]}" >"$log" 2>&1
    result "$name, rule $rule${shared[*]:+ ${shared[*]}}${*:+ $*}" $?
}

# synthetic NAME RECIPE OPTIONS...: a small checkpoint with rare values, judged under every rule
synthetic() {
    local name=$1 recipe=$2
    shift 2
    if ! "$python" tests/models/make_checkpoint.py --out "$work/$name" --outliers --zeros "$@" >"$log" 2>&1; then
        result "make $name" 1
        return
    fi
    for rule in amax qstream mse; do
        judge "$name" "$work/$name" "$recipe" "$rule"
    done
}

[ -x "$qstream" ] || bail "$qstream is missing: run make"
tests/models/venv.sh || bail "the Python environment cannot be made"
mkdir -p "$work"

if [ -e "$golden/mxfp4.safetensors" ]; then
    "$python" tests/clients/check_rules.py "$golden" >"$log" 2>&1
    result "the scale rules in numpy equal both references" $?
else
    skip "the scale rules in numpy equal both references" "no $golden"
fi

mistral="mistral-medium-3.5-mxfp4"
llama="llama-mxfp4"
qwen="qwen3-moe-mxfp4"

synthetic bf16 $mistral --layout bf16
synthetic f16 $mistral --layout bf16 --dtype f16
synthetic f32 $mistral --layout bf16 --dtype f32
synthetic fp8-tensor $mistral --layout fp8-tensor --shards 3 --split-scales
synthetic fp8-tensor-bf16-scales $mistral --layout fp8-tensor --scale-dtype BF16 --scale-shape one
synthetic fp8-block $mistral --layout fp8-block
synthetic fp8-block-odd $mistral --layout fp8-block --hidden 160 --mlp 288 --shards 2 --split-scales
synthetic mxfp8 $mistral --layout mxfp8 --shards 2
synthetic ct-channel $mistral --layout ct-channel
synthetic ct-tensor $mistral --layout ct-tensor
synthetic llama-bf16 $llama --arch llama --layout bf16
synthetic llama-fp8-tensor $llama --arch llama --layout fp8-tensor
synthetic llama-ct-channel $llama --arch llama --layout ct-channel --scale-dtype BF16
synthetic qwen-bf16 $qwen --arch qwen3_moe --layout bf16
synthetic qwen-fp8-block $qwen --arch qwen3_moe --layout fp8-block --shards 2
synthetic qwen-fused $qwen --arch qwen3_moe --layout bf16 --fused qwen3_5
synthetic qwen-fused-transposed $qwen --arch qwen3_moe --layout bf16 --fused qwen3_vl

for gamma in layernorm original; do
    judge fp8-tensor "$work/fp8-tensor" $mistral qstream --gamma $gamma
    judge qwen-bf16 "$work/qwen-bf16" $qwen qstream --gamma $gamma
done
judge fp8-tensor "$work/fp8-tensor" $mistral mse -- --shard-size 512KiB

if "$python" tests/models/make_sample.py --out build/models --check tests/models/smollm2_tensors.json >"$log" 2>&1; then
    for rule in amax mse; do
        judge smollm2-fp8 build/models/smollm2-fp8 $mistral $rule
    done
    judge smollm2-bf16 build/models/smollm2-bf16 $llama mse
else
    result "make the sample model" 1
fi

echo "1..$tests"
[ $failures -eq 0 ]
