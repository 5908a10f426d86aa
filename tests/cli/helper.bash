# shellcheck shell=bash disable=SC2034,SC2154 # variables of bats and of the tests
#
# What the tests of the command line share. Load it with `load helper`; run bats from anywhere.
#
#   source_checkpoint OPTIONS...    makes a synthetic checkpoint (tests/models/make_checkpoint.py), once for each set of
#                                   options, and prints its folder: read only, copy it before changing it
#   quantize ARGUMENTS...           runs `qstream quantize SRC DST --recipe RECIPE ARGUMENTS...` with SRC, DST and RECIPE as
#                                   the test has set them
#   with_shim NAME=VALUE... -- COMMAND...   runs a command with an accident (crash_shim.c)
#   often N                         how many tries
#
# QSTREAM names another binary than build/qstream, QSTREAM_TEST_SEED another seed for what is random.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$ROOT/build/cli
QSTREAM=$(realpath -m "${QSTREAM:-$ROOT/build/qstream}")
PYTHON=$ROOT/build/venv/bin/python
SHIM=$BUILD/crash_shim.so
SEED=${QSTREAM_TEST_SEED:-1}
export LC_ALL=C.UTF-8

# In every setup_file: the binary, the Python environment and the shim.
prepare() {
    [[ -x $QSTREAM ]] || { echo "$QSTREAM is missing: run make" >&2; return 1; }
    mkdir -p "$BUILD/sources"
    sh "$ROOT/tests/models/venv.sh"
    (
        flock 9
        if [[ ! $SHIM -nt $ROOT/tests/cli/crash_shim.c ]]; then
            "${CC:-gcc}" -shared -fPIC -O1 -g -Wall -Wextra -Werror -o "$SHIM.new" "$ROOT/tests/cli/crash_shim.c" -ldl -pthread
            mv "$SHIM.new" "$SHIM"
        fi
    ) 9>"$BUILD/.lock"
}

# often N: how many times something is tried that happens at random: N times, a third of that without QSTREAM_TEST_FULL.
often() { if [[ ${QSTREAM_TEST_FULL:-} ]]; then echo "$1"; else echo $((($1 + 2) / 3)); fi; }

# In every setup: an empty place, and the usual recipe.
fresh() {
    DST=$BATS_TEST_TMPDIR/out
    RECIPE=llama-mxfp4
}

source_checkpoint() {
    local maker=$ROOT/tests/models/make_checkpoint.py name
    name=$(printf '%s ' "$@" "$(stat -c %Y "$ROOT"/tests/models/*.py | tr '\n' ' ')" | sha256sum | cut -c1-16)
    (
        flock 9
        [[ -e $BUILD/sources/$name/config.json ]] || "$PYTHON" "$maker" --out "$BUILD/sources/$name" "$@" >&2
    ) 9>"$BUILD/.lock"
    echo "$BUILD/sources/$name"
}

# The smallest checkpoint that has everything: dense, one layer, one shard, 200 KB.
TINY=(--arch llama --hidden 64 --mlp 128 --layers 1 --heads 2 --kv-heads 1 --head-dim 32 --vocab 64)

# A copy of a checkpoint that the test may change: SRC.
own_source() {
    SRC=$BATS_TEST_TMPDIR/source
    rm -rf "$SRC"
    cp -r "$(source_checkpoint "$@")" "$SRC"
}

# edit_source 'PYTHON': changes SRC; see edit_checkpoint.py for the names it may use.
edit_source() { "$PYTHON" -S "$ROOT/tests/cli/edit_checkpoint.py" "$SRC" "$1"; }

quantize() { "$QSTREAM" quantize "$SRC" "$DST" --recipe "$RECIPE" "$@"; }

with_shim() {
    local settings=(SHIM_OUTPUT="$DST" SHIM_SOURCE="$SRC")
    while [[ $1 != -- ]]; do
        settings+=("$1")
        shift
    done
    shift
    if [[ $(type -t "$1") == function ]]; then # quantize
        (export "${settings[@]}" LD_PRELOAD="$SHIM"; "$@")
    else
        env "${settings[@]}" LD_PRELOAD="$SHIM" "$@"
    fi
}

# same_folders A B: every file of one is in the other, with the same bytes.
same_folders() {
    diff -r "$1" "$2" >&2 || { echo "the folders $1 and $2 differ" >&2; return 1; }
}

# The source's name and its files' times stand in these two, so folders made from copies differ in them and in nothing else.
same_weights() { diff -r -x qstream.json -x README.md "$1" "$2" >&2; }

# `! command` never fails a test; this does.
not() {
    if "$@"; then
        echo "unexpectedly fine: $*" >&2
        return 1
    fi
}

not_published() { [[ ! -e $DST/config.json ]] || { echo "$DST looks finished" >&2; return 1; }; }

# An independent reading of DST: every tensor, byte, config group and file (tests/clients/check_output.py).
output_is_right() {
    "$PYTHON" "$ROOT/tests/clients/check_output.py" "$SRC" "$DST" "$@" >"$BATS_TEST_TMPDIR/check" 2>&1 || {
        grep -v '^ok' "$BATS_TEST_TMPDIR/check" >&2
        return 1
    }
}

folder_bytes() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d\n", sum }'; }

# says WORD...: the output of the last `run` has each of these, case-sensitive, as plain text.
says() {
    local word
    for word in "$@"; do
        [[ $output == *"$word"* ]] || { printf 'expected "%s" in: %s\n' "$word" "$output" >&2; return 1; }
    done
}

# exits CODE: the last `run` ended with it.
exits() {
    [[ $status -eq $1 ]] || { printf 'exit code %s, expected %s: %s\n' "$status" "$1" "$output" >&2; return 1; }
}

# refuses CODE WORD... [-- ARGUMENTS...]: quantize ends with CODE, says the WORDs in one line "qstream: ...", writes nothing
# that looks finished.
refuses() {
    local code=$1 words=()
    shift
    while [[ $# -gt 0 && $1 != -- ]]; do
        words+=("$1")
        shift
    done
    [[ $# -gt 0 ]] && shift
    run quantize --quiet "$@"
    exits "$code" && says "qstream: " "${words[@]}" && not_published || return 1
    [[ ${#lines[@]} -eq 1 ]] || { echo "more than one line: $output" >&2; return 1; }
}
