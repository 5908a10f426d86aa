#!/usr/bin/env python3
"""Compares the strings that common/parquet reads with what pyarrow wrote. Prints TAP.

check_parquet.py ROWS [--only CHECK]: ROWS is the program made from rows.c, CHECK a name as in check_CHECK. SHARED names
another folder than ../shared.
"""
import argparse
import base64
import hashlib
import itertools
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption

import small_files
import wikitext_file

ROOT = Path(__file__).resolve().parents[2]
RAW = Path(os.environ.get("SHARED", ROOT.parent / "shared")) / "data/wikitext-2-raw/wiki.test.raw"
PYARROW_2023 = ROOT / "build/pyarrow-2023/bin/python"
BAD_INPUT, FAILURE = 3, 4
LIMIT = 1 << 26  # PARQUET_LIMIT

rng = random.Random(3)
SETS = {
    "small": small_files.ROWS,
    "no rows": [],
    "one row": ["x"],
    "empty strings": [""] * 5000,
    "one string": ["the same again \n"] * 70000,
    "NUL bytes": ["\0", "a\0b", "\0\0"] * 10,
    "unicode": ["".join(chr(rng.choice((0x41, 0xe9, 0x3b1, 0x4e2d, 0x1f600, 0xa0))) for _ in range(rng.randrange(30))) for _ in range(3000)],
    "different": [f"row {i} {rng.random()}" for i in range(20000)],
    "few": [rng.choice(("", "a", "bb", "ccc", " \n")) for _ in range(9999)],
    "runs": [word for word in ("", "a", "bb") * 40 for _ in range(rng.randrange(1, 300))],
    "large": ["z" * 5_000_000, "", "".join(rng.choice("ab \n") for _ in range(1_000_000)), "end"],
}


class Tests:
    def __init__(self):
        self.count = self.failed = 0

    def report(self, name, problem=None, skip=None):
        self.count += 1
        self.failed += bool(problem)
        print(f"{'not ok' if problem else 'ok'} {self.count} - {name}{' # SKIP ' + skip if skip else ''}", flush=True)
        if problem:
            print("# " + str(problem)[:1500].replace("\n", "\n# "), flush=True)


class Reader:
    """The C reader."""

    def __init__(self, program):
        self.program = program

    def run(self, *arguments, **environment):
        return subprocess.run([self.program, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              env=os.environ | environment)

    def problem(self, file, rows, column="text"):
        """None when it reads these rows, else what is wrong."""
        done = self.run(file, column)
        if done.returncode != 0:
            return f"exit code {done.returncode}: {done.stderr.decode(errors='replace')}"
        wanted = b"".join(struct.pack("<I", len(row)) + row for row in (row.encode() for row in rows))
        return None if done.stdout == wanted else f"other rows: {len(done.stdout)} bytes, wanted {len(wanted)}"

    def acceptance(self, file, status, part, column="text"):
        """None when it refuses the file with a message that names it and has `part`, else what is wrong."""
        done = self.run(file, column)
        said = done.stderr.decode(errors="replace")
        if done.returncode == status and f"'{file}'" in said and part in said:
            return None
        return f"exit code {done.returncode}, wanted {status} and '{part}': {said}"


def string_table(rows, **field):
    return small_files.table(rows, pa.schema([pa.field("text", pa.string(), **field)]))


def variants():
    """Ways of writing, each with what pq.write_table takes."""
    yield "defaults", {}
    for codec, version, dictionary in itertools.product(("NONE", "SNAPPY", "GZIP", "ZSTD"), ("1.0", "2.0"), (True, False)):
        yield f"{codec}, pages {version}, {'a' if dictionary else 'no'} dictionary", \
            {"compression": codec, "data_page_version": version, "use_dictionary": dictionary}
    for version in ("1.0", "2.0"):
        pages = {"data_page_version": version, "data_page_size": 1}
        yield f"small pages {version}", pages | {"write_batch_size": 3, "write_page_checksum": True, "write_page_index": True}
        yield f"small row groups {version}", pages | {"row_group_size": 500}
        yield f"a dictionary that gets too large, pages {version}", {"dictionary_pagesize_limit": 64, "data_page_version": version}
    yield "format 1.0", {"version": "1.0"}
    yield "no statistics", {"write_statistics": False, "store_schema": False}
    yield "CRC", {"write_page_checksum": True}
    yield "chunks by content", {"use_content_defined_chunking": True}


def check_variants(tests, reader, folder):
    file = folder / "variant.parquet"
    for name, options in variants():
        problems = []
        for (kind, rows), nullable in itertools.product(SETS.items(), (True, False)):
            if "write_batch_size" in options and len(rows) > 3000 or "row_group_size" in options and len(rows) > 20000:
                rows = rows[:3000]
            pq.write_table(string_table(rows, nullable=nullable), file, **options)
            problem = reader.problem(file, rows)
            if problem:
                problems.append(f"{kind}, {'optional' if nullable else 'required'}: {problem}")
        tests.report(f"every row is read: {name}", "\n".join(problems))


def check_columns(tests, reader, folder):
    """The column among others, and other types of Arrow that are strings in the file."""
    file = folder / "columns.parquet"
    rows = small_files.ROWS
    others = {
        "ints": pa.array(range(len(rows))),
        "list": pa.array([["not", "this"]] * len(rows)),
        "struct": pa.array([{"text": "nor this", "more": {"text": "x", "n": [1]}}] * len(rows)),
        "map": pa.array([[("text", "value")]] * len(rows), pa.map_(pa.string(), pa.string())),
        "binary": pa.array([b"\xff"] * len(rows)),
    }
    text = pa.array(rows)
    for place in (0, 3, len(others)):
        columns = list(others.items())
        columns.insert(place, ("text", text))
        pq.write_table(pa.table(dict(columns)), file, row_group_size=4)
        tests.report(f"the column is found as number {place}", reader.problem(file, rows))
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"text": text.cast(kind)}), file)
        tests.report(f"the column was {kind} in Arrow", reader.problem(file, rows))
    name = "naïve 中文 'quoted'"
    pq.write_table(pa.table({name: text}), file)
    tests.report("the column's name is not ASCII", reader.problem(file, rows, name))


def check_refused(tests, reader, folder):
    """What cannot be read is named."""
    file = folder / "refused.parquet"
    rows = small_files.ROWS
    for codec in ("LZ4", "BROTLI"):
        pq.write_table(string_table(rows), file, compression=codec)
        shown = {"LZ4": "LZ4_RAW"}.get(codec, codec)
        tests.report(f"{codec} is refused", reader.acceptance(file, BAD_INPUT, f"compressed with {shown}, which cannot"))
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        pq.write_table(string_table(rows), file, use_dictionary=False, column_encoding=encoding)
        tests.report(f"{encoding} is refused", reader.acceptance(file, BAD_INPUT, f"strings is {encoding}, which cannot"))
    for version, place in itertools.product(("1.0", "2.0"), (0, 4321, 9999)):
        with_null = ["a"] * 10000
        with_null[place] = None
        pq.write_table(string_table(with_null), file, data_page_version=version, data_page_size=1000, row_group_size=6000)
        tests.report(f"a null is refused: row {place}, pages {version}",
                     reader.acceptance(file, BAD_INPUT, f"row {place} (from 0) is null"))
    for values, part in (([1, 2], "not one of strings"), ([b"a"], "not one of strings"), ([1.5], "not one of strings"),
                         ([["a"]], "is nested"), ([{"a": "b"}], "is nested"), ([True], "not one of strings")):
        pq.write_table(pa.table({"text": values}), file)
        tests.report(f"a column of {pa.array(values).type} is refused", reader.acceptance(file, BAD_INPUT, part))
    for codec, library, package in (("SNAPPY", "libsnappy.so.1", "libsnappy1v5"), ("ZSTD", "libzstd.so.1", "libzstd1")):
        (folder / library).write_bytes(b"")
        pq.write_table(string_table(rows), file, compression=codec)
        done = reader.run(file, "text", LD_LIBRARY_PATH=str(folder))
        said = done.stderr.decode()
        good = done.returncode == FAILURE and f"library {library} cannot be loaded" in said and f"package {package}" in said
        tests.report(f"a missing {library} is named", None if good else f"exit code {done.returncode}: {said}")
        (folder / library).unlink()
    pq.write_table(pa.table({"other": rows}), file)
    tests.report("a missing column is refused", reader.acceptance(file, BAD_INPUT, "has no column 'text'"))
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), file)
    tests.report("two columns of a name are refused", reader.acceptance(file, BAD_INPUT, "is there twice"))
    file.write_bytes(b"")
    tests.report("an empty file is refused", reader.acceptance(file, BAD_INPUT, "is no Parquet file"))
    file.write_bytes(b"PAR1\x15\0PAR1")
    tests.report("a file of nothing but its marks is refused", reader.acceptance(file, BAD_INPUT, "is no Parquet file"))


def check_limits(tests, reader, folder):
    """A small file that asks for much is refused before it gets it."""
    file = folder / "large.parquet"
    pq.write_table(string_table(["z" * 1000] * (LIMIT // 1000)), file)
    tests.report("strings of almost the limit are read", reader.problem(file, ["z" * 1000] * (LIMIT // 1000)))
    pq.write_table(string_table(["z" * 1000] * (LIMIT // 1000 + 1)), file)
    tests.report("strings beyond the limit are refused", reader.acceptance(file, BAD_INPUT, f"at most {LIMIT} are read"))
    pq.write_table(string_table(["z" * (LIMIT // 4)] * 4), file, compression="ZSTD", use_dictionary=False, row_group_size=1)
    tests.report("pages beyond the limit are refused", reader.acceptance(file, BAD_INPUT, f"at most {LIMIT} are read"))
    rows = pa.DictionaryArray.from_arrays(pa.nulls(LIMIT + 1, pa.int8()).fill_null(0), pa.array([""]))
    pq.write_table(pa.table({"text": rows}, schema=pa.schema([pa.field("text", rows.type)])), file, row_group_size=LIMIT + 1)
    tests.report("rows beyond the limit are refused", reader.acceptance(file, BAD_INPUT, f"{LIMIT + 1} rows"))


class Keys(encryption.KmsClient):
    """Keeps no secrets."""

    def __init__(self, configuration):
        encryption.KmsClient.__init__(self)

    def wrap_key(self, key, master):
        return base64.b64encode(key)

    def unwrap_key(self, wrapped, master):
        return base64.b64decode(wrapped)


def check_encryption(tests, reader, folder):
    file = folder / "encrypted.parquet"
    factory = encryption.CryptoFactory(Keys)
    table = pa.table({"text": ["a"], "other": ["b"]})

    def write(column, plaintext_footer):
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), encryption.EncryptionConfiguration(
            footer_key="footer", column_keys={"column": [column]}, plaintext_footer=plaintext_footer,
            cache_lifetime=timedelta(minutes=5)))
        with pq.ParquetWriter(file, table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)

    write("text", False)
    tests.report("an encrypted file is refused", reader.acceptance(file, BAD_INPUT, "is an encrypted Parquet file"))
    write("text", True)
    tests.report("an encrypted column is refused", reader.acceptance(file, BAD_INPUT, "column 'text' is encrypted"))
    write("other", True)
    tests.report("a plain column beside an encrypted one is read", reader.problem(file, ["a"]))


def check_damage(tests, reader, folder):
    """Every byte of small files changed, and every length."""
    changed = {}
    for name, data in small_files.small_files().items():
        file = folder / f"{name}.parquet"
        file.write_bytes(data)
        done = reader.run("--damage", file, "text")
        counts = re.fullmatch(rb"(\d+) read, (\d+) refused, (\d+) other rows\n", done.stdout)
        good = done.returncode == 0 and counts and int(counts[1]) == 11 * len(data)
        changed[name] = int(counts[3]) if counts else None
        tests.report(f"damage is refused or harmless: {name}",
                     None if good else f"exit code {done.returncode}: {done.stdout!r} {done.stderr.decode(errors='replace')}")
    tests.report("damage to pages with a CRC never gives other rows", None if changed["crc"] == 0 else changed)
    tests.report("without one, it does", None if changed["none-1-dictionary"] else changed)


def check_wikitext(tests, reader, folder):
    names = ["the Hub's file of WikiText-2's test split, to the byte, gives the raw text",
             "so do its rows as pyarrow writes them now", "other rows are not taken for it"]
    if not RAW.exists():
        for name in names:
            tests.report(name, skip=f"no {RAW}")
        return
    raw = RAW.read_bytes()
    file = folder / "wikitext.parquet"

    def problem():
        done = reader.run("--wikitext", file)
        if done.returncode == 0 and done.stdout == raw:
            return None
        return f"exit code {done.returncode}, {len(done.stdout)} bytes: {done.stderr.decode(errors='replace')}"

    if PYARROW_2023.exists():
        made = subprocess.run([PYARROW_2023, ROOT / "tests/parquet/wikitext_file.py", RAW, file], capture_output=True, text=True)
        tests.report(names[0], made.stderr if made.returncode else problem())
    else:
        tests.report(names[0], skip="pyarrow 12 needs a Python before 3.12")
    wikitext_file.write(RAW, file)
    tests.report(names[1], problem())
    rows = wikitext_file.rows(RAW)
    rows[1] += " "
    pq.write_table(string_table(rows), file)
    done = reader.run("--wikitext", file)
    hashed = hashlib.sha256("".join(row or " \n" for row in rows).encode()).hexdigest()
    good = done.returncode == BAD_INPUT and done.stdout == b"" and hashed in done.stderr.decode()
    tests.report(names[2], None if good else f"exit code {done.returncode}: {done.stderr.decode(errors='replace')}")


def main():
    checks = {check.__name__.removeprefix("check_"): check for check in (
        check_variants, check_columns, check_refused, check_limits, check_encryption, check_damage, check_wikitext)}
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("--only", choices=checks)
    arguments = parser.parse_args()
    tests, reader = Tests(), Reader(arguments.rows)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="parquet-") as folder:
        for name, check in checks.items():
            if arguments.only in (None, name):
                check(tests, reader, Path(folder))
    print(f"1..{tests.count}")
    sys.exit(tests.failed > 0)


if __name__ == "__main__":
    main()
