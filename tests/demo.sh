#!/bin/sh
# What 'make demo' runs, the whole story on the sample model: quantize, inspect, audit, verify, perplexity, one report.
# WikiText-2 is fetched where the Hub answers; else the documentation of this project is the text, and it is said.
set -eu
cd "$(dirname "$0")/.."

model=build/models/smollm2-fp8
output=build/demo/smollm2-mxfp4
told=build/demo/told
page=build/demo/report.html
mkdir -p "$told"

run() {
    echo
    echo "\$ $*"
    "$@"
}

# json NAME COMMAND...: its --json for the report; what it prints without is shown.
json() {
    name=$1
    shift
    run "$@"
    "$@" --json >"$told/$name.json"
}

echo "== the sample model: SmolLM2-135M-Instruct in Mistral-Medium-3.5's FP8 layout =="
tests/models/venv.sh
build/venv/bin/python tests/models/make_sample.py --out build/models
ls -l "$model" | awk 'NR > 1 {printf "%12d  %s\n", $5, $NF}'

rm -rf "$output"
run build/qstream quantize "$model" "$output" --recipe mistral-medium-3.5-mxfp4
run ls "$output"
json inspect build/qstream inspect "$output" --by format
json audit build/qstream audit "$output"
json verify build/qstream verify "$model" "$output" --quiet

text=build/demo/wiki.test.raw
if [ -e ../shared/data/wikitext-2-raw/wiki.test.raw ]; then
    text=../shared/data/wikitext-2-raw/wiki.test.raw
elif [ ! -e "$text" ] && ! build/qstream fetch --dataset wikitext-2 --to "$text" --quiet 2>/dev/null; then
    text=build/demo/documentation.txt
    cat docs/*.md >"$text"
    echo
    echo "WikiText-2 could not be fetched: perplexity is measured on the documentation of qstream instead."
fi
json ppl build/qstream ppl "$output" --baseline "$model" --text "$text" --window 1024 --windows 1 --quiet

run build/qstream report "$told/inspect.json" "$told/audit.json" "$told/verify.json" "$told/ppl.json" --html "$page"
echo
echo "The report is in $page: open it in a browser."
