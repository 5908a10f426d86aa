#!/bin/sh
# Compares qstream with the real readers of checkpoints: makes their Python environment, then runs the comparisons. TAP.
# Arguments go to differential.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
sh "$here/venv.sh"
sh "$root/tests/models/venv.sh"
[ -x "${QSTREAM:-$root/build/qstream}" ] || { echo "run_readers.sh: build/qstream is missing: run make" >&2; exit 1; }
exec "$root/build/readers/bin/python" "$here/differential.py" "$@"
