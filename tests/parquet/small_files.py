#!/usr/bin/env python3
"""Small Parquet files of each kind that can be read, and of some that cannot: what the fuzzer starts from, and what
check_parquet.py damages byte by byte. Needs pyarrow.

small_files.py FOLDER writes them there, NAME.parquet.
"""
import io
import itertools
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = ["", " = Title = \n", "", " one two three \n", "naïve 中文 😀", "", " one two three \n", "a", "", "b" * 40]
SCHEMA = pa.schema([pa.field("text", pa.string())])


def written(table, **options):
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def table(rows=ROWS, schema=SCHEMA):
    return pa.table([pa.array(rows, schema.field(0).type)], schema=schema)


def small_files():
    plain = {"compression": "NONE", "use_dictionary": False, "write_statistics": False, "store_schema": False}
    files = {}
    for codec, version, dictionary in itertools.product(("NONE", "SNAPPY", "GZIP", "ZSTD"), ("1.0", "2.0"), (False, True)):
        name = f"{codec.lower()}-{version[0]}{'-dictionary' if dictionary else ''}"
        files[name] = written(table(), **plain | {"compression": codec, "data_page_version": version, "use_dictionary": dictionary})
    required = pa.schema([pa.field("text", pa.string(), nullable=False)])
    files["defaults"] = written(table())
    files["required"] = written(table(schema=required), **plain)
    files["crc"] = written(table(), **plain | {"use_dictionary": True}, write_page_checksum=True)
    files["no-rows"] = written(table([]), **plain)
    files["row-groups"] = written(table(), **plain, row_group_size=3)
    files["pages"] = written(table(ROWS * 3), **plain | {"use_dictionary": True}, data_page_size=1, write_batch_size=2)
    files["nulls"] = written(table(["a", None, "b"]), **plain)
    files["delta"] = written(table(), **plain, column_encoding="DELTA_BYTE_ARRAY")
    nested = pa.table({"list": [[1, 2], []], "struct": [{"a": 1, "text": "x"}] * 2, "text": ["a", "b"], "n": [1, 2]})
    files["nested"] = written(nested, **plain)
    return files


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in small_files().items():
        (folder / f"{name}.parquet").write_bytes(data)
