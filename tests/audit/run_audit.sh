#!/usr/bin/env bash
# Runs the catalogue of broken checkpoints against build/qstream; prints TAP. Arguments go to catalogue.py.
#
# QSTREAM names another binary for the audits.
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
exec build/venv/bin/python tests/audit/catalogue.py "$@"
