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

targets=(safetensors json_text recipe journal checkpoint audit verify pair server tokenizer parquet hub)
seconds=${1:-45}
case $seconds in
'' | 0 | *[!0-9]*)
    echo "usage: tests/fuzz/run.sh [SECONDS_PER_TARGET]" >&2
    exit 2
    ;;
esac

clang=${CLANG:-clang}
if ! command -v "$clang" >/dev/null; then
    echo "fuzz: '$clang' was not found; install clang and libclang-rt-dev, or set CLANG" >&2
    exit 1
fi
# shellcheck disable=SC2054 # the commas belong to the options
flags=(-std=c17 -D_GNU_SOURCE -I. -O1 -g -fno-omit-frame-pointer -ffp-contract=off -fno-strict-aliasing -pthread
    -fsanitize=address,undefined -fno-sanitize-recover=undefined)
libraries=(-ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread)
[ "$(uname -m)" = x86_64 ] || libraries+=(-lopenblas)

# The library's objects are instrumented once; the files of an instruction set get its flags, as in the Makefile.
compile() { # SOURCE OBJECT
    local extra=()
    if [[ $("$clang" -dumpmachine) == x86_64* ]]; then
        case $1 in
        *_avx2.c) extra=(-mavx2 -mfma -mbmi2 -mf16c) ;;
        *_avx512.c) extra=(-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx2 -mfma -mbmi2 -mf16c) ;;
        esac
    fi
    "$clang" "${flags[@]}" "${extra[@]}" -fsanitize=fuzzer-no-link -c -o "$2" "$1"
}

mkdir -p "$build/obj" "$build/found" "$build/corpus"
newest=$(find common qstream inspect verify infer tests/fuzz -name '*.[ch]' -newer "$build/stamp" -print -quit 2>/dev/null || echo all)
if [ -n "$newest" ] || [ ! -e "$build/stamp" ]; then
    echo "fuzz: building"
    objects=()
    for source in common/*.c common/hub/*.c qstream/*.c inspect/*.c verify/*.c infer/*.c infer/*/*.c tests/fuzz/fuzz.c; do
        case $source in
        qstream/main.c | qstream/command_*.c) continue ;; # programs, not library
        inspect/page.c | verify/verify_page.c | infer/report/ppl_files.c) continue ;; # need the pages that make builds in
        esac
        object=$build/obj/${source//\//-}.o
        objects+=("$object")
        compile "$source" "$object"
    done
    for target in "${targets[@]}"; do
        compile "tests/fuzz/fuzz_$target.c" "$build/obj/fuzz_$target.o"
        "$clang" "${flags[@]}" -fsanitize=fuzzer -o "$build/fuzz_$target" "$build/obj/fuzz_$target.o" "${objects[@]}" \
            "${libraries[@]}"
    done
    touch "$build/stamp"
fi

# Runs one target; its log tells the rest.
fuzz() {
    local target=$1
    mkdir -p "$build/corpus/$target"
    rm -f "$build/found/$target-"*
    # Leaks are looked for after each input that leaves more allocations than it found, and at the end.
    "$build/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
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
