"""Texts that tokenizers disagree on: hard strings, random ones made of the same parts, long ones."""

import random

# fmt: off
WORDS = "the Hello world's I'LL they've 'Tis don't isn't it's x aaaa Straße naïve İstanbul ılık ǅungla café".split()
CONTRACTIONS = [
    "'s", "'S", "'\u017f", "'t", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "\u2019s", "'", "''s", "'st", "'\u017ft",
]
SPACES = [
    " ", "  ", "   ", " " * 17, "\t", "\u00a0", "\u0085", "\u2028", "\u2029", "\u180e", "\ufeff", "\u200b", "\u3000",
    "\u1680", "\u2003", "\u202f", "\u205f", "\x0b", "\x0c", "\x1c", "\x1f",
]
NEWLINES = ["\n", "\r", "\r\n", "\n\n", "\n\r", " \n", "\n ", " \r\n  \n\t", "\n\n\n", "/\n", "!\r\n/"]
DIGITS = [
    "0", "7", "12", "123", "1234", "1234567", "\u0661\u0662\u0663", "\u0967\u0968", "\u00b2", "\u00bd", "\u2163",
    "\u3007", "\U0001d7d8", "3.14", "1,000", "\U00011de0", "\U00016ff4", "\u2460", "\U00010d40", "\U000116d0",
]
EMOJI = [
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f44d\U0001f3fd",
    "\u2764\ufe0f",
    "\U0001f1e9\U0001f1ea",
    "\U0001fae8",
    "\U0001fac6",
]
SCRIPTS = [
    "\u4e2d\u6587", "\u65e5\u672c\u8a9e", "\u304b\u3099", "\uff76\uff9e", "\ud55c\uad6d\uc5b4", "\u1112\u1161\u11ab",
    "\u1100\u1161", "\u11a8", "\uac00\u11a8", "\u0e01\u0e34\u0e19", "\u0928\u093f", "\u0915\u094d\u0937",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e9\u05c1\u05dc\u05d5\u05dd", "\U00020000", "\U00031350",
    "\U0001e4d0", "\U00010d50\U00010d70", "\u0391\u03c3\u03c2", "\u03b1\u0345\u0301", "\u1f80", "\u01c5", "\u02b0",
    "\u00aa", "\u0130", "\u0131", "\u212a", "\u212b", "\u1e9e", "\uf900", "\u2126", "\u0344", "\u0958", "\u2adc",
    "\U0002f800", "\U0001d15e", "\U00011938", "\U00011935\U00011930", "\u1b06",
]
MARKS = [
    "\u0301", "\u0323", "\u0327", "\u0345", "\u0334", "\u0338", "\u093c", "\u05b0", "\u3099", "\u0300\u0323",
    "\u0315\u0300\u05ae\u0062", "\u20dd", "\u0897", "\u0898", "\u1dfa", "\U0001e4ec",
]
CONTROLS = [
    "\0", "\x01", "\x07", "\x1b[0m", "\x7f", "\x80", "\x9f", "\u00ad", "\u200d", "\u2066", "\uffff", "\ue000",
    "\U0010ffff", "\ufffd",
]
PUNCTUATION = list('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~') + [
    "...",
    "--",
    "\u2014",
    "\u00bf",
    "\u300c",
    "\u20ac",
    "\u00b0",
    "</s>",
    "<|",
    "|>",
    "http://a.b/c?d=e",
]
BROKEN = [
    b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80",
    b"\xe0\x80\x80", b"\xc2", b"\xf8\x88\x80\x80", b"\xf0\x80\x80", b"\xe2\x28\xa1", b"\xc2\xc2\xa0",
]

GROUPS = [WORDS, CONTRACTIONS, SPACES, NEWLINES, DIGITS, EMOJI, SCRIPTS, MARKS, CONTROLS, PUNCTUATION]
PARTS = [part for group in GROUPS for part in group]

HARD = [
    "", " ", "  ", "\n", "a", "\0", "Hello, world!", "  leading and trailing  ", "a\u0301\u0323", "\u0301",
    " \u0301a", "'s", "I'\u017f", "1234567890", "\u1112\u1161\u11ab\uae00", "e\u0323\u0302 \u1ec7 \u1eb9\u0302",
    "q\u0307\u0323 q\u0323\u0307", "\u0041\u030a\u212b\u00c5",
    "\U0001f469\u200d\U0001f4bb \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", " " * 100, "\n" * 50,
    "\t \t \n \r\n", "x" + " " * 33 + "y", "a\u00a0b\u0085c\u2028d\u180ee\ufefff", "don't DON'T don\u2019t",
    "ABCdefGHI", "CamelCaseHTTPServer", "1\u0661\u00b2\u00bd", "\ufeffBOM", "a" * 300, "ab" * 500, "\u4e2d" * 300,
    "\U0001f600" * 200, "'" * 40, "=" * 150, "-" * 77 + "\n", "if (x == 1) {\r\n\treturn y;\r\n}\r\n\r\n",
    "Iß\u1e9e\ufb01\ufb06 'ﬅ", "\u0130\u0131iI", "\u0301" * 300, "\u0300\u0323" * 200, "a" + "\u0345\u0334" * 150,
    "x\r\r\n\n\ry", " a  b   c    d", "\u3000\u3000\u5b57", "0x1F 1e-5 1_000", "foo\u200bbar\u200cbaz\u200dqux",
]
# fmt: on


def hard():
    texts = [text.encode() for text in HARD] + BROKEN + [b"a" + part + b"b " + part for part in BROKEN]
    texts += [part.encode() for part in PARTS]
    return texts + [("x" + part + "y " + part + part + " 1" + part).encode() for part in PARTS]


def rand(seed, count, extra):
    """Texts of the parts above and those in `extra`, a few broken ones among them."""
    source = random.Random(seed)
    groups = GROUPS + ([extra, extra] if extra else [])
    for _ in range(count):
        few = source.sample(groups, source.randint(1, 4))
        data = b""
        for _ in range(source.randint(1, 24)):
            if source.random() < 0.01:
                data += source.choice(BROKEN)
            else:
                group = source.choice(few) if source.random() < 0.9 else PARTS
                data += source.choice(group).encode()
        if source.random() < 0.03:
            at = source.randrange(len(data) + 1)
            data = data[:at] + bytes([source.randrange(256)]) + data[at:]
        yield data


def code_points():
    """Every character of the planes in use, next to a letter, a digit, a space and a mark."""
    points = [c for c in range(0x3500) if c]
    points += range(0x9F00, 0xAD00)
    points += range(0xD700, 0xD800)
    points += range(0xE000, 0xE010)
    points += range(0xF8F0, 0x13500)
    points += range(0x14380, 0x14700)
    points += range(0x16000, 0x17010)
    points += range(0x18700, 0x18E00)
    points += range(0x1AFF0, 0x20010)
    for edge in (0x2A6C0, 0x2B720, 0x2B810, 0x2CE90, 0x2EBD0, 0x2EE50, 0x2F7F0, 0x2FA10, 0x31340, 0x323A0, 0x33470):
        points += range(edge, edge + 0x40)
    points += range(0xE0000, 0xE0200)
    points += range(0x10FFF0, 0x110000)
    for begin in range(0, len(points), 512):
        yield "".join("x%c1%c%c \u0301%c\u0334." % (c, c, c, c) for c in points[begin : begin + 512]).encode()


def long(size):
    """What makes a careless matcher or merger quadratic; none has a place to cut but the last ones."""
    yield "letters", b"a" * size
    yield "mixed letters", bytes(97 + (i * i + i // 7) % 26 for i in range(size))
    yield "capitals", b"A" * size
    yield "spaces", b" " * size
    yield "spaces, then a letter", b" " * size + b"x"
    yield "digits", b"1" * size
    yield "newlines", b"\n" * size
    yield "returns and spaces", b"\r\n \t" * (size // 4)
    yield "emoji", "\U0001f600".encode() * (size // 4)
    yield "punctuation", b"!" * size
    yield "apostrophes", b"'" * size
    yield "ideographs", "\u4e2d".encode() * (size // 3)
    yield "marks", "\u0301".encode() * (size // 2)
    yield "unordered marks", "\u0301\u0323".encode() * (size // 4)
    yield "non-breaking spaces", "\u00a0".encode() * (size // 2)
    yield "jamo", "\u1112\u1161\u11ab".encode() * (size // 9)
    yield "broken bytes", b"\xff" * size
