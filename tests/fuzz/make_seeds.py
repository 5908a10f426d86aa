#!/usr/bin/env python3
"""Makes the seed files of tests/fuzz/corpus from small checkpoints of tests/models/make_checkpoint.py.

Run with build/venv/bin/python. The seeds are committed; this says how they came to be.
"""
import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TINY = "--hidden 64 --mlp 64 --layers 1 --heads 2 --kv-heads 1 --head-dim 32 --vocab 32 --experts 2".split()

CHECKPOINTS = {
    "fp8-tensor": (0x00, "mistral-medium-3.5-mxfp4", []),
    "fp8-tensor-split": (0x10, "mistral-medium-3.5-mxfp4", ["--shards", "2", "--split-scales"]),
    "fp8-block": (0x20, "llama-mxfp4", ["--layout", "fp8-block", "--arch", "llama"]),
    "mxfp8": (0x01, None, ["--layout", "mxfp8", "--arch", "llama"]),
    "ct-channel": (0x02, "llama-mxfp4", ["--layout", "ct-channel", "--arch", "llama"]),
    "bf16-gamma": (0x05, "llama-mxfp4", ["--layout", "bf16", "--arch", "llama"]),
    "f32": (0x32, None, ["--layout", "bf16", "--dtype", "f32", "--arch", "llama"]),
    "moe": (0x09, "qwen3-moe-mxfp4", ["--layout", "bf16", "--arch", "qwen3_moe"]),
    "moe-fused": (0x00, "qwen3-moe-mxfp4", ["--layout", "bf16", "--arch", "qwen3_moe", "--fused", "qwen3_5"]),
    "moe-transposed": (0x11, "qwen3-moe-mxfp4", ["--layout", "bf16", "--arch", "qwen3_moe", "--fused", "qwen3_vl"]),
}


OID, SHA256 = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HUB_PAGE = [
    {"type": "directory", "oid": OID, "size": 0, "path": "sub"},
    {"type": "file", "oid": OID, "size": 0, "path": "sub/empty \u00e9.txt"},
    {"type": "file", "oid": OID, "size": 9, "path": "model.safetensors", "lfs": {"oid": SHA256, "size": 9, "pointerSize": 130}},
]
HUB = {
    "page": f'Link: <https://hub.example/api/x?cursor=a%3D>; rel="next", </y>; rel="prev"\n\n{json.dumps(HUB_PAGE)}',
    "commit": f'ETag: W/"{OID}"\nX-Repo-Commit: {OID}\nX-Linked-Size: 9\n\n{{"id": "org/name", "sha": "{OID}"}}',
    "redirect": f'Location: //cdn.example:444/a/../b c?Signature=x%2F#y\nX-Linked-Etag: "{SHA256}"\n\n[]',
    "limits": 'RateLimit: "api";r=0;t=55\nRetry-After: Fri, 13 Feb 2009 23:31:30 GMT\n\n',
    "reference": "hf://datasets/org/name@refs/pr/1",
}


def header(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return file.read(length).rstrip(b" ")


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def audited(folder, options, config):
    """A folder in sections, with another config if one is given."""
    sections = [options, b"@@config\n", config or (folder / "config.json").read_bytes(), b"\n"]
    index = folder / "model.safetensors.index.json"
    if index.exists():
        sections += [b"@@index\n", index.read_bytes(), b"\n"]
    for shard in sorted(folder.glob("*.safetensors")):
        sections += [b"@@shard ", shard.name.encode(), b"\n", header(shard), b"\n"]
    return b"".join(sections)


def record(kind, first, last):
    """A record of a journal, without its checksum."""
    return struct.pack("<III", kind, first, last) + bytes(range(32))


def verified(folder, source):
    """A quantized folder in sections, with what verify reads besides."""
    manifest = re.sub(rb'"mtime_ns": \d+', b'"mtime_ns": 1', (folder / "qstream.json").read_bytes())
    files = {"qstream.json": manifest, "source.json": (source / "config.json").read_bytes(),
             "limits.json": (ROOT / "configs/mxfp4.thresholds.json").read_bytes(),
             "journal": record(1, 0, 9) + record(2, 0, 0) + record(2, 1, 0) + b"torn"}
    return audited(folder, b"\1", None) + b"".join(b"@@file " + name.encode() + b"\n" + text + b"\n" for name, text in files.items())


def paired(folder, source):
    """A source and what became of it, in sections: shards a-* and b-*."""
    sections = [b"\x05@@config\n", (folder / "config.json").read_bytes(), b"\n@@file source.json\n",
                (source / "config.json").read_bytes(), b"\n"]
    for letter, where in (("a", source), ("b", folder)):
        for shard in sorted(where.glob("*.safetensors")):
            sections += [f"@@shard {letter}-{shard.name}\n".encode(), header(shard), b"\n"]
    return b"".join(sections)


def foreign_formats():
    """Names and shapes of other tools: one module of each."""
    def entries(*tensors):
        made, offset = {}, 0
        for name, dtype, shape, size in tensors:
            made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        return json.dumps(made).encode()

    layer = "model.layers.0.self_attn.q_proj"
    formats = {
        "awq": [(f"{layer}.qweight", "I32", [64, 8], 2048), (f"{layer}.qzeros", "I32", [1, 8], 32),
                (f"{layer}.scales", "F16", [1, 64], 128)],
        "gptq": [(f"{layer}.qweight", "I32", [8, 64], 2048), (f"{layer}.qzeros", "I32", [1, 8], 32),
                 (f"{layer}.scales", "F16", [1, 64], 128), (f"{layer}.g_idx", "I32", [64], 256)],
        "modelopt": [(f"{layer}.weight", "U8", [64, 32], 2048), (f"{layer}.weight_scale", "F8_E4M3", [64, 4], 256),
                     (f"{layer}.weight_scale_2", "F32", [], 4), (f"{layer}.input_scale", "F32", [], 4)],
        "nvfp4": [(f"{layer}.weight_packed", "U8", [64, 32], 2048), (f"{layer}.weight_scale", "F8_E4M3", [64, 4], 256),
                  (f"{layer}.weight_global_scale", "F32", [1], 4)],
        "int-packed": [(f"{layer}.weight_packed", "I32", [64, 8], 2048), (f"{layer}.weight_scale", "BF16", [64, 2], 256),
                       (f"{layer}.weight_shape", "I64", [2], 16)],
        "gpt-oss": [("model.layers.0.mlp.experts.gate_up_proj_blocks", "U8", [2, 4, 2, 16], 256),
                    ("model.layers.0.mlp.experts.gate_up_proj_scales", "U8", [2, 4, 2], 16)],
    }
    for name, tensors in formats.items():
        yield name, b"\x01@@config\n" + json.dumps({"architectures": ["LlamaForCausalLM"], "quantization_config": {
            "quant_method": "compressed-tensors", "config_groups": {"group_0": {
                "targets": ["re:.*q_proj$"], "weights": {"num_bits": 4, "type": "int", "group_size": 32},
                "format": "pack-quantized"}}, "ignore": ["lm_head"], "quantization_status": "compressed"}}).encode() + \
            b"\n@@shard model.safetensors\n" + entries(*tensors) + b"\n"


def checkpoints(scratch):
    for name, (options, recipe, arguments) in CHECKPOINTS.items():
        folder = Path(scratch) / name
        subprocess.run([sys.executable, ROOT / "tests/models/make_checkpoint.py", "--out", folder, *TINY, *arguments],
                       check=True, stdout=subprocess.DEVNULL)
        config = (folder / "config.json").read_bytes()
        sections = [bytes([options]), b"@@config\n", config, b"\n"]
        index = folder / "model.safetensors.index.json"
        if index.exists():
            sections += [b"@@index\n", index.read_bytes(), b"\n"]
        if recipe:
            sections += [b"@@recipe\n", (ROOT / "configs" / (recipe + ".json")).read_bytes(), b"\n"]
        for shard in sorted(folder.glob("*.safetensors")):
            sections += [b"@@shard ", shard.name.encode(), b"\n", header(shard), b"\n"]
            if name in ("fp8-tensor", "fp8-block", "moe-fused"):
                write("safetensors", name, header(shard))
        write("checkpoint", name, b"".join(sections))
        write("audit", name, audited(folder, sections[0], None))
        if recipe:
            quantized = folder.with_name(f"{name}-quantized")
            subprocess.run([ROOT / "build/qstream", "quantize", folder, quantized, "--recipe", recipe, "--quiet"], check=True)
            write("audit", f"{name}-quantized", audited(quantized, b"\x01", None))
            write("verify", name, verified(quantized, folder))
            write("pair", name, paired(quantized, folder))
        if name in ("fp8-tensor", "ct-channel", "bf16-gamma"):
            write("json_text", name, config)


def parquet(scratch):
    """Written by pyarrow, which has an environment of its own."""
    subprocess.run([ROOT / "tests/parquet/venv.sh"], check=True)
    subprocess.run([ROOT / "build/pyarrow/bin/python", ROOT / "tests/parquet/small_files.py", scratch], check=True)
    for file in sorted(Path(scratch).glob("*.parquet")):
        write("parquet", file.stem, file.read_bytes())


def small():
    entry = '"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}'
    write("safetensors", "empty", b"{}")
    write("safetensors", "metadata-only", b'{"__metadata__":{"format":"pt"}}')
    write("safetensors", "empty-tensors", ("{" + ",".join(
        entry % t for t in [("a", "U8", "[0]", 0, 0), ("b", "F32", "[]", 0, 4), ("c", "F32", "[4,0]", 4, 4)]) + "}").encode())
    write("safetensors", "sub-byte", ("{" + ",".join(
        entry % t for t in [("a", "F4", "[2,3]", 0, 3), ("b", "F6_E2M3", "[4]", 3, 6)]) + "}").encode())
    write("safetensors", "huge", ("{" + entry % ("a", "I64", "[1152921504606846975]", 0, 9223372036854775800) + "}").encode())
    write("safetensors", "overflow", ("{" + entry % ("a", "U8", "[4294967296,4294967296]", 0, 0) + "}").encode())
    write("safetensors", "names", ("{" + ",".join(
        entry % t for t in [("\\u0001\\\"\\\\", "U8", "[1]", 0, 1), ("\u00e9\u4e2d", "BOOL", "[1]", 1, 2)]) + "}").encode())

    write("safetensors", "nul-behind-number", b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1\0]}}')

    write("json_text", "nested-twice", b'{"text_config":{"quantization_config":1,"x":0,"quantization_config":2}}')
    write("json_text", "minimal", b"{}")
    write("json_text", "numbers", b'{"a": [1e-05, -0, 12345678901234567890, NaN, -Infinity, 1E+2], "b": "\\u00e9\\n"}')
    write("json_text", "replace", b' {"quantization_config" : {"a": [1, {}]}, "text_config": {"quantization_config": 1}}\n')
    write("json_text", "nested", b'{"text_config":{"x":1,"quantization_config":{"y":2},"z":3},"architectures":["A"]}')
    write("json_text", "only-nested", b'{\n  "text_config": {\n    "quantization_config": null\n  }\n}\n')
    write("json_text", "twice", b'{"quantization_config":1,"quantization_config":2}')

    for recipe in sorted((ROOT / "configs").glob("*-mxfp4.json")):
        write("recipe", recipe.stem, recipe.read_bytes())
    rules = [{"match": "*.mlp.*_proj", "format": "mxfp4"}, {"match": "model.layers.[0-9].x", "format": "keep"},
             {"match": "re:(a|b)?model\\.(?=x)", "format": "fp8", "strategy": "tensor", "optional": True, "comment": "c"}]
    write("recipe", "globs", json.dumps({"schema": "qstream.recipe/1", "name": "n", "rules": rules}).encode())
    write("recipe", "backtracking", json.dumps({"schema": "qstream.recipe/1", "name": "n", "rules": [
        {"match": "re:(a+)+$", "format": "keep"}, {"match": "*a*a*a*a*a*c", "format": "keep"}]}).encode())

    many = 1 << 33
    write("checkpoint", "experts-without-end", b'\0@@config\n{"hidden_size":32}\n@@shard model.safetensors\n{' + (
        entry % ("model.layers.0.mlp.experts.gate_up_proj", "BF16", [many, 2, 32], 0, many * 128)).encode() + b"}\n")
    write("checkpoint", "control-character", b'\0@@config\n{}\n@@shard model.safetensors\n{' + ",".join(
        entry % t for t in [("mlp.\\u0001.1.x.weight", "BF16", [32, 32], 0, 2048),
                            ("mlp.\\u0001.x.weight", "BF16", [32, 32], 2048, 4096),
                            ("a.\\u0001.x.weight", "BF16", [32, 32], 4096, 6144)]).encode() + b"}\n")
    write("checkpoint", "scaled-without-weight-ending", b'\0@@config\n{"quantization_config":{"quant_method":"fp8"}}\n'
          b"@@shard model.safetensors\n{" + ",".join(entry % t for t in [
              ("a.w13", "F8_E4M3", [32, 32], 0, 1024), ("a.w13_scale_inv", "F32", [1], 1024, 1028)]).encode() + b"}\n")

    write("checkpoint", "file-name-not-utf-8", b"\0@@config\n{}\n@@shard a\xff.safetensors\n{" + (
        entry % ("a.weight", "BF16", [32, 32], 0, 2048)).encode() + b"}\n")

    for name, data in foreign_formats():
        write("audit", name, data)
        write("verify", name, data)
    write("verify", "keys", b'\0@@config\n{"a": 1e-05, "torch_dtype": "x", "text_config": {"b": [1.0, NaN], "k": {"y": 1, "x": 2}}, "new": 1}\n'
          b'@@file source.json\n{"text_config": {"k": {"x": 2, "y": 1}, "b": [1, NaN]}, "dtype": "\\u0078", "a": 0.00001, "gone": {}}\n'
          b"@@shard model.safetensors\n{" + (entry % ("a.weight", "BF16", "[2,2]", 0, 8)).encode() + b"}\n")
    write("verify", "journal-only", b"\1@@shard a.safetensors\n{}\n@@shard model-00002-of-00003.safetensors\n{}\n"
          b"@@file model-00003-of-00003.safetensors.partial\nx\n@@file journal\n" + record(2, 1, 0) + record(2, 2, 0) + record(9, 0, 0))
    write("verify", "limits", b'\0@@file limits.json\n{"schema": "qstream.thresholds/1", "name": "n", "rules": [{"role": "mlp", '
          b'"min_sqnr_db": 1e1, "optional": true}, {"match": "re:a|b", "max_rel_error": 0, "comment": []}]}\n')

    write("journal", "empty", b"\0")
    write("journal", "no-journal", b"\0not a journal at all")
    write("journal", "records", b"\1" + record(1, 0, 5) + record(2, 1, 0) + record(3, 2, 0x3f80) + record(4, 7, 0))
    write("journal", "out-of-range", b"\3" + record(1, 30, 0xffffffff) + record(2, 99, 0) + record(4, 0xffffffff, 0) + b"torn")
    for name, data in HUB.items():
        write("hub", name, data.encode())
    write("journal", "backwards", b"\1" + record(1, 9, 3) + record(77, 0, 0))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints(scratch)
    with tempfile.TemporaryDirectory() as scratch:
        parquet(scratch)
    small()
