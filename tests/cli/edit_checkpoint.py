"""edit_checkpoint.py FOLDER 'STATEMENTS': changes a checkpoint of one shard, the tests' way of damaging it.

The statements may use

    tensors   {name: [dtype, shape, bytes]}: add, remove, change; written back in the file's order with right offsets
    config    config.json, parsed; written back
    raw(change_header=None, change_file=None)
              instead of the above: change_header gets the header's JSON text and returns another, whose length field is set;
              change_file gets the whole file's bytes and returns others
    f32, bf16, u8   lists of numbers (bf16, u8: codes) to bytes
    folder    pathlib.Path of the checkpoint
"""

import json
import struct
import sys
from pathlib import Path

folder = Path(sys.argv[1])
shard = folder / "model.safetensors"


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def bf16(*codes):
    return struct.pack(f"<{len(codes)}H", *codes)


def u8(*codes):
    return bytes(codes)


def with_header(header, data):
    return struct.pack("<Q", len(header)) + header + data


def raw(change_header=None, change_file=None):
    global keep
    keep = False
    content = shard.read_bytes()
    if change_header:
        (length,) = struct.unpack("<Q", content[:8])
        header = change_header(content[8 : 8 + length].decode())
        content = with_header(header if isinstance(header, bytes) else header.encode(), content[8 + length :])
    shard.write_bytes(change_file(content) if change_file else content)


content = shard.read_bytes()
(length,) = struct.unpack("<Q", content[:8])
header = json.loads(content[8 : 8 + length])
metadata = header.pop("__metadata__", None)
tensors = {
    name: [entry["dtype"], entry["shape"], content[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]]]
    for name, entry in header.items()
}
config_text = (folder / "config.json").read_text()
config = json.loads(config_text)
keep = True
exec(sys.argv[2])
if keep:
    header = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape, body) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    shard.write_bytes(with_header(json.dumps(header).encode(), data))
if (folder / "config.json").exists() and config != json.loads(config_text):
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
