#!/bin/bash
# Tests of the CUDA plug-in under the execution model of tests/cuda/model, without a GPU. Prints TAP.
#
# The same tests run with blocks and threads in several orders, other bytes in memory that nobody has written, and streams
# that run early or late; their results have to be the same to the bit. Then on the other generations of cards that kernels
# tell apart, and, with fewer and smaller cases, under AddressSanitizer with UBSan and under ThreadSanitizer, which sees
# threads of a block that do not wait for each other. Without QSTREAM_TEST_FULL: two orders, and AddressSanitizer.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=build/cuda-test
mkdir -p "$out"
sanitize="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1 CMOCKA_MESSAGE_OUTPUT=tap
jobs=$(nproc)
names=() failed=0 number=0

tap() { # tap STATUS TEXT
    number=$((number + 1))
    if [ "$1" = 0 ]; then
        echo "ok $number - $2"
    else
        echo "not ok $number - $2"
        failed=1
    fi
}

# build NAME ARGUMENTS...: of make.
build() {
    local name=$1
    shift
    make -j"$jobs" "$@" >"$out/$name.build" 2>&1
    local status=$?
    [ $status = 0 ] || tail -n 20 "$out/$name.build" | sed 's/^/# /'
    tap $status "$name is built"
    return $status
}

# later NAME PROGRAM PLUGIN SETTINGS...: a run of all tests beside others, as many at a time as there are processors.
later() {
    local name=$1 program=$2 plugin=$3
    shift 3
    while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do
        wait -n
    done
    names+=("$name")
    (
        env "$@" timeout 600 "$program" --digest "$out/$name.digest" "$plugin" >"$out/$name.tap" 2>"$out/$name.log"
        echo $? >"$out/$name.status"
    ) &
}

# Prints what the runs have printed, each test with its run's name.
gather() {
    local name line status
    wait
    for name in "${names[@]}"; do
        status=$(cat "$out/$name.status")
        local bad=0
        while IFS= read -r line; do
            case $line in
            "ok "*) tap 0 "$name: ${line#*- }" ;;
            "not ok "*)
                tap 1 "$name: ${line#*- }"
                bad=1
                ;;
            1..*) ;;
            *) echo "# ${line#\# }" ;;
            esac
        done < <(grep -av 'ok - plugin$' "$out/$name.tap")
        if [ "$status" != 0 ]; then
            [ $bad = 1 ] || tap 1 "$name: it ended with status $status"
            grep -av -e 'cudaLaunchKernelEx' -e 'std::' "$out/$name.log" | tail -n 30 | sed 's/^/# /'
        fi
    done
    names=()
}

# same FIRST SECOND: whether two runs gave the same.
same() {
    diff "$out/$1.digest" "$out/$2.digest" >"$out/same.diff"
    local status=$?
    [ $status = 0 ] || sed -n 's/^> [0-9a-f]* /# differs: /p' "$out/same.diff"
    tap $status "$2: results are those of $1 to the bit"
}

model=build/cuda-model/libqstream_cuda.so program=$out/test_plugin
build plug-in "$program" $model || exit 1
rm -f "$out"/*.digest
build asan BUILD=build/asan CC=clang CXX=clang++ CFLAGS="$sanitize -fsanitize=fuzzer-no-link" MODEL_FLAGS="$sanitize -fno-sanitize=vptr,function" \
    build/asan/cuda-test/test_plugin build/asan/cuda-model/libqstream_cuda.so
later asan build/asan/cuda-test/test_plugin build/asan/cuda-model/libqstream_cuda.so QSTREAM_TEST_SCALE=0.05
scale=(QSTREAM_TEST_SCALE=0.3)
[ -z "${QSTREAM_TEST_FULL:-}" ] || scale=()
later forward "$program" $model "${scale[@]}"
later reverse "$program" $model "${scale[@]}" QSTREAM_MODEL_ORDER=reverse QSTREAM_MODEL_POISON=0 QSTREAM_MODEL_EAGER=3
if [ -n "${QSTREAM_TEST_FULL:-}" ]; then
    build tsan MODEL=build/tsan/cuda-model MODEL_FLAGS="-O1 -g -fsanitize=thread" "$out/test_plugin_tsan" \
        build/tsan/cuda-model/libqstream_cuda.so
    later tsan "$out/test_plugin_tsan" build/tsan/cuda-model/libqstream_cuda.so QSTREAM_TEST_SCALE=0.05
    later random "$program" $model QSTREAM_MODEL_ORDER=20260117 QSTREAM_MODEL_POISON=0x5a QSTREAM_MODEL_EAGER=2
    later capability-80 "$program" $model QSTREAM_MODEL_CAPABILITY=80 QSTREAM_TEST_SCALE=0.1
    later unified-121 "$program" $model QSTREAM_MODEL_CAPABILITY=121 QSTREAM_MODEL_UNIFIED=1 QSTREAM_TEST_SCALE=0.1
fi
gather
same forward reverse
[ -z "${QSTREAM_TEST_FULL:-}" ] || same forward random
echo "1..$number"
exit $failed
