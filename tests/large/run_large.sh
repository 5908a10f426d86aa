#!/bin/bash
# Checkpoints larger than any disk here, as holes with true headers, under a limit of memory. Prints TAP.
# Arguments are words: only cases with one of them in their names run.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
[ -x build/qstream ] || {
    echo "Bail out! build/qstream is missing: run make"
    exit 1
}
tests/models/venv.sh || {
    echo "Bail out! the Python environment cannot be made"
    exit 1
}
exec build/venv/bin/python tests/large/check_large.py "$@"
