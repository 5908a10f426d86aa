#!/usr/bin/env bats
# shellcheck disable=SC2154 # stderr and stderr_lines are bats'
# qstream report: what it takes and what it refuses. That its page shows it is seen in tests/browser.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
    prepare
    export IN=$BATS_FILE_TMPDIR
    "$PYTHON" -B "$ROOT/tests/models/make_checkpoint.py" --out "$IN/model" --layers 1 --shards 1
    "$QSTREAM" inspect "$IN/model" --json --quiet >"$IN/inspect.json"
    "$QSTREAM" audit "$IN/model" --json >"$IN/audit.json" || true
    echo '{"schema": "qstream.verify/2"}' >"$IN/newer.json"
    echo '{"schema": "qstream.inspect/1", "model": ' >"$IN/cut.json"
    printf '{"schema": "qstream.inspect/1", "schema": "qstream.audit/1"}' >"$IN/twice.json"
}

# refuses CODE WORD ARGUMENTS...: ends with the code and one line that has WORD; no page is left.
refuses() {
    local code=$1 word=$2
    shift 2
    rm -f "$BATS_TEST_TMPDIR/page.html"
    run --separate-stderr "$QSTREAM" report "$@"
    [[ $status -eq $code && -z $output && ${#stderr_lines[@]} -eq 1 && $stderr == "qstream: "*"$word"* ]] || {
        printf '%s: exit code %s: %s|%s\n' "$*" "$status" "$output" "$stderr" >&2
        return 1
    }
    [[ ! -e $BATS_TEST_TMPDIR/page.html ]]
}

@test "given parts in any order, then one page has them, the same on standard output" {
    "$QSTREAM" report "$IN/audit.json" "$IN/inspect.json" --html "$BATS_TEST_TMPDIR/page.html"
    "$QSTREAM" report "$IN/inspect.json" "$IN/audit.json" --html - | cmp - "$BATS_TEST_TMPDIR/page.html"
    [[ $(grep -c '<script id="data" type="application/json">{"inspect":{"schema":' "$BATS_TEST_TMPDIR/page.html") -eq 1 ]]
}

@test "given what is no part, then 3 and its name" {
    local page=$BATS_TEST_TMPDIR/page.html
    refuses 3 "newer.json" "$IN/newer.json" --html "$page"
    refuses 3 "cut.json' is no JSON" "$IN/cut.json" --html "$page"
    refuses 3 "twice.json' is no JSON" "$IN/twice.json" --html "$page"
    refuses 3 "none.json" "$IN/none.json" --html "$page"
    refuses 3 "config.json' is not what --json" "$IN/model/config.json" --html "$page"
}

@test "given a part twice, an audit alone, no part or no --html, then 2" {
    local page=$BATS_TEST_TMPDIR/page.html
    refuses 2 "there already" "$IN/inspect.json" "$IN/inspect.json" --html "$page"
    refuses 2 "inspect --json" "$IN/audit.json" --html "$page"
    refuses 2 "--help" --html "$page"
    refuses 2 "--help" "$IN/inspect.json"
}

@test "given a folder that is not there for the page, then 4" {
    refuses 4 "$BATS_TEST_TMPDIR/none" "$IN/inspect.json" --html "$BATS_TEST_TMPDIR/none/page.html"
}
