#!/bin/sh
# The arm64 binary, under emulation, makes the same bytes as the native one, for each rule and from each side of the
# FP8 and BF16 paths, and verifies them with the same figures to the bit.
set -eu
cd "$(dirname "$0")/.."
work=build/test/arm64
rm -rf "$work"
mkdir -p "$work"
for layout in fp8-tensor bf16 fp8-block; do
    build/venv/bin/python tests/models/make_checkpoint.py --out "$work/$layout" --layout "$layout" --arch mistral3 \
        --outliers --zeros
    for rule in amax mse qstream; do
        build/qstream quantize "$work/$layout" "$work/native" --recipe mistral-medium-3.5-mxfp4 --rule $rule --quiet
        qemu-aarch64 build/arm64/qstream \
            quantize "$work/$layout" "$work/arm64" --recipe configs/mistral-medium-3.5-mxfp4.json --rule $rule --quiet
        diff -r "$work/native" "$work/arm64"
        build/qstream verify "$work/$layout" "$work/native" --json --quiet >"$work/native.json"
        qemu-aarch64 build/arm64/qstream verify "$work/$layout" "$work/native" --json --quiet >"$work/arm64.json"
        cmp "$work/native.json" "$work/arm64.json"
        rm -rf "$work/native" "$work/arm64"
    done
done
