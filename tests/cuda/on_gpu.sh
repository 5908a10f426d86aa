#!/usr/bin/env bash
# Checks the CUDA plug-in on a machine with a GPU and measures it. After `make && make cuda`:
#
#   tests/cuda/on_gpu.sh                     everything; the report is cuda-report.json
#   tests/cuda/on_gpu.sh --checkpoint DIR    also measures this checkpoint's generation and perplexity, and a baseline's with
#                                            --baseline DIR
#   tests/cuda/on_gpu.sh --model             the same against the emulated plug-in, without a GPU: how this script is tested
#
# Prints TAP; the exit code is 1 when anything failed. Please attach the report to what you write about the run.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
tests/models/venv.sh || {
    echo "Bail out! the Python environment cannot be made"
    exit 1
}
PYTHONDONTWRITEBYTECODE=1 exec build/venv/bin/python tests/cuda/on_gpu.py "$@"
