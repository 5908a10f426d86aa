"""Tokenizers to compare with: files in the layouts that models ship, over the vocabularies that are at hand.

The layouts are those of Llama 3, Qwen 2 and 3, Qwen 3.5, GPT-4o's open relative, Mistral's tokenizer.json, GPT-2 and
SmolLM2; the vocabularies those of the sample model and of mistral-common's Tekken, whose ranks become merges as
transformers makes them.
"""

import base64
import json
from pathlib import Path

LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA.replace("{1,3}", "")
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def added(content, special=True, **flags):
    token = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special}
    return {**token, "special": special, **flags}


def alphabet():
    """GPT-2's character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def tekken_ranks(path, count):
    with open(path, encoding="utf-8") as file:
        vocab = json.load(file)["vocab"][:count]
    return [base64.b64decode(token["token_bytes"]) for token in vocab]


def merges_of(ranks):
    """Each cut of a token into two others, in the order of the ranks."""
    place = {token: rank for rank, token in enumerate(ranks)}
    merges = []
    for token in ranks[256:]:
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in place and token[i:] in place]
        merges += sorted(cuts, key=lambda pair: (place[pair[0]], place[pair[1]]))
    return merges


class Vocabulary:
    """Names by id, and merges, in the byte-level alphabet."""

    def __init__(self, ranks):
        characters = alphabet()

        def name(token):
            return "".join(characters[b] for b in token)

        self.names = [name(token) for token in ranks]
        self.merges = [(name(a), name(b)) for a, b in merges_of(ranks)]

    def first(self, count):
        """The vocabulary of the first `count` tokens."""
        part = Vocabulary([])
        part.names = self.names[:count]
        known = set(part.names)
        part.merges = [(a, b) for a, b in self.merges if {a, b, a + b} <= known]
        return part


def tokenizer(vocabulary, pre_tokenizer, tokens=(), normalizer=None, pairs=False, **model):
    """A tokenizer.json. Added tokens that are in the vocabulary keep their ids, others follow it."""
    ids = {name: i for i, name in enumerate(vocabulary.names)}
    after = len(ids)
    listed = []
    for token in tokens:
        number = ids.get(token["content"])
        if number is None:
            number, after = after, after + 1
        listed.append({"id": number, **token})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": listed,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            **model,
            "vocab": ids,
            "merges": [list(m) for m in vocabulary.merges] if pairs else [" ".join(m) for m in vocabulary.merges],
        },
    }


def write(folder, layout):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tokenizer.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(layout, ensure_ascii=False))
    return folder


def shipped(vocabulary, names=None):
    """name, tokenizer.json: the layouts of models, or of some of them."""
    tokens = {
        "llama": [added("<|begin_of_text|>"), added("<|end_of_text|>")]
        + [added("<|reserved_special_token_%d|>" % i) for i in range(250)]
        + [added("<|eot_id|>")],
        "qwen": [added("<|endoftext|>"), added("<|im_start|>"), added("<|im_end|>")]
        + [added(t, special=False, normalized=False) for t in ("<tool_call>", "</tool_call>", "<think>", "</think>")],
        "mistral": [added(t) for t in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")]
        + [added("<SPECIAL_%d>" % i) for i in range(20, 1000)],
        "deepseek": [
            added("<｜begin▁of▁sentence｜>"),
            added("<think>", special=False, normalized=False),
            added("<｜User｜>", special=False, normalized=True),
        ],
    }
    nfc = {"type": "NFC"}
    empty = {"type": "Sequence", "normalizers": []}
    some = {
        "llama3": (sequence(split(LLAMA), BYTE_LEVEL), tokens["llama"], None, {"ignore_merges": True}),
        "qwen3": (
            sequence(split(QWEN), {**BYTE_LEVEL, "trim_offsets": False}),
            tokens["qwen"],
            nfc,
            {"continuing_subword_prefix": "", "end_of_word_suffix": ""},
        ),
        "qwen3.5": (
            sequence(split(QWEN35), BYTE_LEVEL),
            tokens["qwen"],
            {"type": "Sequence", "normalizers": [nfc]},
            {"pairs": True},
        ),
        "tekken": (
            sequence(split(TEKKEN), BYTE_LEVEL),
            tokens["mistral"],
            None,
            {"pairs": True, "ignore_merges": True},
        ),
        "o200k": (sequence(split(O200K), BYTE_LEVEL), [added("<|return|>"), added("<|channel|>")], None, {}),
        "deepseek": (sequence(*map(split, DEEPSEEK), BYTE_LEVEL), tokens["deepseek"], empty, {}),
        "gpt2": (GPT2, [added("<|endoftext|>", normalized=True)], None, {"unk_token": "<|endoftext|>"}),
    }
    for name, (pre_tokenizer, listed, normalizer, model) in some.items():
        if not names or name in names:
            yield name, tokenizer(vocabulary, pre_tokenizer, listed, normalizer, **model)


FLAGGED = [
    added("<a>", lstrip=True),
    added("<b>", rstrip=True),
    added("<c>", lstrip=True, rstrip=True),
    added("<d>", single_word=True),
    added("word", special=False, single_word=True),
    added("wor", special=False),
    added("words and", special=False, normalized=False),
    added("<ab>", special=False, normalized=True, lstrip=True, single_word=True),
    added("\u00e9t\u00e9", special=False),
    added("e\u0301e\u0301", special=False),
    added("u\u0308", special=False, normalized=False),
    added("  ", special=False, rstrip=True),
    added(" \n", special=False, normalized=False),
    added("aaa", special=False, normalized=False),
    added("aaaa", special=False, normalized=True),
    added("\u4e2d", special=False, single_word=True),
    added("the", special=False, rstrip=True, single_word=True),
    added("\u0120x", special=False),
]


def behaviors(vocabulary):
    """name, tokenizer.json: what no model ships in one piece."""
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield (
                "%s%s" % (behavior, " inverted" if invert else ""),
                tokenizer(vocabulary, sequence(split(r"\s|\p{P}|(?i:s|k)|\d{2}", behavior, invert), BYTE_LEVEL)),
            )
        yield (
            "%s literal" % behavior,
            tokenizer(
                vocabulary, sequence(split(" ", behavior, kind="String"), split("a.", behavior, kind="String"), GPT2)
            ),
        )
    yield "prefix space", tokenizer(vocabulary, {**GPT2, "add_prefix_space": True}, FLAGGED[:3])
    yield (
        "prefix space on parts",
        tokenizer(
            vocabulary,
            sequence(
                {"type": "Digits", "individual_digits": False},
                split("l", kind="String"),
                {**BYTE_LEVEL, "add_prefix_space": True},
            ),
        ),
    )
    yield "digits", tokenizer(vocabulary, sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL))
    yield (
        "patterns",
        tokenizer(
            vocabulary,
            sequence(
                split(
                    r"(?<=\p{Lu})\p{Ll}|[^\S\r\n]{2,}|\x41\u0042|\x{1F600}+?|(?<!a)b(?=c)|(?>ab?)|[\p{Sm}\-\]]++|\P{L}(x|y)?"
                ),
                split(r"[^\P{L}a-fz-]+|[\d\S]z|.[\s\S]", "MergedWithNext"),
                BYTE_LEVEL,
            ),
        ),
    )
    yield (
        "patterns that PCRE2 has got wrong",
        tokenizer(
            vocabulary,
            sequence(
                split(r"(?>[a-z]+|b?)z|\P{N}+\P{L}", "MergedWithNext"),
                split(r"\P{Lu}*\P{Ll}\p{Nd}|(?:[a-z]{2,}|\s)?+e", "MergedWithPrevious"),
                BYTE_LEVEL,
            ),
        ),
    )
    yield (
        "characters newer than PCRE2",
        tokenizer(
            vocabulary,
            sequence(
                split("\U0001fae8", "Removed", kind="String"),
                split(r"[\x{1F300}-\x{1FAFF}]+|[\x{10000}-\x{1007F}]", "Removed"),
                split(r"\p{Lu}|[\x{0}-\x{FF}]\p{So}", "Removed"),
                BYTE_LEVEL,
            ),
        ),
    )
    yield "added tokens", tokenizer(vocabulary, GPT2, FLAGGED)
    yield (
        "added tokens, NFC",
        tokenizer(
            vocabulary,
            sequence(split(LLAMA), BYTE_LEVEL),
            [t for t in FLAGGED if t["content"] != "e\u0301e\u0301"],
            {"type": "NFC"},
            ignore_merges=True,
        ),
    )
    few = vocabulary.first(600)
    lost = set(alphabet()[0x80:0xB0]) | set("eq ")
    few.names = [n for n in few.names if not set(n) & lost]
    few.merges = [(a, b) for a, b in few.merges if not set(a + b) & lost]
    yield "bytes without tokens", tokenizer(few, GPT2, FLAGGED[:5])
