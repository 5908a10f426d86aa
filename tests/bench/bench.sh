#!/bin/bash
# Speed of 'qstream quantize', 'qstream verify' and 'qstream inspect --stats' against this machine's own limits, on one
# layer of the reference model's true shapes.
#
#   tests/bench/bench.sh [--json] [--repeat N] [--rules "mse amax"] [--small]
#
# --repeat N   measured rounds (default 3, after one that warms up); in each round every command runs once, so that
#              commands that are compared take turns
# --small      a layer a hundred times smaller: tries the script, not the machine
#
# It needs what 'make' builds, coreutils, gcc, and the tests' Python environment. Everything it makes lies in
# build/bench (the layer is kept for the next run) and in a folder of /dev/shm that it removes.
# What is run and what the columns mean stands above each table (summarize.py).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build}
bench=$build/bench
repeat=3
json=
rules="amax mse qstream"
small=
while [ $# -gt 0 ]; do
    case $1 in
    --json) json=--json ;;
    --small) small=1 ;;
    --repeat) repeat=${2:?--repeat takes a number}; shift ;;
    --rules) rules=${2:?--rules takes words}; shift ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
say() { echo "bench: $*" >&2; }

qstream=$build/qstream
[ -x "$qstream" ] || { say "$qstream is not there: run make first"; exit 1; }
mkdir -p "$bench"
"$root/tests/models/venv.sh"
python=$build/venv/bin/python

# ---- programs ----
compiler=${CC:-gcc}
"$compiler" -O2 -std=c17 -D_GNU_SOURCE -o "$bench/measure" "$here/measure.c"
"$compiler" -O2 -std=c17 -D_GNU_SOURCE -pthread -o "$bench/memcpy" "$here/memcpy.c"
"$compiler" -O2 -std=c17 -D_GNU_SOURCE -I"$root" -pthread -o "$bench/kernels" "$here/kernels.c" \
    "$build/libqstream.a" -ljansson -lcrypto -lpcre2-8 -lz -lm -ldl -pthread

# ---- the layer ----
free_mb() { # FOLDER
    df --output=avail -B 1000000 "$1" | tail -1 | tr -d ' '
}
if [ -n "$small" ]; then
    shape=(--hidden 1536 --mlp 3584 --layers 1 --heads 12 --kv-heads 1 --head-dim 128)
    mlp_elements=$((3 * 1536 * 3584))
    prefix=small-
    shm_mb=100 disk_mb=200 bf16_mb=200
else
    shape=(--hidden 12288 --mlp 28672 --layers 1 --heads 96 --kv-heads 8 --head-dim 128)
    mlp_elements=$((3 * 12288 * 28672))
    prefix=
    shm_mb=4000 disk_mb=8000 bf16_mb=14000
fi
layer_make() { # LAYOUT
    local folder=$bench/$prefix$1
    if [ ! -e "$folder.complete" ]; then
        say "making $folder"
        rm -rf "$folder"
        "$python" "$root/tests/models/make_checkpoint.py" --layout "$1" "${shape[@]}" --out "$folder" >&2
        sync -f "$folder"
        touch "$folder.complete"
    fi
}
layouts=()
if [ -e "$bench/${prefix}fp8-tensor.complete" ] || [ "$(free_mb "$bench")" -ge $((disk_mb / 2)) ]; then
    layer_make fp8-tensor
    layouts+=(fp8-tensor)
else
    say "skipped: no $((disk_mb / 2)) MB free in $bench for the layer"
fi
if [ -e "$bench/${prefix}bf16.complete" ] || [ "$(free_mb "$bench")" -ge $bf16_mb ]; then
    layer_make bf16
    layouts+=(bf16)
else
    say "skipped: the BF16 layer, no $bf16_mb MB free in $bench"
fi

# ---- measuring ----
samples=$bench/samples.tsv
: >"$samples"
note() { # KEY VALUE
    printf '#\t%s\t%s\n' "$1" "$2" >>"$samples"
}
note cores "$(nproc)"
note mlp_elements "$mlp_elements"
note repeat "$repeat"
note cpu "$("$qstream" version | tail -n +2 | tr '\n' ';')"
folder_bytes() {
    local sum=0 size
    for size in $(stat -c %s "$1"/*); do sum=$((sum + size)); done
    echo "$sum"
}
recipe=$root/configs/mistral-medium-3.5-mxfp4.json
quantize=("$qstream" quantize --recipe "$recipe" --memory 4GiB --quiet)

memory=
cleanup() {
    if [ -n "$memory" ]; then rm -rf "$memory"; fi
    rm -rf "$bench/out" "$bench/copy" "$bench/reference"
}
trap cleanup EXIT

# Runs a command once per round; the round 'warm' is not recorded.
sample() { # ROUND LABEL COMMAND...
    local file=$samples
    [ "$1" = warm ] && file=/dev/null
    "$bench/measure" "$file" "$2" "${@:3}"
}

warm_cache() { # SOURCE
    cat "$1"/* >/dev/null
}

if [ -d /dev/shm ] && [ "$(free_mb /dev/shm)" -ge $shm_mb ]; then
    memory=$(mktemp -d /dev/shm/qstream-bench-XXXXXX)
    for layout in "${layouts[@]}"; do
        source=$bench/$prefix$layout
        note "source_bytes $layout" "$(folder_bytes "$source")"
        warm_cache "$source"
        for round in warm $(seq "$repeat"); do
            say "memory, $layout, round $round"
            for rule in $rules; do
                sample "$round" "tmpfs|$layout|$rule" "${quantize[@]}" --rule "$rule" "$source" "$memory/out"
                [ "$round" = warm ] && note "output_bytes $layout" "$(folder_bytes "$memory/out")"
                rm -rf "$memory/out"
            done
        done
    done
else
    say "skipped: page cache to tmpfs, /dev/shm has less than $shm_mb MB free"
fi

layout=fp8-tensor
source=$bench/$prefix$layout
export source bench
rm -rf "$bench/reference"
if [ -e "$source.complete" ] && [ "$(free_mb "$bench")" -ge $disk_mb ]; then
    rule=${rules%% *}
    case " $rules " in *" mse "*) rule=mse ;; esac
    warm_cache "$source"
    rm -rf "$bench/out" "$bench/copy" "$bench/reference"
    # What the last comparisons copy: our output, once, in the page cache.
    "${quantize[@]}" --rule "$rule" "$source" "$bench/reference"
    note "source_bytes $layout" "$(folder_bytes "$source")"
    note "output_bytes $layout" "$(folder_bytes "$bench/reference")"
    settle() { # nothing that an earlier command left behind is written during the next
        rm -rf "$bench/out" "$bench/copy"
        sync -f "$bench"
    }
    # shellcheck disable=SC2016 # the inner shells expand these
    for round in warm $(seq "$repeat"); do
        say "disk, $layout, round $round"
        settle
        for rule in $rules; do
            sample "$round" "disk|quantize $rule" "${quantize[@]}" --rule "$rule" "$source" "$bench/out"
            settle
        done
        sample "$round" "disk|cp" cp -r "$source" "$bench/copy"
        settle
        sample "$round" "disk|cp, sync" bash -c 'cp -r "$source" "$bench/copy" && sync -d "$bench"/copy/*'
        settle
        sample "$round" "disk|cp in and out" bash -c \
            'cp -r "$source" "$bench/copy" && cp -r "$bench/reference" "$bench/out"'
        settle
        sample "$round" "disk|cp in and out, sync" bash -c \
            'cp -r "$source" "$bench/copy" && cp -r "$bench/reference" "$bench/out" && sync -d "$bench"/copy/* "$bench"/out/*'
        settle
        sample "$round" "disk|read, cp out, sync" bash -c \
            'cat "$source"/*.safetensors >/dev/null && cp -r "$bench/reference" "$bench/copy" && sync -d "$bench"/copy/*'
    done
    settle
else
    say "skipped: the comparison with cp, $bench has less than $disk_mb MB free"
fi

# Verifying against reading the same bytes, from the page cache and from the disk.
evict() { # FOLDER...: out of the page cache, which needs no rights; what is not on the disk yet would stay
    sync -f "$bench"
    find "$@" -type f -exec dd if={} iflag=nocache count=0 status=none \;
}
if [ -e "$source.complete" ] && { [ -e "$bench/reference/config.json" ] || [ "$(free_mb "$bench")" -ge $((disk_mb / 4)) ]; }; then
    if [ ! -e "$bench/reference/config.json" ]; then
        "${quantize[@]}" --rule mse "$source" "$bench/reference"
        note "source_bytes $layout" "$(folder_bytes "$source")"
        note "output_bytes $layout" "$(folder_bytes "$bench/reference")"
    fi
    verify=("$qstream" verify "$source" "$bench/reference" --quiet)
    for round in warm $(seq "$repeat"); do
        say "verify, $layout, round $round"
        warm_cache "$source"
        warm_cache "$bench/reference"
        sample "$round" "verify|cached|verify" "${verify[@]}" >/dev/null
        sample "$round" "verify|cached|hash" "${verify[@]}" --hash >/dev/null
        # shellcheck disable=SC2016 # the inner shell expands this
        sample "$round" "verify|cached|read" bash -c 'cat "$source"/* "$bench"/reference/* >/dev/null'
        for folder in "$source" "$bench/reference"; do
            what=$([ "$folder" = "$source" ] && echo source || echo output)
            sample "$round" "inspect|$what|stats" "$qstream" inspect "$folder" --stats --quiet >/dev/null
            # shellcheck disable=SC2016 # the inner shell expands this
            sample "$round" "inspect|$what|read" bash -c 'cat "$0"/* >/dev/null' "$folder"
        done
        [ "$round" = warm ] && continue
        evict "$source" "$bench/reference"
        sample "$round" "verify|disk|verify" "${verify[@]}" >/dev/null
        evict "$source" "$bench/reference"
        # shellcheck disable=SC2016
        sample "$round" "verify|disk|read" bash -c 'cat "$source"/* "$bench"/reference/* >/dev/null'
    done
else
    say "skipped: verify, $bench has less than $((disk_mb / 4)) MB free"
fi

say "memory bandwidth"
"$bench/memcpy" "$repeat" | sed 's/^/rate\t/' >>"$samples"
say "kernels"
"$bench/kernels" "$repeat" | sed 's/^/kernel\t/' >>"$samples"

"$python" "$here/summarize.py" $json "$samples"
