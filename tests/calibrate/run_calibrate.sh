#!/usr/bin/env bash
# Calibrated rounding: single weights against GPTQ in float64 (check_round.py), then the command (check_calibrate.py). Prints
# TAP. --quick: less of both, for binaries with sanitizers. BUILD names another folder than build whose library is tested,
# CFLAGS the flags that it was compiled with, QSTREAM another binary.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
build=${BUILD:-build} python=build/venv/bin/python
bail() {
    echo "Bail out! $1"
    exit 1
}
[ -e "$build/libqstream.a" ] || bail "$build/libqstream.a is missing: run make"
tests/models/venv.sh >&2 || bail "the Python environment cannot be made"
mkdir -p "$build/calibrate"
libraries="-ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread"
[ "$(uname -m)" = x86_64 ] || libraries="-lopenblas $libraries"
# shellcheck disable=SC2086 # several flags
"${CC:-gcc}" -std=c17 -D_GNU_SOURCE -I. ${CFLAGS:--O2 -g} -o "$build/calibrate/round" tests/calibrate/round.c \
    "$build/libqstream.a" $libraries || bail "round.c cannot be compiled"
number=0 failed=0
# The lines of a check, numbered on.
numbered() {
    local line
    while IFS= read -r line; do
        case $line in
        1..*) ;;
        "ok "* | "not ok "*)
            number=$((number + 1))
            [[ $line == ok* ]] || failed=1
            echo "${line%% [0-9]*} $number ${line#*[0-9] }"
            ;;
        *) echo "$line" ;;
        esac
    done
}
numbered < <("$python" tests/calibrate/check_round.py "$build/calibrate/round" "$@" || echo "not ok 0 - check_round.py ended")
numbered < <("$python" tests/calibrate/check_calibrate.py "${QSTREAM:-build/qstream}" "$@" || echo "not ok 0 - check_calibrate.py ended")
echo "1..$number"
exit $failed
