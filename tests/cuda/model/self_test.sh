#!/bin/bash
# Proves that the execution model finds the faults it is there for: builds self_test plain, with AddressSanitizer and with
# ThreadSanitizer, and checks what comes of each case, or of those that have the argument in their names. Prints TAP.
set -u
cd "$(dirname "$0")/../../.." || exit 1
out=${BUILD:-build}/cuda-model-self
log=$out/log
here=tests/cuda/model
flags="-std=c++17 -g -I. -I$here -pthread -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off"
mkdir -p "$out"
number=0 failed=0
only=${1:-}

# compile NAME MODEL_FLAGS FLAGS: as the Makefile does, the model goes without ThreadSanitizer
compile() {
    local file objects=()
    for file in "$here"/*.cc; do
        local own=$2
        [ "${file##*/}" != self_test.cc ] || own=$3
        local object=$out/$1-${file##*/}.o
        objects+=("$object")
        # shellcheck disable=SC2086
        g++ $flags $own -c -o "$object" "$file" || exit 1
    done
    # shellcheck disable=SC2086
    g++ $3 -pthread -o "$out/$1" "${objects[@]}" -ldl || exit 1
}
model="-O3 -fno-tree-loop-distribute-patterns"
asan="-fsanitize=address,undefined -fno-sanitize-recover=all"
compile plain "$model" -O2
compile asan "$model $asan" "-O1 $asan"
compile tsan "$model -DMODEL_TSAN" "-O1 -fsanitize=thread"
export TSAN_OPTIONS=halt_on_error=1

# finds CASE BUILD EXPECTED [NAME=VALUE...]: the output has a line that matches EXPECTED
finds() {
    local name=$1 build=$2 expected=$3
    shift 3
    [[ $name = *$only* ]] || return 0
    number=$((number + 1))
    timeout 120 env "$@" "$out/$build" "$name" >"$log" 2>&1
    if grep -qE "$expected" "$log"; then
        echo "ok $number - $name, $build${*:+, $*}: ${expected}"
    else
        echo "not ok $number - $name, $build${*:+, $*}: ${expected}"
        head -n 12 "$log" | sed 's/^/# /'
        failed=1
    fi
}

# what is right stays right in all builds and orders
for name in barrier_right rounds_right syncwarp_right blocks_atomic last_block warp_values atomic_values intrinsic_values \
    mma_values ldmatrix_values copy_async_right event_right reuse_right host_buffer_right graph_runs; do
    for build in plain asan tsan; do
        finds $name $build '^right$'
    done
    for order in reverse 1 2; do
        finds $name plain '^right$' QSTREAM_MODEL_ORDER=$order
    done
    for eager in 1 2 3; do
        finds $name plain '^right$' QSTREAM_MODEL_EAGER=$eager
    done
done

# races between threads
finds barrier_missing tsan 'ThreadSanitizer: data race'
finds barrier_missing plain '^wrong$'
finds rounds_one_barrier tsan 'ThreadSanitizer: data race'
finds rounds_one_barrier plain '^wrong$' QSTREAM_MODEL_ORDER=1
finds syncwarp_missing tsan 'ThreadSanitizer: data race'
finds blocks_race tsan 'ThreadSanitizer: data race'
finds blocks_race plain '^right$'
finds blocks_race plain '^wrong$' QSTREAM_MODEL_ORDER=reverse
finds copy_async_without_wait plain '^wrong$'
finds copy_async_without_wait plain '^right$' QSTREAM_MODEL_ORDER=reverse

# barriers and warp functions that not all reach
finds barrier_diverges plain 'cuda model: kernel half_waits.*, block \(0, 0, 0\): .*__syncthreads'
finds barrier_diverges plain 'threads 0 to 63 wait in __syncthreads, .*self_test.cc:'
finds barrier_other plain 'threads [0-9]+ and [0-9]+ wait in different __syncthreads'
finds shuffle_without_lane plain 'cuda model: kernel lane_missing.*wait for'
finds shuffle_without_lane plain 'threads 0 to 6 wait in __shfl_sync with mask ffffffff, .*self_test.cc:'

# memory
finds shared_overrun asan 'AddressSanitizer: heap-buffer-overflow'
finds memory_overrun asan 'AddressSanitizer: heap-buffer-overflow'
finds shared_uninitialized plain '^ffffffff$'
finds shared_uninitialized plain '^3c3c3c3c$' QSTREAM_MODEL_POISON=0x3c
finds memory_uninitialized plain '^3c3c3c3c$' QSTREAM_MODEL_POISON=0x3c
finds freed_in_use plain 'cuda model: .*released before it ran'
finds host_pointer plain 'cuda model: kernel add_one.* not into memory of the device'
finds copy_wrong_way plain 'cuda model: a copy of kind'
finds copy_too_long plain 'cuda model: a copy to memory of 516 bytes at offset 0 of an allocation of 512'
finds memory_limit plain '^right$'

# streams
finds event_missing plain '^wrong$'
finds reuse_missing plain '^wrong$' QSTREAM_MODEL_EAGER=2
finds host_buffer_early plain '^wrong$'
finds graph_spoiled plain '^right$'

# limits of the device
finds launch_limits plain '^right$'
finds shared_too_large plain '^right$'
finds shared_too_large plain '^across: cudaErrorInvalidValue$' QSTREAM_MODEL_CAPABILITY=120
finds device_none plain '^right$' QSTREAM_MODEL_DEVICES=0

# cuBLASLt
for build in plain asan tsan; do
    finds product_values $build '^right$'
done
finds product_rules plain '^right$'
finds product_fp8 plain CUBLAS_STATUS_SUCCESS QSTREAM_MODEL_CAPABILITY=89
finds product_fp8 plain CUBLAS_STATUS_NOT_SUPPORTED QSTREAM_MODEL_CAPABILITY=80

echo "1..$number"
exit $failed
