#!/usr/bin/env python3
"""Makes stand_ins.inc and nfc_tables.inc in infer/tokenizer: what it knows of Unicode besides what PCRE2 knows.

Run with build/venv/bin/python (Python 3.11: its unicodedata is Unicode 14, as PCRE2 10.42 is). The `tokenizers` package
is the measure: it normalizes by an older Unicode and classifies by a newer one, so both are asked of it, code point by
code point. The tables are committed; this says how they came to be.
"""

import sys
import unicodedata
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

OUT = Path(__file__).resolve().parents[2] / "infer/tokenizer"
HEAD = "/* Made by tests/tokenizer/make_unicode_tables.py; not to be edited. */\n// clang-format off\n\n"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co").split()
NFC, NFD = normalizers.NFC(), normalizers.NFD()
HANGUL = range(0xAC00, 0xD7A4)


def newer_categories():
    """The general category of each code point where the package's patterns differ from PCRE2's."""
    text = "".join(map(chr, POINTS))
    newer = dict.fromkeys(POINTS, "Cn")
    for category in CATEGORIES:
        split = pre_tokenizers.Split(Regex(r"\P{%s}" % category), "removed")
        for piece, _ in split.pre_tokenize_str(text):
            newer.update((ord(c), category) for c in piece)
    return {c: newer[c] for c in POINTS if newer[c] != unicodedata.category(chr(c))}


def stand_ins():
    first = {}
    newer = newer_categories()
    for c in POINTS:
        if c not in newer and unicodedata.normalize("NFC", chr(c)) == chr(c):
            first.setdefault((unicodedata.category(chr(c)), len(chr(c).encode())), c)
    ranges = []
    for c, category in sorted(newer.items()):
        stand_in = first[category, len(chr(c).encode())]
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == stand_in:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, stand_in])
    return ranges


def combining_class(c):
    known = all(
        NFC.normalize_str(s) == unicodedata.normalize("NFC", s) for s in ("x" + chr(c) + "\u0334", "x\u0345" + chr(c))
    )
    return unicodedata.combining(chr(c)) if known else 0


def decompositions():
    """(code point, first, second or 0), one step, of what the package decomposes; whether it composes back."""
    for c in POINTS:
        mapping = unicodedata.decomposition(chr(c))
        if c in HANGUL or not mapping or mapping[0] == "<":
            continue
        if NFD.normalize_str(chr(c)) != unicodedata.normalize("NFD", chr(c)):
            continue
        parts = [int(p, 16) for p in mapping.split()]
        composes = len(parts) == 2 and NFC.normalize_str("".join(map(chr, parts))) == chr(c)
        yield c, parts[0], parts[1] if len(parts) == 2 else 0, composes


def table(name, rows, comment):
    items = ["{%s}" % ", ".join("0x%x" % v for v in row) for row in rows]
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 118:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    lines.append(line)
    return "/* %s */\nstatic const %s[] = {\n%s\n};\n" % (comment, name, "\n".join(lines))


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("make_unicode_tables.py: this needs a Python with Unicode 14, 3.11 for instance")
    pairs = list(decompositions())
    seconds = {b for _, _, b, composes in pairs if composes}
    seconds.update(range(0x1161, 0x1176))
    seconds.update(range(0x11A8, 0x11C3))
    excluded = {c for c, _, _, composes in pairs if not composes}
    unsafe = []
    for c in POINTS:
        class_ = combining_class(c)
        if not (class_ or c in seconds or c in excluded):
            continue
        if unsafe and unsafe[-1][1] == c - 1 and unsafe[-1][2] == class_:
            unsafe[-1][1] = c
        else:
            unsafe.append([c, c, class_])
    order = sorted((a, b, i) for i, (_, a, b, composes) in enumerate(pairs) if composes)
    (OUT / "stand_ins.inc").write_text(
        HEAD
        + table(
            "struct stand_in stand_ins",
            stand_ins(),
            "First, last, and a character of the same category and length in UTF-8 that PCRE2 knows.",
        )
    )
    text = HEAD + table(
        "struct nfc_range nfc_ranges",
        unsafe,
        "First, last, combining class: characters that NFC may change or join to what is before them.",
    )
    text += "\n" + table(
        "struct nfc_pair nfc_pairs",
        [(c, a, b) for c, a, b, _ in pairs],
        "Canonical decompositions in one step, in order; the second is 0 where there is none.",
    )
    items, lines, line = [str(i) for _, _, i in order], [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 118:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    lines.append(line)
    text += "\n/* The pairs that compose, ordered by first and second. */\n"
    text += "static const uint16_t nfc_compositions[] = {\n%s\n};\n" % "\n".join(lines)
    (OUT / "nfc_tables.inc").write_text(text)


if __name__ == "__main__":
    main()
