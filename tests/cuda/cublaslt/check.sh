#!/usr/bin/env bash
# Compares cublasLt.h beside this file with the real one, where a toolkit has it. Prints TAP.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
echo 1..1
toolkit=$("$here/../toolkit.sh" find)
real=$(find -L "${toolkit:-/nonexistent}" -name cublasLt.h -print -quit 2>/dev/null)
if [ -z "$real" ]; then
    echo "ok 1 - cublasLt.h # SKIP no cuBLAS here"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    echo '#include <cublasLt.h>'
    echo '#include <cstdio>'
    echo 'int main() {'
    grep -o 'CUBLAS[A-Z0-9_]* = ' "$here/cublasLt.h" | sed 's/\(.*\) = /    printf("\1 %d\\n", (int)\1);/'
    for member in algo workspaceSize state wavesCount; do
        printf '    printf("%s %%zu\\n", offsetof(cublasLtMatmulHeuristicResult_t, %s));\n' "$member" "$member"
    done
    printf '%s\n' '    printf("%zu %zu\n", sizeof(cublasLtMatmulAlgo_t), sizeof(cublasLtMatmulHeuristicResult_t));'
    echo '}'
} >"$work/values.cc"
include=$(dirname "$real")
for header in own real; do
    where=$include
    [ $header = real ] || where=$here
    "${CXX:-g++}" -I"$where" -I"$include" -I"$include/cccl" -w -o "$work/$header" "$work/values.cc" && "$work/$header" >"$work/$header.txt" ||
        echo "# $header does not compile"
done
if [ -s "$work/real.txt" ] && cmp -s "$work/own.txt" "$work/real.txt"; then
    echo "ok 1 - cublasLt.h has the values and layouts of $real"
else
    echo "not ok 1 - cublasLt.h has the values and layouts of $real"
    diff "$work/own.txt" "$work/real.txt" | sed 's/^/# /'
    exit 1
fi
