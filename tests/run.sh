#!/bin/bash
# Runs every test and closes with 'N passed, N failed, N skipped'. Called by 'make test'.
#
# Suites run one after another; each writes TAP to build/test/NAME.tap. Only failures and a line per suite are shown.
# With CI=true a skipped test is a failure, unless QSTREAM_TEST_ALLOW_SKIP is set. A suite's name as an argument runs
# only that one: 'tests/run.sh cli'.
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
    if [ "${CI:-}" = true ] && [ -z "${QSTREAM_TEST_ALLOW_SKIP:-}" ]; then
        bad=$((bad + skip))
        skip=0
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-14s %4d passed, %d failed, %d skipped  (%d s)\n' "$1" "$ok" "$bad" "$skip" $((SECONDS - started))
}

# suite NAME COMMAND...: the command prints TAP.
suite() {
    local name=$1
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    started=$SECONDS
    "$@" >"$results/$name.tap" 2>"$results/$name.log"
    count "$name" $?
}

# later NAME COMMAND...: as suite, beside those that follow; gather NAME waits for it and counts.
later() {
    local name=$1
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    {
        local begin=$SECONDS status=0
        "$@" >"$results/$name.tap" 2>"$results/$name.log" || status=$?
        echo "$status $((SECONDS - begin))" >"$results/$name.end"
    } &
}
gather() {
    local status took
    [ -z "$only" ] || [ "$only" = "$1" ] || return 0
    wait
    read -r status took <"$results/$1.end"
    started=$((SECONDS - took))
    count "$1" "$status"
}

# one NAME COMMAND...: the command is one test.
one() {
    local name=$1
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    started=$SECONDS
    local status=0
    "$@" >"$results/$name.log" 2>&1 || status=$?
    if [ "$status" = 0 ]; then echo "ok 1 - $name"; else echo "not ok 1 - $name"; fi >"$results/$name.tap"
    count "$name" $status
}

only=${1:-}
sanitize="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
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

one build make -j"$jobs" all
one lint tests/lint.sh
one build-clang make -j"$jobs" BUILD=build/clang CC=clang all
one build-asan make -j"$jobs" BUILD=build/asan CFLAGS="$sanitize" all unit
suite unit-asan units_asan
one build-unit make -j"$jobs" unit
suite unit units build/unit
one sample-model sh -c 'tests/models/venv.sh && build/venv/bin/python tests/models/make_sample.py --out build/models --check tests/models/smollm2_tensors.json'
later cli bats --formatter tap tests/cli
suite clients tests/clients/run_clients.sh
suite audit tests/audit/run_audit.sh
suite audit-asan env QSTREAM=build/asan/qstream tests/audit/run_audit.sh
suite verify tests/verify/run_verify.sh
suite verify-asan env QSTREAM=build/asan/qstream build/venv/bin/python tests/verify/corruption.py --places 1
suite tokenizer tests/tokenizer/run_tokenizer.sh
suite tokenizer-asan env BUILD=build/asan CFLAGS="$sanitize" tests/tokenizer/run_tokenizer.sh --only "sample model" --count 200
suite infer tests/infer/run_infer.sh
suite infer-asan env QSTREAM=build/asan/qstream tests/infer/run_infer.sh --quick
suite server tests/server/run_server.sh
gather cli
suite browser tests/browser/run_browser.sh
if [ "$(uname -m)" = x86_64 ]; then
    one build-arm64 make -j"$jobs" BUILD=build/arm64 CC=aarch64-linux-gnu-gcc all unit
    suite unit-arm64 units_arm64
    one arm64 tests/arm64.sh
fi
# a look at each parser; 'make fuzz' takes longer
one fuzz tests/fuzz/run.sh "$([ "${CI:-}" = true ] && echo 20 || echo 3)"

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
