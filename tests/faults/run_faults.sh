#!/usr/bin/env bash
# Makes each call that can fail do so (check_faults.py). Prints TAP. Arguments are passed on; --sanitized: a few faults of each
# kind in a program with AddressSanitizer and LeakSanitizer, from what 'make asan' compiled. QSTREAM names another binary.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
bail() {
    echo "Bail out! $1"
    exit 1
}
program=${QSTREAM:-build/qstream}
if [ "${1:-}" = --sanitized ]; then
    shift
    set -- --most 4 --some 1 --kind open read write malloc "$@"
    [ -e build/asan/libqstream.a ] || bail "build/asan is missing: run make asan"
    # With the shared runtime, so that the shim can come before it; the symbols of both are the same.
    program=build/faults/asan/qstream libraries="-ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread"
    [ "$(uname -m)" = x86_64 ] || libraries="-lopenblas $libraries"
    mkdir -p build/faults/asan
    # shellcheck disable=SC2086 # several flags
    clang -fsanitize=address,undefined -shared-libasan \
        "-Wl,-rpath,$(dirname "$(clang -print-file-name="libclang_rt.asan-$(uname -m).so")")" -o "$program" \
        build/asan/obj/qstream/main.o build/asan/obj/qstream/command_*.o build/asan/libqstream.a \
        $libraries || bail "the program cannot be linked"
fi
[ -x "$program" ] || bail "$program is missing: run make"
tests/models/venv.sh >&2 || bail "the Python environment cannot be made"
mkdir -p build/faults
shim=build/faults/fault_shim.so
# -O2: calls for memory are handed on as jumps, since LeakSanitizer tells by the caller what the loader keeps for itself
"${CC:-gcc}" -shared -fPIC -O2 -g -Wall -Wextra -Werror -o "$shim.$$" tests/faults/fault_shim.c -ldl -pthread ||
    bail "the shim cannot be compiled"
mv "$shim.$$" "$shim" # another run may be using it
exec build/venv/bin/python tests/faults/check_faults.py "$shim" "$program" "$@"
