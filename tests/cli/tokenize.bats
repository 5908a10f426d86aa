#!/usr/bin/env bats
# shellcheck disable=SC2154 # stderr and stderr_lines are bats'
# qstream tokenize: ids and texts on standard output, from files and standard input; what is wrong ends with its exit code
# and one line. That the ids are right is shown by tests/tokenizer; here a tokenizer of the bytes and a few tokens.

bats_require_minimum_version 1.5.0
load helper

setup_file() {
    prepare
    export MODEL=$BATS_FILE_TMPDIR/model
    mkdir "$MODEL"
    "$PYTHON" -B - "$MODEL" "$ROOT/tests/tokenizer" <<'PYTHON'
import sys
sys.path.insert(0, sys.argv[2])
import layouts
vocabulary = layouts.Vocabulary([bytes([b]) for b in range(256)] + [b"ab", b" ab"])
layouts.write(sys.argv[1], layouts.tokenizer(vocabulary, layouts.GPT2, [layouts.added("<s>")]))
PYTHON
}

tokenize() { "$QSTREAM" tokenize "$@"; }

# refuses CODE WORD... -- ARGUMENTS...: ends with the code, nothing on standard output and one line that has each WORD.
refuses() {
    local code=$1 words=() word
    shift
    while [[ $1 != -- ]]; do
        words+=("$1")
        shift
    done
    shift
    run --separate-stderr "$QSTREAM" tokenize "$@" </dev/null
    [[ $status -eq $code && -z $output && ${#stderr_lines[@]} -eq 1 && $stderr == "qstream: "* ]] || {
        printf '%s: exit code %s: %s|%s\n' "$*" "$status" "$output" "$stderr" >&2
        return 1
    }
    for word in "${words[@]}"; do
        [[ $stderr == *"$word"* ]] || { printf 'expected "%s" in: %s\n' "$word" "$stderr" >&2; return 1; }
    done
}

@test "given text on standard input or in a file, then its ids are a JSON array on one line" {
    [[ $(printf 'ab ab<s>\n' | tokenize "$MODEL") == "[256, 257, 258, 10]" ]]
    [[ $(printf 'a' | tokenize --text - "$MODEL") == "[97]" ]]
    printf 'b ab' >"$BATS_TEST_TMPDIR/text"
    [[ $(tokenize "$MODEL" --text "$BATS_TEST_TMPDIR/text" | od -An -c | tr -d ' \n') == '[98,257]\n' ]]
    [[ $(tokenize "$MODEL" --text /dev/null) == "[]" ]]
    [[ $(printf '\377\0' | tokenize "$MODEL") == "[239, 191, 189, 0]" ]]
}

@test "given ids, then their bytes are printed and nothing else" {
    [[ $(printf '[256, 257, 258, 10, 195]' | tokenize "$MODEL" --decode | od -An -t x1 | tr -d ' \n') == 61622061623c733e0ac3 ]]
    [[ -z $(printf ' [ ] \n' | tokenize "$MODEL" --decode) ]]
    printf '[256,\n97]' >"$BATS_TEST_TMPDIR/ids"
    [[ $(tokenize --decode "$MODEL" --text "$BATS_TEST_TMPDIR/ids") == aba ]]
}

@test "given any text, then decoding its ids gives it back" {
    "$PYTHON" -c 'import random; random.seed(1)
print("".join(chr(random.choice([random.randrange(128), random.randrange(0xd800), random.randrange(0xe000, 0x110000)])) for _ in range(100000)), end="")' \
        >"$BATS_TEST_TMPDIR/text"
    tokenize "$MODEL" --text "$BATS_TEST_TMPDIR/text" | tokenize "$MODEL" --decode | cmp - "$BATS_TEST_TMPDIR/text"
}

@test "given the sample model, then ids are those of its tokenizer" {
    [[ -e $ROOT/build/models/smollm2-bf16/tokenizer.json ]] || "$PYTHON" "$ROOT/tests/models/make_sample.py" --out "$ROOT/build/models" >&2
    [[ $(printf 'Hello, world! 42<|im_end|>' | tokenize "$ROOT/build/models/smollm2-bf16") == "[19556, 28, 905, 17, 216, 36, 34, 2]" ]]
}

@test "given --help, then every option of the manual and the completions is there" {
    run tokenize --help
    exits 0
    local option
    for option in $(grep -o '^| `--[a-z]*' "$ROOT/docs/tokenize.md" | tr -d '|` '); do
        says "$option"
        grep -q -e "$option" "$ROOT/completions/_qstream"
        grep -q -e "$option" "$ROOT/completions/qstream.bash"
    done
    says --text --decode --help "usage: qstream tokenize MODEL"
}

@test "given a wrong command line, then the exit code is 2" {
    refuses 2 "takes one folder" --
    refuses 2 "takes one folder" -- "$MODEL" "$MODEL"
    refuses 2 "no option '--txt'" -- "$MODEL" --txt x
    refuses 2 "no option '-x'" -- "$MODEL" -x
    refuses 2 "a value is missing behind '--text'" -- "$MODEL" --text
}

@test "given ids that are none, then the exit code is 3" {
    local ids
    for ids in '' '{}' '[' '[1' '[1,]' '[1 2]' '[1] 2' '[-1]' '[1.0]' '["a"]' '[2147483648]' '[99999999999999999999]' '[1]x'; do
        printf '%s' "$ids" >"$BATS_TEST_TMPDIR/ids"
        refuses 3 "'$BATS_TEST_TMPDIR/ids' is no list of tokens" -- "$MODEL" --decode --text "$BATS_TEST_TMPDIR/ids"
    done
    printf '[97, 259]' >"$BATS_TEST_TMPDIR/ids"
    refuses 3 "no token 259" -- "$MODEL" --decode --text "$BATS_TEST_TMPDIR/ids"
}

@test "given no tokenizer, a damaged one or no text, then the exit code says so" {
    refuses 3 "neither tokenizer.json nor tekken.json" -- "$BATS_TEST_TMPDIR"
    refuses 3 "cannot open '$BATS_TEST_TMPDIR/nothing'" -- "$BATS_TEST_TMPDIR/nothing"
    head -c 3000 "$MODEL/tokenizer.json" >"$BATS_TEST_TMPDIR/tokenizer.json"
    refuses 3 "tokenizer.json'" -- "$BATS_TEST_TMPDIR"
    refuses 3 "cannot open '$BATS_TEST_TMPDIR/text'" -- "$MODEL" --text "$BATS_TEST_TMPDIR/text"
    refuses 4 "cannot read '$BATS_TEST_TMPDIR'" -- "$MODEL" --text "$BATS_TEST_TMPDIR"
}

@test "given an output that takes nothing, then the exit code is 4" {
    run sh -c "echo a | '$QSTREAM' tokenize '$MODEL' >/dev/full"
    exits 4
    run sh -c "echo '[97]' | '$QSTREAM' tokenize '$MODEL' --decode >/dev/full"
    exits 4
    says "cannot write to standard output"
    # a reader that goes away, where the signal is ignored
    bash -c "trap '' PIPE; head -c 300000 /dev/zero | { '$QSTREAM' tokenize '$MODEL'; echo \$? >'$BATS_TEST_TMPDIR/code'; } | true"
    [[ $(cat "$BATS_TEST_TMPDIR/code") == 4 ]]
}
