"""Small models of every layout whose attention and head are decided enough for a mistake to show."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LOUDER = 3  # weights are this power of two larger than make_checkpoint.py makes them

sys.path.insert(0, str(ROOT / "tests/models"))


def read_shard(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])


def write_shard(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def edit_tensors(folder, change):
    """change(name, dtype, array of the stored numbers) may write to the array."""
    kinds = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F8_E4M3": np.uint8, "U8": np.uint8}
    for path in sorted(folder.glob("*.safetensors")):
        header, data = read_shard(path)
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                array = np.frombuffer(data, kinds[entry["dtype"]], (end - begin) // np.dtype(kinds[entry["dtype"]]).itemsize,
                                      begin).reshape(entry["shape"])
                change(name, entry["dtype"], array)
        write_shard(path, header, data)


def edit_header(folder, change):
    """change(header, data) may change the header; returns nothing."""
    for path in sorted(folder.glob("*.safetensors")):
        header, data = read_shard(path)
        change(header, data)
        write_shard(path, header, data)


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config.get("text_config", config))
    path.write_text(json.dumps(config))


def louder(name, dtype, array):
    """A power of two onto each linear weight: onto its scales where it has any."""
    if "vision" in name or "multi_modal" in name:
        return
    scaled = name.endswith(("weight_scale", "weight_scale_inv"))
    if scaled and dtype == "U8":
        array += LOUDER
    elif scaled or (name.endswith("_proj.weight") and dtype in ("F16", "F32")):
        if dtype == "BF16":
            array += LOUDER << 7
        else:
            array *= 1 << LOUDER
    elif dtype == "BF16" and (name.endswith("_proj.weight") or name.endswith(("lm_head.weight", "embed_tokens.weight"))):
        array[array & 0x7F80 != 0] += LOUDER << 7
    elif dtype in ("F16", "F32") and name.endswith(("lm_head.weight", "embed_tokens.weight")):
        array *= 1 << LOUDER


def make(folder, seed=1, **options):
    command = [sys.executable, ROOT / "tests/models/make_checkpoint.py", "--out", folder, "--seed", seed]
    settings = dict(hidden=128, mlp=256, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=300, arch="llama")
    settings.update(options)
    for key, value in settings.items():
        command += ["--" + key.replace("_", "-"), value]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    edit_tensors(folder, louder)
    return folder
