#!/usr/bin/env bash
# Runs what proves the files of cluster/. Prints TAP. QSTREAM names another binary.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.." || exit 1
[ -x "${QSTREAM:-build/qstream}" ] || {
    echo "Bail out! ${QSTREAM:-build/qstream} is missing: run make"
    exit 1
}
sh tests/models/venv.sh || exit 1
PYTHONDONTWRITEBYTECODE=1 exec build/venv/bin/python tests/cluster/check_cluster.py
