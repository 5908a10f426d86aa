#!/usr/bin/env bash
# Compares `infer/tokenizer` with Hugging Face's tokenizers and mistral-common (check_tokenizer.py). Prints TAP.
# Arguments go to check_tokenizer.py. BUILD names another folder than build whose library is tested, CFLAGS the flags
# that it was compiled with, QSTREAM_TEST_SEED other random texts.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
build=${BUILD:-build}
bail() {
    echo "Bail out! $1"
    exit 1
}
[ -e "$build/libqstream.a" ] || bail "$build/libqstream.a is missing: run make"
tests/models/venv.sh || bail "the Python environment cannot be made"
[ -e build/models/smollm2-bf16/tokenizer.json ] ||
    build/venv/bin/python tests/models/make_sample.py --out build/models >&2 || bail "the sample model cannot be made"
mkdir -p "$build/tokenizer"
# shellcheck disable=SC2086 # several flags
"${CC:-gcc}" -std=c17 -D_GNU_SOURCE -I. ${CFLAGS:--O2 -g} -o "$build/tokenizer/batch" tests/tokenizer/batch.c \
    "$build/libqstream.a" -ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread ||
    bail "batch.c cannot be compiled"
exec build/venv/bin/python tests/tokenizer/check_tokenizer.py "$build/tokenizer/batch" "$@"
