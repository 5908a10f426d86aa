#!/usr/bin/env bash
# Makes small checkpoints, has build/qstream write their HTML reports, and has check_page.py use these and made-up ones
# in a headless Chromium. Prints TAP. QSTREAM names another binary.
set -uo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo" || exit 1
qstream=${QSTREAM:-build/qstream}
python=build/venv/bin/python
work=build/test/browser

bail() {
    echo "Bail out! $1"
    exit 1
}

# report NAME COMMAND OPTIONS...: work/NAME.html from the checkpoint work/NAME
reports=()
report() {
    local name=$1 command=$2 file=$work/$1-$2.html
    shift 2
    "$qstream" "$command" "$work/$name" "$@" --quiet --html "$file" >/dev/null || bail "qstream $command $name failed"
    reports+=("$file")
}

# checkpoint NAME RECIPE OPTIONS...: a checkpoint and what quantize makes of it, NAME-mxfp4
checkpoint() {
    local name=$1 recipe=$2
    shift 2
    rm -rf "${work:?}/$name" "$work/$name-mxfp4"
    "$python" tests/models/make_checkpoint.py --out "$work/$name" "$@" >&2 || bail "$name cannot be made"
    "$qstream" quantize "$work/$name" "$work/$name-mxfp4" --recipe "configs/$recipe.json" --quiet >&2 ||
        bail "$name cannot be quantized"
}

[ -x "$qstream" ] || bail "$qstream is missing: run make"
tests/models/venv.sh || bail "the Python environment cannot be made"
mkdir -p "$work"

checkpoint mistral mistral-medium-3.5-mxfp4 --layers 3 --shards 3 --split-scales --outliers --zeros
checkpoint qwen qwen3-moe-mxfp4 --arch qwen3_moe --layout fp8-block
report mistral inspect
report mistral-mxfp4 inspect --stats
report mistral-mxfp4 audit --fail-on error
report qwen inspect --stats
report qwen-mxfp4 audit --fail-on error

# verification NAME STATUS OPTIONS...: work/NAME-verify.html of what quantize made of work/NAME
verifications=()
verification() {
    local name=$1 wanted=$2 file=$work/$1-verify.html status=0
    shift 2
    "$qstream" verify "$work/$name" "$work/$name-mxfp4" "$@" --quiet --html "$file" >/dev/null || status=$?
    [ "$status" = "$wanted" ] || bail "qstream verify $name: exit code $status"
    verifications+=("$file")
}
verification mistral 0
verification qwen 1 --min-sqnr 90

# perplexities of random weights on random tokens, against the source and alone
"$python" -c 'import random; random.seed(1); print([random.randrange(256) for _ in range(300)])' >"$work/ids.json"
"$qstream" ppl "$work/mistral-mxfp4" --baseline "$work/mistral" --tokens "$work/ids.json" --window 64 --stride 16 \
    --expect 2 --html "$work/mistral-ppl.html" --quiet >/dev/null
[ $? = 1 ] || bail "qstream ppl did not miss an impossible figure"
"$qstream" ppl "$work/mistral" --tokens "$work/ids.json" --html "$work/mistral-ppl-plan.html" --dry-run >/dev/null ||
    bail "qstream ppl --dry-run failed"

# the four together
joined=$work/mistral-joined
"$qstream" inspect "$work/mistral-mxfp4" --json --quiet >"$joined-inspect.json" &&
    "$qstream" audit "$work/mistral-mxfp4" --json >"$joined-audit.json" &&
    "$qstream" verify "$work/mistral" "$work/mistral-mxfp4" --json --quiet >"$joined-verify.json" &&
    "$qstream" ppl "$work/mistral-mxfp4" --baseline "$work/mistral" --tokens "$work/ids.json" --window 64 --stride 16 --json \
        --quiet >"$joined-ppl.json" &&
    "$qstream" report "$joined"-*.json --html "$joined.html" || bail "qstream report failed"

failed=0
"$python" tests/browser/check_report.py "$joined" || failed=1
"$python" tests/browser/check_page.py "${reports[@]}" || failed=1
"$python" tests/browser/check_verify.py "${verifications[@]}" || failed=1
"$python" tests/browser/check_ppl.py "$work/mistral-ppl.html" "$work/mistral-ppl-plan.html" || failed=1
exit $failed
