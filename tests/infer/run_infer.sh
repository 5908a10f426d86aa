#!/usr/bin/env bash
# The engine behind 'qstream ppl' against NumPy, the golden figures, bad models and small memory. Prints TAP.
# QSTREAM names another binary; arguments go to check_infer.py.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
bail() {
    echo "Bail out! $1"
    exit 1
}
[ -x "${QSTREAM:-build/qstream}" ] || bail "${QSTREAM:-build/qstream} is missing: run make"
tests/models/venv.sh || bail "the Python environment cannot be made"
[ -e build/models/smollm2-bf16/tokenizer.json ] ||
    build/venv/bin/python tests/models/make_sample.py --out build/models >&2 || bail "the sample model cannot be made"
PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 exec build/venv/bin/python tests/infer/check_infer.py "$@"
