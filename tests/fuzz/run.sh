#!/bin/bash
# Runs every fuzz target:  tests/fuzz/run.sh [SECONDS_PER_TARGET]   (default: 45)
# Needs clang with libFuzzer (Debian: clang, libclang-rt-dev). Everything it makes lies in build/fuzz. A crash, a
# property that does not hold, a leak, an input that takes 10 s, 1 GiB of memory or one allocation of 256 MiB
# fails the run; the input is kept in build/fuzz/found.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build}/fuzz
cd "$root"

seconds=${1:-45}
case $seconds in
'' | 0 | *[!0-9]*)
    echo "usage: tests/fuzz/run.sh [SECONDS_PER_TARGET]" >&2
    exit 2
    ;;
esac

targets=()
for source in "$here"/fuzz_*.c; do
    source=${source##*/fuzz_}
    targets+=("${source%.c}")
done
mkdir -p "$build/found" "$build/corpus"
make -s -j"$(nproc)" asan

# Runs one target; its log tells the rest.
fuzz() {
    local target=$1
    mkdir -p "$build/corpus/$target"
    rm -f "$build/found/$target-"*
    # Leaks are looked for after each input that leaves more allocations than it found, and at the end.
    "build/asan/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
        -max_len=16384 -dict="$here/json.dict" -artifact_prefix="$build/found/$target-" -print_final_stats=1 \
        "$build/corpus/$target" "$here/corpus/$target" >"$build/$target.log" 2>&1
}

# As many at a time as there are processors.
declare -A running
result=0
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        sleep 0.2
    done
    fuzz "$target" &
    running[$target]=$!
done
summary=
for target in "${targets[@]}"; do
    wait "${running[$target]}" || result=1
    log=$build/$target.log
    if compgen -G "$build/found/$target-*" >/dev/null; then
        result=1
        echo "fuzz_$target failed; see $log. Run it on:" >&2
        ls "$build/found/$target-"* >&2
    elif ! grep -q '^stat::number_of_executed_units' "$log"; then
        result=1
        echo "fuzz_$target failed; see $log" >&2
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    summary+=" $target ${executions:-0}"
done
echo "fuzz: executions in ${seconds} s each:$summary"
exit $result
