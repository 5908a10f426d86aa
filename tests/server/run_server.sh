#!/usr/bin/env bash
# Runs what proves `qstream ppl --server`, against a stand-in for the server. Prints TAP. QSTREAM names another binary.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.." || exit 1
[ -x "${QSTREAM:-build/qstream}" ] || {
    echo "Bail out! ${QSTREAM:-build/qstream} is missing: run make"
    exit 1
}
PYTHONDONTWRITEBYTECODE=1 exec python3 tests/server/check_server.py
