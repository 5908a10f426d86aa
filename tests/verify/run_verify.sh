#!/usr/bin/env bash
# Runs what proves `qstream verify`: figures against NumPy, unfinished folders, and damaged checkpoints. Prints TAP.
# Arguments go to corruption.py. QSTREAM names another binary, QSTREAM_TEST_SEED other weights and places for the damage.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
[ -x build/qstream ] || {
    echo "Bail out! build/qstream is missing: run make"
    exit 1
}
tests/models/venv.sh || {
    echo "Bail out! the Python environment cannot be made"
    exit 1
}
failed=0
build/venv/bin/python tests/verify/check_figures.py || failed=1
build/venv/bin/python tests/verify/check_unfinished.py || failed=1
# otherwise it runs with sanitizers only
[ -z "${QSTREAM_TEST_FULL:-}" ] || build/venv/bin/python tests/verify/corruption.py "$@" || failed=1
exit $failed
