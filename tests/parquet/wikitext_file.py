#!/usr/bin/env python3
"""Makes wikitext-2-raw-v1/test-00000-of-00001.parquet of the Hub's dataset Salesforce/wikitext, to the byte, from the raw
text. Needs the pyarrow that wrote it (requirements-2023.txt); another one writes the same rows in other bytes.

wikitext_file.py RAW FILE
"""
import hashlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHA256 = "5f1bea067869d04849c0f975a2b29c4ff47d867f484f5010ea5e861eab246d91"  # of the Hub's file, 732,610 bytes
BATCH = 1000  # rows that `datasets` writes at a time, which makes them a row group
FEATURES = {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}}}}


def rows(raw):
    """As datasets/wikitext/wikitext.py has them."""
    with open(raw, encoding="utf-8") as lines:
        return [line if line.strip() else "" for line in lines]


def write(raw, file):
    schema = pa.schema([("text", pa.string())], metadata={"huggingface": json.dumps(FEATURES)})
    table = pa.table({"text": rows(raw)}, schema=schema)
    with pq.ParquetWriter(file, schema=schema) as writer:
        for begin in range(0, len(table), BATCH):
            writer.write_table(table.slice(begin, BATCH))


if __name__ == "__main__":
    write(*sys.argv[1:3])
    found = hashlib.sha256(Path(sys.argv[2]).read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{sys.argv[2]} has sha256 {found}, the Hub's file {SHA256}")
