#!/bin/sh
# Compares qstream with the real readers of checkpoints: makes their Python environment, then runs the comparisons. TAP.
# Arguments go to differential.py, which compares with vLLM; transformers_check.py compares with transformers, sample_check.py the sample with all.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
sh "$here/venv.sh"
sh "$root/tests/models/venv.sh"
[ -x "${QSTREAM:-$root/build/qstream}" ] || { echo "run_readers.sh: build/qstream is missing: run make" >&2; exit 1; }
status=0
"$root/build/readers-transformers/bin/python" "$here/sample_check.py" || status=1
"$root/build/readers/bin/python" "$here/differential.py" "$@" || status=1
"$root/build/readers-transformers/bin/python" "$here/transformers_check.py" || status=1
exit $status
