#!/usr/bin/env python3
"""Compares the ids of the C tokenizer with those of `tokenizers` and mistral-common. Prints TAP.

check_tokenizer.py BATCH [--seed N] [--count N] [--only NAME]: BATCH is the program made from batch.c.
"""

import argparse
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import mistral_common
from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer
from tokenizers import Tokenizer

import layouts
import texts

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "build/models/smollm2-bf16"
WIKITEXT = ROOT.parent / "shared/data/wikitext-2-raw/wiki.test.raw"
GOLDEN = ROOT.parent / "shared/golden/smollm2_perplexity.json"
TEKKEN_DATA = Path(mistral_common.__file__).parent / "data"
LONG = 1 << 20  # what has to be done in linear time
COMPARED = 1 << 14  # of the same, where the references, too, come to an end


class Tests:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def report(self, name, problem=None, skip=None):
        self.count += 1
        self.failed += bool(problem)
        result = "not ok" if problem else "ok"
        print("%s %d - %s%s" % (result, self.count, name, " # SKIP " + skip if skip else ""), flush=True)
        if problem:
            print("# " + str(problem)[:1500].replace("\n", "\n# "), flush=True)


class Batch:
    """The C tokenizer on one folder."""

    def __init__(self, program, folder):
        self.command = [program, str(folder)]

    def answer(self, requests):
        """Requests as batch.c takes them, (kind, bytes or ids). An answer that is a string says why there is none."""
        requests = list(requests)
        done = subprocess.run(
            self.command,
            input=b"".join(self.request(*request) for request in requests),
            stdout=subprocess.PIPE,
            timeout=300,
            check=False,
        )
        out = done.stdout
        if done.returncode != 0:
            raise RuntimeError("exit status %d: %s" % (done.returncode, out[:300].decode("utf-8", "replace")))
        answers = []
        at = 0
        for kind, _ in requests:
            end = out.index(b"\n", at)
            line = out[at:end]
            at = end + 1
            if line.startswith(b"!"):
                answers.append(line.decode("utf-8", "replace"))
            elif kind == "E":
                answers.append([int(i) for i in line.split()])
            elif kind == "I":
                answers.append(int(line))
            else:
                answers.append(out[at : at + int(line)])
                at += int(line) + 1
        return answers

    @staticmethod
    def request(kind, content):
        data = b" ".join(b"%d" % i for i in content) + b"\n" if kind == "D" else content
        return b"%s %d\n%s" % (kind.encode(), len(content), data)


class HuggingFace:
    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.added = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()][:40]

    def encode(self, data):
        strings = [text.decode("utf-8", "replace") for text in data]
        return [e.ids for e in self.tokenizer.encode_batch(strings, add_special_tokens=False)]

    def decode(self, lists):
        return self.tokenizer.decode_batch(lists, skip_special_tokens=False)

    def names(self):
        return self.tokenizer.get_vocab()

    def normalize(self, text):
        return self.tokenizer.normalizer.normalize_str(text) if self.tokenizer.normalizer else text


class Tekken:
    def __init__(self, path):
        self.tokenizer = Tekkenizer.from_file(path)
        self.added = ["<s>", "[INST]", "</s>", "<SPECIAL_20>"]  # text like any other

    def encode(self, data):
        return [self.tokenizer.encode(text.decode("utf-8", "replace"), bos=False, eos=False) for text in data]

    def decode(self, lists):
        return [self.tokenizer.decode(ids, special_token_policy=SpecialTokenPolicy.KEEP) for ids in lists]

    def names(self):
        return {self.tokenizer.id_to_piece(i): i for i in range(self.tokenizer.num_special_tokens)}

    def normalize(self, text):
        return text


def differ(data, ours, theirs):
    """What is wrong with the shortest text whose ids differ; None when none do."""
    wrong = [i for i in range(len(data)) if ours[i] != theirs[i]]
    if not wrong:
        return None
    i = min(wrong, key=lambda j: len(data[j]))
    pairs = enumerate(zip(ours[i], theirs[i], strict=False))
    place = next((k for k, (a, b) in pairs if a != b), "where the shorter ends")
    shown = (len(wrong), len(data), data[i][:200], str(ours[i])[:400], str(theirs[i])[:400], place)
    return "%d of %d texts differ; the shortest is %r:\nours   %s\ntheirs %s\nfrom id %s" % shown


def decoded_differ(lists, ours, theirs):
    """As differ, of the texts that lists of ids stand for."""
    ours = [text if isinstance(text, str) else text.decode("utf-8", "replace") for text in ours]
    wrong = [i for i in range(len(lists)) if ours[i] != theirs[i]]
    if not wrong:
        return None
    i = min(wrong, key=lambda j: len(lists[j]))
    shown = (len(wrong), len(lists), lists[i][:50], ours[i][:200], theirs[i][:200])
    return "%d of %d texts decode differently: %s is %r, not %r" % shown


def compare(tests, name, batch, reference, kinds):
    """Ids of tokens; then the ids of all texts, each kind a test, and what these ids decode to."""
    ids_of = {token: i for token, i in reference.names().items() if "\0" not in token}
    tokens = [*list(ids_of)[:: max(1, len(ids_of) // 5000)], "no such token"]
    expected = {kind: reference.encode(data) for kind, data in kinds.items()}
    requests = [("I", token.encode()) for token in tokens]
    for kind, data in kinds.items():
        requests += [("E", text) for text in data]
        requests += [("D", ids) for ids in expected[kind]]
    answers = iter(batch.answer(requests))
    wrong = [(token, next(answers), ids_of.get(token, -1)) for token in tokens]
    wrong = [(token, ours, theirs) for token, ours, theirs in wrong if ours != theirs]
    tests.report("%s: tokens have their ids" % name, wrong and "token, ours, theirs: %s" % wrong[:5])
    for kind, data in kinds.items():
        ids = expected[kind]
        problem = differ(data, [next(answers) for _ in data], ids)
        decoded = [next(answers) for _ in data]
        problem = problem or decoded_differ(ids, decoded, reference.decode(ids))
        tests.report("%s: %s (%d texts)" % (name, kind, len(data)), problem)


def check_golden(tests, batch):
    name = "sample model: WikiText-2 has the ids of the golden file"
    if not WIKITEXT.exists() or not GOLDEN.exists():
        tests.report(name, skip="%s or %s is missing" % (WIKITEXT.name, GOLDEN.name))
        return
    golden = json.loads(GOLDEN.read_text())["tokens"]
    ids = batch.answer([("E", WIKITEXT.read_bytes())])[0]
    digest = hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).hexdigest()
    good = len(ids) == golden["count"] and digest == golden["sha256_of_little_endian_int32"]
    tests.report(name, None if good else "%d ids, %s" % (len(ids), digest))


def check_long(tests, name, batch, reference):
    """Megabytes without a place to cut: done in time, and nothing is lost. The references cannot do some of them."""
    kinds = dict(texts.long(LONG))
    answers = batch.answer(("R", text) for text in kinds.values())
    for (kind, text), back in zip(kinds.items(), answers, strict=True):
        expected = reference.normalize(text.decode("utf-8", "replace")).encode()
        problem = None if back == expected else "it became %r" % back[:200]
        tests.report("%s: %d bytes of %s" % (name, LONG, kind), problem)


def check(tests, name, arguments, folder, reference, everything):
    """One tokenizer against its reference: on texts of all kinds, or on the shorter lists."""
    batch = Batch(arguments.batch, folder)
    count = arguments.count if everything else arguments.count // 5
    kinds = {
        "hard strings": texts.hard(),
        "random strings": list(texts.rand(arguments.seed, count, reference.added)),
    }
    if everything:
        kinds["code points"] = list(texts.code_points())
        kinds["%d bytes without a place to cut" % COMPARED] = [text for _, text in texts.long(COMPARED)]
        if WIKITEXT.exists():
            kinds["all of WikiText-2"] = [WIKITEXT.read_bytes()]
        else:
            tests.report("%s: all of WikiText-2" % name, skip="%s is missing" % WIKITEXT.name)
    compare(tests, name, batch, reference, kinds)
    if everything:
        check_long(tests, name, batch, reference)
    return batch


def check_tekken(tests, arguments, path, folder, everything):
    folder.mkdir()
    shutil.copy(path, folder / "tekken.json")
    check(tests, path.stem, arguments, folder, Tekken(path), everything)


def tokenizer_files(ranks):
    """name, tokenizer.json, whether to compare everything: layouts over the tokens of a tekken.json."""
    full = layouts.Vocabulary(ranks)
    for name, layout in layouts.shipped(full.first(20000)):
        yield name, layout, False
    for name, layout in layouts.shipped(full, ("llama3", "qwen3")):
        yield "%s, large" % name, layout, True
    for name, layout in layouts.behaviors(full.first(3000)):
        yield name, layout, False


def run(tests, arguments, scratch):
    if arguments.only in "sample model":
        check_golden(tests, check(tests, "sample model", arguments, SAMPLE, HuggingFace(SAMPLE), True))
    tekken_files = sorted(TEKKEN_DATA.glob("tekken_*.json"))
    for path in tekken_files:
        if arguments.only in path.stem:
            check_tekken(tests, arguments, path, scratch / path.stem, path == tekken_files[-1])
    ranks = layouts.tekken_ranks(tekken_files[-1], 131072 - 1000)
    for number, (name, layout, everything) in enumerate(tokenizer_files(ranks)):
        if arguments.only in name:
            folder = layouts.write(scratch / str(number), layout)
            check(tests, name, arguments, folder, HuggingFace(folder), everything)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("batch")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("QSTREAM_TEST_SEED", "1")))
    parser.add_argument("--count", type=int, default=2000, help="random texts for each of the large tokenizers")
    parser.add_argument("--only", default="", help="tokenizers with this in their name")
    arguments = parser.parse_args()
    tests = Tests()
    print("# seed %d" % arguments.seed)
    with tempfile.TemporaryDirectory(prefix="qstream-tokenizer-") as scratch:
        run(tests, arguments, Path(scratch))
    print("1..%d" % tests.count)
    return tests.failed > 0


if __name__ == "__main__":
    sys.exit(main())
