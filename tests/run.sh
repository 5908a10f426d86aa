#!/bin/bash
# Runs the tests and closes with 'N passed, N failed, N skipped'. Called by 'make test' and 'make test-full'.
#
#   tests/run.sh [--full] [SUITE]
#
# All is built, and suites run, two or more beside each other; each writes TAP to build/test/NAME.tap. Only failures
# and a line per suite are shown, with what it took of the clock and of the processors.
# Without --full what takes long is looked at in fewer places: fewer kills and faults, seeds and layouts, the smaller models
# under the sanitizers, no package, no path analysis. QSTREAM_TEST_FULL tells it to the tests that no argument reaches.
# With CI=true a skipped test is a failure, unless QSTREAM_TEST_ALLOW_SKIP is set; but for those that want daemons or another
# root folder, which not every machine lets one have. SUITE runs only that one.
set -u
cd "$(dirname "$0")/.." || exit 1
results=build/test
mkdir -p "$results"
passed=0 failed=0 skipped=0

# count NAME STATUS: reads NAME.tap; STATUS is the suite's exit status.
count() {
    local tap=$results/$1.tap ok bad skip
    skip=$(grep -cE '^(not )?ok .*# (SKIP|skip)' "$tap")
    ok=$(grep -E '^ok ' "$tap" | grep -cvE '# (SKIP|skip)')
    bad=$(grep -E '^not ok ' "$tap" | grep -cvE '# (SKIP|skip)')
    if [ "$2" != 0 ] && [ "$bad" = 0 ]; then
        bad=1 # it died, or failed without a line of its own
        tail -n 25 "$tap"
    fi
    if [ $((ok + bad + skip)) = 0 ]; then
        bad=1
        echo "$1: no test was run"
    fi
    if [ "$bad" != 0 ]; then
        grep -aE -A 12 '^not ok' "$tap" | head -n 80
        [ ! -s "$results/$1.log" ] || tail -n 20 "$results/$1.log"
    fi
    grep -aE '^(not )?ok .*# (SKIP|skip)' "$tap"
    if [ "${CI:-}" = true ] && [ -z "${QSTREAM_TEST_ALLOW_SKIP:-}" ] && [[ " cluster packaging " != *" $1 "* ]]; then
        bad=$((bad + skip))
        skip=0
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    local took user system
    read -r took user system < <(tail -n 1 "$results/$1.time")
    printf '%-14s %4d passed, %d failed, %d skipped  (%d s, %d of processors)\n' "$1" "$ok" "$bad" "$skip" "$took" \
        $((user + system))
}

# timed NAME COMMAND...: what it takes, in whole seconds, goes to NAME.time.
timed() {
    local name=$1 status=0 TIMEFORMAT='%0R %0U %0S'
    shift
    { time "$@" 2>&3; } 3>&2 2>"$results/$name.time" || status=$?
    return $status
}

# suite NAME COMMAND...: the command prints TAP. One suite more than there are processors runs at a time, since some wait for
# servers and clocks; finish waits for them, and counts them in their order.
suites=()
suite() {
    local name=$1
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    while [ "$(jobs -pr | wc -l)" -gt "$jobs" ]; do
        wait -n
    done
    suites+=("$name")
    {
        local status=0
        timed "$name" "$@" >"$results/$name.tap" 2>"$results/$name.log" || status=$?
        echo $status >"$results/$name.end"
    } &
}
# In full only, or when it is asked for.
full_suite() { [ -n "$quick" ] && [ "$only" != "$1" ] || suite "$@"; }
finish() {
    local name
    wait
    for name in ${suites[@]+"${suites[@]}"}; do
        count "$name" "$(cat "$results/$name.end")"
    done
    suites=()
}

# one NAME COMMAND...: the command is one test.
one() {
    local name=$1
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    local status=0
    (timed "$name" "$@") >"$results/$name.log" 2>&1 || status=$? # apart, so that suites that end meanwhile do not count
    if [ "$status" = 0 ]; then echo "ok 1 - $name"; else echo "not ok 1 - $name"; fi >"$results/$name.tap"
    count "$name" $status
}

# A command that is one test, as TAP.
one_test() {
    if "$@" >&2; then echo "ok 1 - $1"; else echo "not ok 1 - $1"; fi
}

quick=--quick
export QSTREAM_TEST_FULL=''
if [ "${1:-}" = --full ]; then
    quick='' QSTREAM_TEST_FULL=1
    shift
fi
only=${1:-}
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

# Every unit test of a build folder, under an optional emulator; as many at a time as there are processors.
units() {
    local folder=$1 test status=0 place
    shift
    place=$(mktemp -d)
    for test in "$folder"/test_*; do
        [ -x "$test" ] && [ ! -d "$test" ] && [ "${test%.d}" = "$test" ] && echo "$test"
    done | CMOCKA_MESSAGE_OUTPUT=tap xargs -P "$jobs" -I TEST sh -c \
        'out=$1/${2##*/} test=$2 && shift 2 && timeout 600 "$@" "$test" >"$out"' units "$place" TEST "$@" || status=1
    cat "$place"/test_*
    rm -rf "$place"
    return $status
}
units_asan() { QSTREAM_TEST_SCALE=0.05 units build/asan/unit; }
units_arm64() {
    QSTREAM_TEST_SCALE=0.005 units build/arm64/unit qemu-aarch64
}
jobs=$(nproc)

sample_model() {
    tests/models/venv.sh && build/venv/bin/python tests/models/make_sample.py --out build/models --check tests/models/smollm2_tensors.json
}
suite sample-model one_test sample_model # waits for packages and is one thread
one build make -j"$jobs" all
one build-unit make -j"$jobs" unit
finish
# while the rest is built: these wait for servers and clocks
suite hub tests/hub/run_hub.sh
suite cluster tests/cluster/run_cluster.sh
one build-asan make -j"$jobs" asan
# in full for all generations of cards
one build-cuda make -j"$jobs" cuda ${quick:+"ARCHS=80 90 120"}
one build-model make -j"$jobs" cuda-model
if [ "$(uname -m)" = x86_64 ]; then
    one build-arm64 make -j"$jobs" BUILD=build/arm64 CC=aarch64-linux-gnu-gcc ${quick:+"CFLAGS=-O1"} all unit
fi
one lint tests/lint.sh $quick
suite unit-asan units_asan
suite unit units build/unit
# the longest first
# shellcheck disable=SC2086 # several words
suite cli bats --timing --formatter tap ${quick:+--filter-tags !full} tests/cli
suite infer tests/infer/run_infer.sh
suite cuda tests/cuda/run_cuda.sh
suite infer-asan env QSTREAM=build/asan/qstream tests/infer/run_infer.sh --quick ${quick:+--only refused}
suite verify tests/verify/run_verify.sh
suite tokenizer tests/tokenizer/run_tokenizer.sh
suite server tests/server/run_server.sh
suite clients tests/clients/run_clients.sh
suite hub-asan env QSTREAM=build/asan/qstream tests/hub/run_hub.sh check_faults
suite quantize-asan env QSTREAM=build/asan/qstream tests/hub/run_hub.sh check_quantize
suite cuda-engine tests/cuda/run_engine.sh
full_suite cuda-model tests/cuda/model/self_test.sh
suite cuda-gates tests/cuda/gates.sh --access sm_90
full_suite audit tests/audit/run_audit.sh
suite audit-asan env QSTREAM=build/asan/qstream tests/audit/run_audit.sh
suite verify-asan env QSTREAM=build/asan/qstream build/venv/bin/python tests/verify/corruption.py --places 1
suite tokenizer-asan env BUILD=build/asan CC=clang CFLAGS="-g -fsanitize=address,undefined" tests/tokenizer/run_tokenizer.sh --only "sample model" --count 200
suite faults tests/faults/run_faults.sh ${quick:+--most 12 --some 2}
suite faults-asan tests/faults/run_faults.sh --sanitized
suite parquet tests/parquet/run_parquet.sh
suite parquet-asan env BUILD=build/asan CC=clang CFLAGS="-g -fsanitize=address,undefined" tests/parquet/run_parquet.sh --only damage
suite calibrate tests/calibrate/run_calibrate.sh
suite calibrate-asan env QSTREAM=build/asan/qstream BUILD=build/asan CC=clang CFLAGS="-g -fsanitize=address,undefined" tests/calibrate/run_calibrate.sh --quick
suite browser tests/browser/run_browser.sh
suite large tests/large/run_large.sh
full_suite packaging tests/packaging/run_packaging.sh
if [ "$(uname -m)" = x86_64 ]; then
    suite unit-arm64 units_arm64
    suite arm64 one_test tests/arm64.sh
fi
# a look at each parser; 'make fuzz' takes longer
suite fuzz one_test tests/fuzz/run.sh "$([ "${CI:-}" = true ] && echo 5 || echo 3)"
finish
[ $((passed + failed + skipped)) -gt 0 ] || {
    echo "run.sh: there is no suite '$only'" >&2
    exit 2
}

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
