#!/usr/bin/env bash
# Perplexity and generation with --device cuda, on the plug-in under the execution model: check_cuda.py, and some of the suite
# that compares the engine with NumPy. Prints TAP. Arguments go to check_cuda.py.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
bail() {
    echo "Bail out! $1"
    exit 1
}
export QSTREAM=${QSTREAM:-build/cuda-model/qstream} PYTHONDONTWRITEBYTECODE=1
[ -x "$QSTREAM" ] || bail "$QSTREAM is missing: run make cuda-model"
tests/models/venv.sh || bail "the Python environment cannot be made"
[ -e build/models/smollm2-bf16/tokenizer.json ] ||
    build/venv/bin/python tests/models/make_sample.py --out build/models >&2 || bail "the sample model cannot be made"
status=0
build/venv/bin/python tests/cuda/check_cuda.py "$@" || status=1
# what goes through the device; that files are refused is the CPU's to test
for part in "NumPy's" "golden ministral3"; do
    build/venv/bin/python tests/infer/check_infer.py --quick --device cuda --only "$part" || status=1
done
exit $status
