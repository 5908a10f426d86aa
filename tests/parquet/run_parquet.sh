#!/usr/bin/env bash
# Compares common/parquet with pyarrow, and makes WikiText-2's text of the Hub's file (check_parquet.py). Prints TAP.
# Arguments go to check_parquet.py. BUILD names another folder than build whose library is tested, CFLAGS the flags
# that it was compiled with, SHARED another one than ../shared.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
build=${BUILD:-build}
bail() {
    echo "Bail out! $1"
    exit 1
}
[ -e "$build/libqstream.a" ] || bail "$build/libqstream.a is missing: run make"
tests/parquet/venv.sh >&2 || bail "the Python environment cannot be made"
mkdir -p "$build/parquet"
# shellcheck disable=SC2086 # several flags
"${CC:-gcc}" -std=c17 -D_GNU_SOURCE -I. ${CFLAGS:--O2 -g} -o "$build/parquet/rows" tests/parquet/rows.c \
    "$build/libqstream.a" -ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread || bail "rows.c cannot be compiled"
exec build/pyarrow/bin/python tests/parquet/check_parquet.py "$build/parquet/rows" "$@"
