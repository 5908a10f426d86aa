#!/usr/bin/env bash
# Runs what concerns the Hub, all against the stand-in of this folder: first the stand-in itself, proven with the Hub's own
# client, over HTTP and over TLS; then qstream. Prints TAP; a check that is named runs alone: run_hub.sh check_faults.
#
# QSTREAM names another binary than build/qstream, HUB_CLIENT another program than build/unit/hub_client.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
python=build/venv/bin/python
export PYTHONDONTWRITEBYTECODE=1

bail() {
    echo "Bail out! $1"
    exit 1
}

[ -x "${QSTREAM:-build/qstream}" ] || bail "${QSTREAM:-build/qstream} is missing: run make"
tests/models/venv.sh || bail "the Python environment cannot be made"
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || bail "nginx is missing: run ./setup test"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
total=0 failed=0

# check NAME [OPTION]: its lines, numbered on; what it said on stderr follows when it failed.
check() {
    local name=$1 line status failed_before=$failed
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    {
        while IFS= read -r line; do
            case $line in
            1..*) ;;
            "ok "* | "not ok "*)
                total=$((total + 1))
                [[ $line == ok* ]] || failed=$((failed + 1))
                echo "${line%% [0-9]*} $total ${line#*[0-9] }"
                ;;
            *) echo "$line" ;;
            esac
        done
    } < <("$python" "tests/hub/$name.py" "${@:2}" 2>"$log")
    wait $!
    status=$?
    [ "$status" -eq 0 ] || {
        [ "$failed" -gt "$failed_before" ] || {
            total=$((total + 1)) failed=$((failed + 1))
            echo "not ok $total - $name ends with $status"
        }
        sed 's/^/# /' "$log"
    }
}

only=${1:-}
# What is looked at in full only, or when it is asked for: all over TLS, the harness, and what runs with sanitizers anyway.
full() { [ -z "${QSTREAM_TEST_FULL:-}$only" ] || check "$@"; }

check check_standin
full check_standin --tls
full check_harness
check check_network
full check_network --tls
check check_fetch
check check_fetch_output
check check_resume
check check_remote
check check_remote --tls inspect
full check_faults
check check_push
check check_push --tls "downloads every byte"
full check_quantize
check check_quantize_faults
echo "1..$total"
[ "$total" -gt 0 ] && [ "$failed" -eq 0 ]
