#!/usr/bin/env bats
# Memory does not grow with the model: one layer of the reference model's true shapes, and a gigabyte of fused experts,
# within --memory, under a limit that the kernel enforces on the address space (program, libraries and stacks included).
#
# The first run makes the checkpoints, some 3 GB below build/cli; they stay there.

load helper

MIB=$((1 << 20))

setup_file() {
    prepare
    if [[ ! -e $BUILD/sources/.large && $(df --output=avail -B1 "$BUILD" | tail -1) -lt $((8 << 30)) ]]; then
        export TOO_SMALL="less than 8 GB are free below $BUILD"
        return
    fi
    source_checkpoint "${LAYER[@]}" >/dev/null
    source_checkpoint "${EXPERTS[@]}" >/dev/null
    touch "$BUILD/sources/.large"
}
LAYER=(--hidden 12288 --mlp 28672 --layers 1 --heads 96 --kv-heads 8 --head-dim 128)
EXPERTS=(--arch qwen3_moe --layout bf16 --fused qwen3_vl --hidden 2048 --mlp 1024 --experts 128 --layers 1 --heads 4
    --kv-heads 1 --head-dim 128 --vocab 256)

setup() {
    if [[ -n $TOO_SMALL ]]; then
        skip "$TOO_SMALL"
    fi
    fresh
    DST=$BUILD/large-output # not in /tmp, which may be memory
    rm -rf "$DST"
}
teardown() { rm -rf "$BUILD/large-output"; }

# within MIB-OF-ADDRESS-SPACE MIB-RESIDENT OPTIONS...: quantizes under the limit and looks at what it really took.
within() {
    local space=$1 resident=$2 peak
    shift 2
    rm -rf "$DST"
    run prlimit --as=$((space * MIB)) --core=0 /usr/bin/time -f 'peak %M' \
        "$QSTREAM" quantize "$SRC" "$DST" --recipe "$RECIPE" --quiet "$@"
    exits 0
    peak=$(($(sed -n 's/^peak //p' <<<"$output") / 1024))
    echo "# $*: peak ${peak} MiB" >&3
    ((peak <= resident)) || { echo "peak of $peak MiB, more than $resident"; return 1; }
}

digests() { jq -S '.files | map({name, sha256})' "$DST/qstream.json"; }

@test "given a layer of the reference model, when quantized with --memory 256MiB and 16 workers, then 256 MiB suffice" {
    RECIPE=mistral-medium-3.5-mxfp4
    SRC=$(source_checkpoint "${LAYER[@]}")
    [[ $(folder_bytes "$SRC") -gt 1200000000 ]]
    # far less is resident: 16 workers with tiles of a megabyte. Without tiles the smallest weight alone takes 12 MiB,
    # the largest 336.
    within 256 100 --memory 256MiB --jobs 16
    digests >"$BATS_FILE_TMPDIR/layer"
}

@test "given a layer of the reference model, when quantized with --memory 64MiB, then they suffice; the bytes are the same" {
    RECIPE=mistral-medium-3.5-mxfp4
    SRC=$(source_checkpoint "${LAYER[@]}")
    # address space that is never touched, above all of the thread stacks, comes on top
    within 72 64 --memory 64MiB --jobs 16
    digests | diff "$BATS_FILE_TMPDIR/layer" -
}

@test "given a gigabyte of fused experts, stored transposed, when quantized, then 256 MiB suffice, and 64 MiB too" {
    RECIPE=qwen3-moe-mxfp4
    SRC=$(source_checkpoint "${EXPERTS[@]}")
    [[ $(folder_bytes "$SRC") -gt 1000000000 ]]
    within 256 128 --memory 256MiB --jobs 8
    digests >"$BATS_FILE_TMPDIR/experts"
    within 72 64 --memory 64MiB --jobs 8
    digests | diff "$BATS_FILE_TMPDIR/experts" -
}

@test "given less memory than one worker needs, then the least that would do is said, and that does" {
    local least
    RECIPE=mistral-medium-3.5-mxfp4
    SRC=$(source_checkpoint "${LAYER[@]}")
    refuses 2 "--memory" "at least" -- --memory 10MiB
    least=$(sed -n 's/.*at least \([0-9]*\)MiB.*/\1/p' <<<"$output")
    ((least > 0 && least < 64))
    rm -rf "$DST"
    within 72 $((least + 1)) --memory "${least}MiB" --cpu portable --rule amax
}

starved() { # BYTES; 127, which bats takes for a missing command, becomes 4
    local code=0
    prlimit --as="$1" --core=0 "$QSTREAM" quantize "$SRC" "$DST" --recipe "$RECIPE" --quiet --jobs 4 || code=$?
    return $((code == 127 ? 4 : code))
}

@test "given too little memory after all, whatever it is, then the run succeeds or says so, and never crashes" {
    local space refused=0
    SRC=$(source_checkpoint --layout fp8-tensor "${TINY[@]}")
    for ((space = 8 << 10; space <= 40 << 10; space += 512)); do
        rm -rf "$DST"
        run starved $((space << 10))
        [[ $output == *"shared libraries"* || $output == *"shared object"* || $output == *"for initial thread"* ]] && continue # not even the program fits
        if [[ $status -ne 0 ]]; then
            exits 4 || { echo "with $space KiB"; false; }
            says "qstream: "
            not_published
            refused=$((refused + 1))
        fi
    done
    [[ $status -eq 0 && $refused -gt 0 ]]
}
