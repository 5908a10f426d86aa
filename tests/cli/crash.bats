#!/usr/bin/env bats
# A run that ends before its time: killed, stopped, the power lost, a call failed. Whatever happened: a folder with a
# config.json is complete and right, and the same command goes on from what is there and makes the same bytes.
#
# Accidents come from crash_shim.c, at random operations; QSTREAM_TEST_SEED chooses others.

load helper

setup_file() {
    prepare
    echo "# seed $SEED (QSTREAM_TEST_SEED)" >&3
}
setup() {
    fresh
    RANDOM=$SEED
    REFERENCE=$BATS_TEST_TMPDIR/reference
    SRC=$BATS_TEST_TMPDIR/source
}

# SRC: a few shards, scales apart from their weights, and files to carry over, one below a folder that holds nothing else.
given_source() {
    own_source --layout fp8-tensor --split-scales --shards 3 "${TINY[@]}"
    mkdir -p "$SRC/more/deeper"
    echo '{"tokens": []}' >"$SRC/tokenizer.json"
    head -c 300000 /dev/zero >"$SRC/more/deeper/a picture.bin.txt"
}

# The reference, and how many operations a run of these options has.
given_reference() { # OPTIONS...
    DST=$REFERENCE quantize --quiet --jobs 1 "$@"
    with_shim SHIM_COUNT="$BATS_TEST_TMPDIR/count" "${SHIM_SETTINGS[@]}" -- quantize --quiet "$@"
    rm -rf "$DST"
    OPERATIONS=$(calls operations)
}

calls() { sed -n "s/^$1 //p" "$BATS_TEST_TMPDIR/count"; }

random() { # LEAST MOST
    echo $(($1 + (RANDOM << 15 | RANDOM) % ($2 - $1 + 1)))
}

# The work folder may be left: it is inside, hidden, and harms nobody.
right_output() { diff -r -x .qstream "$REFERENCE" "$DST" >&2; }

nothing_false() {
    [[ ! -e $DST/config.json ]] || right_output || { echo "config.json is there, but the folder is not complete" >&2; return 1; }
}

context() { # TEXT COMMAND...: runs the command, and says TEXT when it fails
    local text=$1
    shift
    "$@" || { echo "after: $text (seed $SEED)" >&2; return 1; }
}

HASTE=(SHIM_HASTE=1 SHIM_SLOW=300) # several commits even in a run this small

# --- kill ---

# Kills runs at random operations, resumes each, until CRASHES are reached; at the end of every few the run is left alone.
kill_and_resume() { # CRASHES OPTIONS...
    local crashes=0 k in_a_row wanted
    wanted=$(often "$1")
    shift
    while ((crashes < wanted)); do
        rm -rf "$DST"
        in_a_row=$(random 1 6)
        while ((in_a_row-- > 0)); do
            k=$(random 1 "$OPERATIONS")
            run with_shim "${SHIM_SETTINGS[@]}" SHIM_KILL=$k -- quantize --quiet --jobs "$(random 1 3)" "$@"
            context "kill at operation $k" nothing_false
            ((status == 0)) && break
            context "kill at operation $k" exits 137
            crashes=$((crashes + 1))
        done
        context "kill at operation $k" quantize --quiet "$@"
        context "kill at operation $k" right_output
    done
}

@test "given a kill at random moments, when the run is repeated, then the folder is the same as without" {
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    kill_and_resume 60
}

@test "given a kill at random moments of a run with --shard-size and --hash-source, then the folder is the same" {
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference --hash-source --shard-size 20KB
    kill_and_resume 20 --hash-source --shard-size 20KB
}

@test "given a kill at random moments of a run that reads weights twice, then the folder is the same as without" {
    SHIM_SETTINGS=("${HASTE[@]}")
    own_source --layout bf16 --shards 2 "${TINY[@]}"
    RECIPE=$BATS_TEST_TMPDIR/recipe.json
    jq '.rules |= map(if .format == "fp8" then .strategy = "tensor" else . end)' "$ROOT/configs/llama-mxfp4.json" >"$RECIPE"
    given_reference
    kill_and_resume 20
}

@test "given real kills from outside, at random times, then the folder is the same as without" {
    local i
    SHIM_SETTINGS=(SHIM_HASTE=1 SHIM_SLOW=1000)
    given_source
    given_reference
    for ((i = 0; i < $(often 12); i++)); do
        run timeout -s KILL "0.$(printf %03d "$(random 5 120)")" env SHIM_OUTPUT="$DST" "${SHIM_SETTINGS[@]}" LD_PRELOAD="$SHIM" \
            "$QSTREAM" quantize "$SRC" "$DST" --recipe "$RECIPE" --quiet
        nothing_false
        if ((status == 0)); then
            rm -rf "$DST"
        fi
    done
    quantize --quiet
    right_output
}

@test "given a kill at random moments of parts and of --finish, then the folder is the same as without" {
    local round part k crashes=0
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    for ((round = 0; round < $(often 8); round++)); do
        rm -rf "$DST"
        for part in 2 0 1; do
            for k in $(random 1 40) $(random 1 40); do
                run with_shim "${SHIM_SETTINGS[@]}" SHIM_KILL=$k -- quantize --quiet --part $part/3
                crashes=$((crashes + (status == 137)))
                not_published
            done
            quantize --quiet --part $part/3
        done
        for k in $(random 1 30) $(random 1 30); do
            run with_shim SHIM_KILL=$k -- quantize --quiet --finish
            crashes=$((crashes + (status == 137)))
            context "kill at operation $k of --finish" nothing_false
        done
        context "kill at operation $k of --finish" quantize --quiet --finish
        context "kill at operation $k of --finish" right_output
    done
    ((crashes >= $(often 20))) || { echo "only $crashes crashes"; false; }
}

@test "given a kill at each of the last operations, when the run is repeated, then no work folder is left either" {
    local k
    SHIM_SETTINGS=()
    given_source
    given_reference
    for ((k = OPERATIONS - 7; k <= OPERATIONS; k++)); do
        rm -rf "$DST"
        run with_shim SHIM_KILL=$k -- quantize --quiet
        exits 137
        quantize --quiet
        context "kill at operation $k of $OPERATIONS" same_folders "$REFERENCE" "$DST"
    done
}

@test "given work of a killed run that was journaled, when it goes on, then that work is not done again" {
    local whole rest
    SHIM_SETTINGS=()
    given_source
    given_reference
    whole=$(calls pwrite)
    run with_shim SHIM_FAIL=rename:1:EIO -- quantize --quiet # everything made, nothing published
    exits 4
    with_shim SHIM_COUNT="$BATS_TEST_TMPDIR/count" -- quantize --quiet
    rest=$(calls pwrite)
    right_output
    ((rest == 0)) || { echo "$rest of $whole writes were made again"; false; }
}

# --- stop ---

@test "given SIGTERM or SIGINT at random moments, then exit 130 and how to go on; going on gives the same folder" {
    local i k stopped=0
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    for ((i = 0; i < $(often 20); i++)); do
        k=$(random 1 $((OPERATIONS * 2 / 3)))
        run with_shim "${SHIM_SETTINGS[@]}" SHIM_TERM=$k -- quantize --quiet
        nothing_false
        if ((status != 0)); then
            context "SIGTERM at operation $k" exits 130
            says "interrupted" "run the same command to go on"
            not_published
            stopped=$((stopped + 1))
        else
            right_output
            rm -rf "$DST"
        fi
    done
    quantize --quiet
    right_output
    ((stopped >= $(often 5))) || { echo "stopped $stopped times only"; false; }

    rm -rf "$DST"
    env SHIM_OUTPUT="$DST" SHIM_HOLD=20:"$BATS_TEST_TMPDIR/go" LD_PRELOAD="$SHIM" \
        "$QSTREAM" quantize "$SRC" "$DST" --recipe "$RECIPE" 2>"$BATS_TEST_TMPDIR/stderr" 3>&- &
    local process=$! code=0
    while [[ ! -e $BATS_TEST_TMPDIR/go.held ]]; do sleep 0.02; done
    kill -INT $process
    touch "$BATS_TEST_TMPDIR/go"
    wait $process || code=$?
    [[ $code -eq 130 ]]
    grep -q 'qstream: interrupted' "$BATS_TEST_TMPDIR/stderr"
}

@test "given SIGTERM, then what was finished is journaled: a stopped run loses no tile" {
    SHIM_SETTINGS=()
    given_source
    given_reference
    local whole made rest
    whole=$(calls pwrite)
    run with_shim SHIM_TERM=$((OPERATIONS / 2)) SHIM_COUNT="$BATS_TEST_TMPDIR/count" -- quantize --quiet --jobs 1
    exits 130
    made=$(calls pwrite)
    with_shim SHIM_COUNT="$BATS_TEST_TMPDIR/count" -- quantize --quiet
    rest=$(calls pwrite)
    right_output
    # shard headers and journal records are written by both
    ((rest < whole - made + 12)) || { echo "$whole writes in all, $made before SIGTERM, $rest after it"; false; }
}

# --- power ---

power_loss_and_resume() { # ["random"]: a loss at every few operations, and after the end
    local k step
    step=$((OPERATIONS / $(often 35) + 1))
    for ((k = 1 + RANDOM % step; k <= OPERATIONS + step; k += step)); do
        rm -rf "$DST" "$DST".lost.*
        run with_shim "${SHIM_SETTINGS[@]}" SHIM_POWER=$k ${1:+SHIM_POWER_SEED=$((SEED + k))} -- quantize --quiet
        context "power loss at operation $k of about $OPERATIONS" exits 137
        context "power loss at operation $k of about $OPERATIONS" nothing_false
        run quantize --quiet
        context "power loss at operation $k of about $OPERATIONS" exits 0
        context "power loss at operation $k of about $OPERATIONS" right_output
    done
}

@test "given a power loss that takes everything unsynced, when the run is repeated, then the folder is the same as without" {
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    power_loss_and_resume
}

@test "given a power loss that takes a random part of what was unsynced, then the folder is the same as without" {
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    power_loss_and_resume random
}

@test "given a power loss right after a run said that it is finished, then the folder is complete" {
    SHIM_SETTINGS=()
    given_source
    given_reference
    run with_shim SHIM_POWER=1000000 -- quantize --quiet
    exits 137
    [[ -e $DST/config.json ]]
    right_output
}

@test "given power losses in a row, each in the run that goes on from the last, then the folder is the same as without" {
    local round i k
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    for ((round = 0; round < $(often 5); round++)); do
        rm -rf "$DST" "$DST".lost.*
        for ((i = 0; i < 5; i++)); do
            k=$(random 1 "$OPERATIONS")
            run with_shim "${SHIM_SETTINGS[@]}" SHIM_POWER=$k SHIM_POWER_SEED="$RANDOM" -- quantize --quiet
            context "power loss at operation $k" exits 137
            context "power loss at operation $k" nothing_false
        done
        context "power losses, the last at operation $k" quantize --quiet
        context "power losses, the last at operation $k" right_output
    done
}

@test "given a journal that a power loss left empty, cut or full of zeros before its first sync, then the run begins anew" {
    local torn
    given_source
    DST=$REFERENCE quantize --quiet
    for torn in "head -c 0" "head -c 50" "head -c 111" "zeros 112" "zeros 62"; do
        rm -rf "$DST"
        run with_shim SHIM_FAIL=pwrite:2:EIO -- quantize --quiet --jobs 1 # the journal has its header and no record
        exits 4
        [[ $(stat -c %s "$DST/.qstream/journal") -eq 112 ]]
        case $torn in
        head*) truncate -s "${torn##* }" "$DST/.qstream/journal" ;;
        zeros*) dd if=/dev/zero of="$DST/.qstream/journal" bs=1 seek=$((112 - ${torn##* })) count="${torn##* }" conv=notrunc \
            status=none ;;
        esac
        context "$torn" quantize --quiet
        right_output
    done
}

# --- failing calls ---

# Lets the K-th CALL fail, for every K or some; the run must say so, and the next one must end well.
fail_and_resume() { # CALL ERRNO [SUFFIX]
    local call=$1 error=$2 k count step
    count=$(calls "$call")
    ((count > 0)) || { echo "a run makes no call of $call" >&2; return 1; }
    step=$((count / $(often 14) + 1))
    for ((k = 1; k <= count; k += step)); do
        rm -rf "$DST"
        run with_shim SHIM_FAIL="$call:$k${3:-}:$error" -- quantize --quiet --jobs 3
        context "$error from $call $k" nothing_false
        if ((status == 0)); then
            [[ $call == unlink || $call == rmdir ]] || context "$error from $call $k was not noticed" false
            context "$error from $call $k" right_output
        else
            context "$error from $call $k" exits 4
            context "$error from $call $k" says "qstream: "
        fi
        context "$error from $call $k, then repeated" quantize --quiet
        context "$error from $call $k, then repeated" right_output
    done
}

@test "given a call that fails with EIO, each in turn, then exit 4 and a message; the next run ends well" {
    local call
    SHIM_SETTINGS=()
    given_source
    given_reference
    for call in open pread write pwrite ftruncate fsync fdatasync rename mkdir unlink rmdir; do
        fail_and_resume $call EIO
    done
}

@test "given a shard that one worker fails to create, then the others do not go on with it" {
    local failure round
    own_source --layout fp8-tensor "${TINY[@]}"
    SHIM_SETTINGS=()
    given_reference
    for failure in ftruncate:2:ENOSPC pwrite:2:ENOSPC; do # 1: the journal's
        for round in 1 2 3 4 5 6 7 8; do
            rm -rf "$DST"
            run with_shim SHIM_FAIL=$failure -- quantize --quiet --jobs 4
            context "$failure" exits 4
            says "No space left"
            context "$failure, then repeated" quantize --quiet
            right_output
        done
    done
}

@test "given a disk that is full from some call on, then exit 4 and a message; with room again the next run ends well" {
    local call
    SHIM_SETTINGS=()
    given_source
    given_reference
    for call in open write pwrite ftruncate mkdir; do
        fail_and_resume $call ENOSPC +
    done
}

@test "given a failing sync in the middle of a run, then nothing that it should have made durable is believed" {
    local k count
    SHIM_SETTINGS=("${HASTE[@]}")
    given_source
    given_reference
    count=$(calls fdatasync)
    ((count >= 6)) || { echo "only $count syncs: the run had no commits on its way"; false; }
    for ((k = 1; k <= count; k += 2)); do
        rm -rf "$DST" "$DST".lost.*
        # the failing sync, and with the end of the process all that was not synced is lost
        run with_shim "${HASTE[@]}" SHIM_FAIL=fdatasync:$k:EIO SHIM_POWER=1000000 -- quantize --quiet
        nothing_false
        run quantize --quiet
        context "EIO from fdatasync $k" exits 0
        context "EIO from fdatasync $k" right_output
    done
}

@test "given calls that are interrupted by signals, or transfer less than asked, then nobody notices" {
    local call k count
    SHIM_SETTINGS=()
    given_source
    given_reference
    with_shim SHIM_SHORT=1 -- quantize --quiet --hash-source
    cmp "$REFERENCE/model-00001-of-00003.safetensors" "$DST/model-00001-of-00003.safetensors"
    rm -rf "$DST"
    with_shim SHIM_SHORT=1 -- quantize --quiet
    same_folders "$REFERENCE" "$DST"
    for call in pread pwrite write; do
        count=$(calls $call)
        for ((k = 1; k <= count; k += count / 5 + 1)); do
            rm -rf "$DST"
            context "EINTR from $call $k" with_shim SHIM_FAIL=$call:$k:EINTR -- quantize --quiet
            same_folders "$REFERENCE" "$DST"
        done
    done
}

# --- the shim itself ---

@test "given the shim and no accident, then the folder is the same as without it" {
    given_source
    DST=$REFERENCE quantize --quiet
    with_shim -- quantize --quiet
    same_folders "$REFERENCE" "$DST"
    rm -rf "$DST"
    with_shim "${HASTE[@]}" -- quantize --quiet --jobs 3
    same_folders "$REFERENCE" "$DST"
}
