#!/bin/sh
# What 'make demo' runs: makes the sample model in the source's layout and quantizes it.
set -eu
cd "$(dirname "$0")/.."

model=build/models/smollm2-fp8
output=build/demo/smollm2-mxfp4

echo "== the sample model: SmolLM2-135M-Instruct in Mistral-Medium-3.5's FP8 layout =="
tests/models/venv.sh
build/venv/bin/python tests/models/make_sample.py --out build/models
ls -l "$model" | awk 'NR > 1 {printf "%12d  %s\n", $5, $NF}'

echo
echo "== qstream quantize $model $output --recipe mistral-medium-3.5-mxfp4 =="
rm -rf "$output"
build/qstream quantize "$model" "$output" --recipe mistral-medium-3.5-mxfp4

echo
echo "== $output =="
ls -l "$output" | awk 'NR > 1 {printf "%12d  %s\n", $5, $NF}'

echo
echo "== qstream inspect $output --by format =="
build/qstream inspect "$output" --by format

echo
echo "== qstream audit $output =="
build/qstream audit "$output"
