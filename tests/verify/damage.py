"""A checkpoint in memory, and ways to damage it. Each takes the checkpoint and a random generator, changes one thing at a
random place, and returns what a verifier has to name."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors_files import DTYPE_BYTES, read_header

INDEX = "model.safetensors.index.json"
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


@dataclass
class Stored:
    dtype: str
    shape: tuple[int, ...]
    data: bytearray

    @property
    def item(self) -> int:
        return DTYPE_BYTES[self.dtype]


@dataclass
class Folder:
    """Shards by file name, in order; other files as bytes."""

    shards: dict[str, dict[str, Stored]]
    files: dict[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)  # a shard's file ends after so many of its bytes, negative: before
    renamed: dict[str, str] = field(default_factory=dict)  # the name that a shard's file gets
    source_config: bytes = b""

    @staticmethod
    def read(path: Path, source: Path) -> "Folder":
        shards, files = {}, {}
        for file in sorted(path.iterdir()):
            if file.suffix != ".safetensors":
                files[file.name] = file.read_bytes()
                continue
            raw = file.read_bytes()
            shards[file.name] = {
                t.name: Stored(t.dtype, t.shape, bytearray(raw[t.offset : t.offset + t.nbytes]))
                for t in sorted(read_header(file).tensors, key=lambda t: t.offset)
            }
        return Folder(shards, files, source_config=(source / "config.json").read_bytes())

    def write(self, path: Path) -> None:
        path.mkdir(parents=True)
        for name, content in self.files.items():
            (path / name).write_bytes(content)
        for name, tensors in self.shards.items():
            header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
            at = 0
            for tensor, stored in tensors.items():
                end = at + len(stored.data)
                header[tensor] = {"dtype": stored.dtype, "shape": list(stored.shape), "data_offsets": [at, end]}
                at = end
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            whole = struct.pack("<Q", len(text)) + text + b"".join(bytes(s.data) for s in tensors.values())
            (path / self.renamed.get(name, name)).write_bytes(whole[: self.cut.get(name, len(whole))])

    # tensors

    def find(self, *endings: str, plain: bool = False) -> list[str]:
        """Names of tensors that end so; plain: those that are kept as they are."""
        quantized = {name.removesuffix("_packed") for name in self.names() if name.endswith("_packed")}
        fp8 = {name for name in self.names() if self[name].dtype == "F8_E4M3"}
        return [
            name
            for name in self.names()
            if name.endswith(endings) and len(self[name].data) > 0
            and (not plain or not (name in quantized or name in fp8 or "_scale" in name or "_packed" in name))
        ]

    def names(self) -> list[str]:
        return [name for tensors in self.shards.values() for name in tensors]

    def shard_of(self, name: str) -> dict[str, Stored]:
        return next(tensors for tensors in self.shards.values() if name in tensors)

    def __getitem__(self, name: str) -> Stored:
        return self.shard_of(name)[name]

    # JSON files

    def json(self, file: str) -> Any:
        return json.loads(self.files[file])

    def put_json(self, file: str, value: Any) -> None:
        self.files[file] = json.dumps(value, indent=2).encode()

    def reindex(self, dropped: str | None = None, added: tuple[str, str] | None = None) -> None:
        """Keeps the index right where a damage is not about it."""
        if INDEX not in self.files:
            return
        index = self.json(INDEX)
        if dropped:
            index["weight_map"].pop(dropped)
        if added:
            index["weight_map"][added[0]] = added[1]
        index["metadata"]["total_size"] = sum(len(s.data) for tensors in self.shards.values() for s in tensors.values())
        self.put_json(INDEX, index)


@dataclass(frozen=True)
class Damage:
    """What was done; `subjects`: one of these has to occur in the subject or the message of an error."""

    subjects: tuple[str, ...]
    told: str
    unseen: str | None = None  # why no comparison can see it


class NotHere(Exception):
    """The checkpoint has nothing that this damage needs."""


def pick(generator: random.Random, names: list[Any]) -> Any:
    if not names:
        raise NotHere
    return generator.choice(names)


def stem(name: str) -> str:
    """The module of a tensor."""
    return name.rsplit(".", 1)[0]


def is_zero_block(folder: Folder, scale: str, block: int) -> bool:
    packed = folder[scale.removesuffix("_scale") + "_packed"].data[16 * block : 16 * block + 16]
    return not any(byte & 0x77 for byte in packed)


# ---- values ----


def flip(*endings: str, plain: bool = False, dtype: str | None = None) -> Callable[[Folder, random.Random], Damage]:
    """One bit of one byte."""

    def apply(folder: Folder, generator: random.Random) -> Damage:
        names = [name for name in folder.find(*endings, plain=plain) if dtype in (None, folder[name].dtype)]
        name = pick(generator, names)
        data = folder[name].data
        at, bit = generator.randrange(len(data)), generator.randrange(8)
        unseen = None
        if name.endswith("weight_scale") and folder[name].dtype == "U8":
            if name.removesuffix("_scale") + "_packed" in folder.names() and is_zero_block(folder, name, at):
                unseen = "the scale of a block of zeros"
        data[at] ^= 1 << bit
        return Damage((stem(name),), f"bit {bit} of byte {at} of {name}", unseen)

    return apply


def flip_zero_sign(folder: Folder, generator: random.Random) -> Damage:
    name = pick(generator, folder.find("weight_packed"))
    data = np.frombuffer(folder[name].data, np.uint8)
    at = int(pick(generator, list(np.flatnonzero((data & 7) == 0))))
    folder[name].data[at] ^= 8
    return Damage((stem(name),), f"the sign of the low zero in byte {at} of {name}")


def array(folder: Folder, name: str) -> np.ndarray:
    stored = folder[name]
    return np.frombuffer(stored.data, np.dtype(f"u{stored.item}")).reshape(stored.shape).copy()


def rewrite(change: Callable[[np.ndarray, random.Random], np.ndarray], *endings: str) -> Callable[..., Damage]:
    """Another array in the place of a tensor's; it has to be another."""

    def apply(folder: Folder, generator: random.Random) -> Damage:
        for _ in range(20):
            name = pick(generator, folder.find(*endings))
            old = array(folder, name)
            new = change(old.copy(), generator)
            if not np.array_equal(old, new):
                folder[name].data[:] = new.tobytes()
                return Damage((stem(name),), name)
        raise NotHere

    return apply


def swap_nibbles(packed: np.ndarray, _: random.Random) -> np.ndarray:
    return packed >> 4 | packed << 4


def swap_nibbles_of_row(packed: np.ndarray, generator: random.Random) -> np.ndarray:
    row = generator.randrange(packed.shape[0])
    packed[row] = packed[row] >> 4 | packed[row] << 4
    return packed


def swap_nibbles_of_byte(packed: np.ndarray, generator: random.Random) -> np.ndarray:
    row, column = generator.randrange(packed.shape[0]), generator.randrange(packed.shape[1])
    packed[row, column] = packed[row, column] >> 4 | packed[row, column] << 4
    return packed


def shift_by(bytes_: int) -> Callable[[np.ndarray, random.Random], np.ndarray]:
    return lambda values, _: np.roll(values.reshape(-1), bytes_).reshape(values.shape)


def shift_row(bytes_: int) -> Callable[[np.ndarray, random.Random], np.ndarray]:
    def change(values: np.ndarray, generator: random.Random) -> np.ndarray:
        row = generator.randrange(values.shape[0])
        values[row] = np.roll(values[row], bytes_)
        return values

    return change


def reverse(values: np.ndarray, _: random.Random) -> np.ndarray:
    return values.reshape(-1)[::-1].reshape(values.shape)


def rows_exchanged(values: np.ndarray, generator: random.Random) -> np.ndarray:
    a, b = generator.sample(range(values.shape[0]), 2)
    values[[a, b]] = values[[b, a]]
    return values


def blocks_exchanged(packed: np.ndarray, generator: random.Random) -> np.ndarray:
    """Two blocks of a row, in every row."""
    blocks = packed.reshape(packed.shape[0], -1, 16)
    a, b = generator.sample(range(blocks.shape[1]), 2)
    blocks[:, [a, b]] = blocks[:, [b, a]]
    return blocks.reshape(packed.shape)


def zeros(values: np.ndarray, _: random.Random) -> np.ndarray:
    return np.zeros_like(values)


def last_sign(codes: np.ndarray, _: random.Random) -> np.ndarray:
    codes[-1] ^= 1 << (8 * codes.itemsize - 1)
    return codes


def rows_with_scales_exchanged(folder: Folder, generator: random.Random) -> Damage:
    name = pick(generator, folder.find("weight_packed"))
    a, b = generator.sample(range(folder[name].shape[0]), 2)
    for part in (name, name.removesuffix("_packed") + "_scale"):
        values = array(folder, part)
        values[[a, b]] = values[[b, a]]
        folder[part].data[:] = values.tobytes()
    return Damage((stem(name),), f"rows {a} and {b} of {stem(name)}")


def float_scale(change: Callable[[float], float]) -> Callable[..., Damage]:
    """One scale of an FP8 weight that is a float."""

    def apply(folder: Folder, generator: random.Random) -> Damage:
        names = [name for name in folder.find("weight_scale") if folder[name].dtype in ("F32", "BF16")]
        name = pick(generator, names)
        stored = folder[name]
        at = stored.item * generator.randrange(len(stored.data) // stored.item)
        wide = bytes(4 - stored.item) + stored.data[at : at + stored.item]  # BF16 is the upper half of F32
        changed = struct.pack("<f", change(struct.unpack("<f", wide)[0]))
        stored.data[at : at + stored.item] = changed[4 - stored.item :]
        return Damage((stem(name),), f"scale {at // stored.item} of {name}")

    return apply


def transpose(packed: np.ndarray, _: random.Random) -> np.ndarray:
    """Codes of a matrix stored by column, its numbers of rows and columns exchanged as well as they fit."""
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)
    turned = np.ascontiguousarray(codes.T).reshape(codes.shape)
    return (turned[:, 0::2] | turned[:, 1::2] << 4).astype(np.uint8)


def step(by: int, part: str) -> Callable[[np.ndarray, random.Random], np.ndarray]:
    """Scale codes one up or down, of all blocks, a row, or one block that is not zero."""

    def change(scales: np.ndarray, generator: random.Random) -> np.ndarray:
        moved = np.clip(scales.astype(int) + by, 0, 254).astype(scales.dtype)
        if part == "all":
            return moved
        row = generator.randrange(scales.shape[0])
        scales[row] = moved[row]
        return scales

    return change


def scale_step_of_block(folder: Folder, generator: random.Random) -> Damage:
    name = pick(generator, folder.find("weight_packed")).removesuffix("_packed") + "_scale"
    data = folder[name].data
    at = int(pick(generator, [i for i in range(len(data)) if not is_zero_block(folder, name, i)]))
    data[at] += 1 if data[at] < 200 else -1
    return Damage((stem(name),), f"the scale of block {at} of {name}, one step")


def hole(size: int) -> Callable[[np.ndarray, random.Random], np.ndarray]:
    def change(values: np.ndarray, generator: random.Random) -> np.ndarray:
        flat = values.reshape(-1)
        at = generator.randrange(max(1, flat.size - size))
        flat[at : at + size] = 0
        return values

    return change


def tail_zero(values: np.ndarray, _: random.Random) -> np.ndarray:
    values.reshape(-1)[values.size * 3 // 4 :] = 0
    return values


def run_copied(values: np.ndarray, generator: random.Random) -> np.ndarray:
    flat = values.reshape(-1)
    size = min(256, flat.size // 4)
    a, b = generator.randrange(flat.size - size), generator.randrange(flat.size - size)
    flat[a : a + size] = flat[b : b + size].copy()
    return values


def nan_scale(folder: Folder, generator: random.Random) -> Damage:
    name = pick(generator, folder.find("weight_packed")).removesuffix("_packed") + "_scale"
    at = generator.randrange(len(folder[name].data))
    folder[name].data[at] = 255
    return Damage((stem(name),), f"scale 255 in block {at} of {name}")


def nan_value(folder: Folder, generator: random.Random) -> Damage:
    names = [name for name in folder.find("", plain=True) if folder[name].dtype == "BF16"]
    name = pick(generator, names)
    at = 2 * generator.randrange(len(folder[name].data) // 2)
    folder[name].data[at : at + 2] = b"\xc0\x7f"
    return Damage((name,), f"NaN in {name}")


# ---- tensors ----


def exchanged(*parts: str, like: Callable[[str], str] | None = None) -> Callable[..., Damage]:
    """The bytes of two modules' tensors of equal shape; `like` maps one module to the other."""

    def apply(folder: Folder, generator: random.Random) -> Damage:
        pairs = []
        modules = sorted({stem(name) for name in folder.names() if name.endswith("." + parts[0])})
        for a in modules:
            for b in [like(a)] if like else modules:
                both = [(f"{a}.{part}", f"{b}.{part}") for part in parts]
                if a < b and all(y in folder.names() and x in folder.names() for x, y in both):
                    if all(folder[x].shape == folder[y].shape for x, y in both):
                        if any(folder[x].data != folder[y].data for x, y in both):
                            pairs.append((a, b, both))
        a, b, both = pick(generator, pairs)
        for x, y in both:
            folder[x].data, folder[y].data = folder[y].data, folder[x].data
        return Damage((a, b), f"{' and '.join(parts)} of {a} and {b}")

    return apply


def drop(*endings: str, plain: bool = False) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        name = pick(generator, folder.find(*endings, plain=plain))
        del folder.shard_of(name)[name]
        folder.reindex(dropped=name)
        return Damage((stem(name),), name)

    return apply


def rename(old: str, new: str) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        name = pick(generator, [name for name in folder.names() if name.endswith(old)])
        changed = name.removesuffix(old) + new
        shard = next(file for file, tensors in folder.shards.items() if name in tensors)
        folder.shards[shard][changed] = folder.shards[shard].pop(name)
        folder.reindex(dropped=name, added=(changed, shard))
        return Damage((stem(name),), f"{name} is called {changed}")

    return apply


def add(ending: str, beside: str, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        beside_name = pick(generator, folder.find(beside))
        name = stem(beside_name) + ending
        if name in folder.names():
            raise NotHere
        shard = next(file for file, tensors in folder.shards.items() if beside_name in tensors)
        size = DTYPE_BYTES[dtype] * int(np.prod(shape))
        folder.shards[shard][name] = Stored(dtype, shape, bytearray(size))
        folder.reindex(added=(name, shard))
        return Damage((name,), name)

    return apply


def duplicated(folder: Folder, generator: random.Random) -> Damage:
    if len(folder.shards) < 2:
        raise NotHere
    name = pick(generator, folder.find("", plain=True))
    other = next(file for file, tensors in folder.shards.items() if name not in tensors)
    stored = folder[name]
    folder.shards[other][name] = Stored(stored.dtype, stored.shape, bytearray(stored.data))
    return Damage((name,), f"{name} also in {other}")


def retyped(old: str, new: str) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        name = pick(generator, [name for name in folder.find("", plain=True) if folder[name].dtype == old])
        folder[name].dtype = new
        return Damage((name,), f"{name} is {new}")

    return apply


def reshaped(*endings: str) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        name = pick(generator, [name for name in folder.find(*endings) if len(folder[name].shape) == 2])
        rows, columns = folder[name].shape
        folder[name].shape = (columns, rows) if rows != columns else (rows * columns,)
        return Damage((stem(name),), f"{name} has the shape {folder[name].shape}")

    return apply


# ---- files ----


def shards_exchanged(folder: Folder, generator: random.Random) -> Damage:
    if len(folder.shards) < 2:
        raise NotHere
    a, b = generator.sample(list(folder.shards), 2)
    folder.renamed = {a: b, b: a}
    return Damage((a, b, *folder.shards[a], *folder.shards[b]), f"{a} and {b}")


def shard_cut(share: float | None) -> Callable[..., Damage]:
    """0: in its header; None: at its begin."""

    def apply(folder: Folder, generator: random.Random) -> Damage:
        file = pick(generator, list(folder.shards))
        size = sum(len(s.data) for s in folder.shards[file].values())
        folder.cut[file] = 0 if share is None else int(share * size) or 40
        return Damage((file,), f"{file} ends early")

    return apply


def shard_missing(folder: Folder, generator: random.Random) -> Damage:
    if len(folder.shards) < 2:
        raise NotHere
    file = pick(generator, list(folder.shards))
    names = tuple(folder.shards.pop(file))
    return Damage((file, *names), file)


def config_key(change: Callable[[dict[str, Any], random.Random], str]) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        config = folder.json("config.json")
        subject = change(config, generator)
        folder.put_json("config.json", config)
        return Damage((subject,), subject)

    return apply


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("text_config", config)


def key_changed(config: dict[str, Any], generator: random.Random) -> str:
    text = text_of(config)
    key = pick(generator, [key for key, value in text.items() if isinstance(value, (int, float))])
    text[key] = text[key] + 1
    return key


def key_removed(config: dict[str, Any], generator: random.Random) -> str:
    text = text_of(config)
    key = pick(generator, [key for key, value in text.items() if value not in (None, False, "", [], {})
                           and key not in ("quantization_config", "transformers_version")])
    del text[key]
    return key


def rope_theta(config: dict[str, Any], _: random.Random) -> str:
    text_of(config)["rope_parameters"]["rope_theta"] = 10000.0
    return "rope_parameters"


def dtype_key(config: dict[str, Any], _: random.Random) -> str:
    config["dtype"] = "float16"
    return "dtype"


def architecture(config: dict[str, Any], _: random.Random) -> str:
    config["architectures"] = ["LlamaModel"]
    return "architectures"


def config_of_source(folder: Folder, _: random.Random) -> Damage:
    folder.files["config.json"] = folder.source_config
    return Damage(("",), "config.json is the source's")


def of_quantization(key: str, value: Any) -> Callable[[dict[str, Any], random.Random], str]:
    def change(config: dict[str, Any], _: random.Random) -> str:
        config["quantization_config"][key] = value
        return ""

    return change


def of_group(part: str | None, key: str, value: Any) -> Callable[[dict[str, Any], random.Random], str]:
    """A member of a group that has another value."""

    def change(config: dict[str, Any], generator: random.Random) -> str:
        members = [group[part] if part else group for group in groups_of(config).values()]
        pick(generator, [member for member in members if member.get(key, value) != value])[key] = value
        return ""

    return change


def ignored(config: dict[str, Any], generator: random.Random) -> str:
    group = pick(generator, list(groups_of(config).values()))
    config["quantization_config"]["ignore"].append(group["targets"][0])
    return ""


def groups_of(config: dict[str, Any]) -> dict[str, Any]:
    return config["quantization_config"]["config_groups"]


def groups_exchanged(config: dict[str, Any], _: random.Random) -> str:
    groups = groups_of(config)
    if len(groups) < 2:
        raise NotHere
    groups["group_0"]["targets"], groups["group_1"]["targets"] = (
        groups["group_1"]["targets"], groups["group_0"]["targets"])
    return "group"


def group_dropped(config: dict[str, Any], generator: random.Random) -> str:
    del groups_of(config)[pick(generator, list(groups_of(config)))]
    return ""


def bits_changed(config: dict[str, Any], generator: random.Random) -> str:
    weights = groups_of(config)[pick(generator, list(groups_of(config)))]["weights"]
    weights["num_bits"] = 12 - weights["num_bits"]
    return ""


def strategy_changed(config: dict[str, Any], _: random.Random) -> str:
    for group in groups_of(config).values():
        if group["weights"]["strategy"] in ("tensor", "channel"):
            group["weights"]["strategy"] = {"tensor": "channel", "channel": "tensor"}[group["weights"]["strategy"]]
            return ""
    raise NotHere


def status_missing(config: dict[str, Any], _: random.Random) -> str:
    del config["quantization_config"]["quantization_status"]
    return ""


def quantization_missing(config: dict[str, Any], _: random.Random) -> str:
    del config["quantization_config"]
    return ""


def sidecar_changed(folder: Folder, generator: random.Random) -> Damage:
    name = pick(generator, [n for n in ("tokenizer.json", "generation_config.json", "NOTICE.txt", "LICENSE")
                            if n in folder.files])
    content = bytearray(folder.files[name])
    at = generator.randrange(len(content))
    content[at] = ord("7") if content[at] != ord("7") else ord("8")
    folder.files[name] = bytes(content)
    return Damage((name,), f"byte {at} of {name}")


def sidecar_missing(folder: Folder, generator: random.Random) -> Damage:
    name = pick(generator, [n for n in ("tokenizer.json", "generation_config.json") if n in folder.files])
    del folder.files[name]
    return Damage((name,), name)


def manifest_value(key: str, change: Callable[[Any], Any]) -> Callable[..., Damage]:
    """What the manifest says of a file; of README.md, which people edit, it is no error."""

    def apply(folder: Folder, generator: random.Random) -> Damage:
        manifest = folder.json("qstream.json")
        file = pick(generator, [file for file in manifest["files"] if file["name"] != "README.md"])
        file[key] = change(file[key])
        folder.put_json("qstream.json", manifest)
        return Damage((file["name"],), f"{key} of {file['name']}")

    return apply


manifest_digest = manifest_value("sha256", lambda digest: ("0" if digest[0] != "0" else "1") + digest[1:])
manifest_size = manifest_value("size", lambda size: size + 1)


def index_changed(change: Callable[[dict[str, Any], random.Random], str]) -> Callable[..., Damage]:
    def apply(folder: Folder, generator: random.Random) -> Damage:
        if INDEX not in folder.files:
            raise NotHere
        index = folder.json(INDEX)
        subject = change(index, generator)
        folder.put_json(INDEX, index)
        return Damage((subject,), subject)

    return apply


def entry_missing(index: dict[str, Any], generator: random.Random) -> str:
    name = pick(generator, list(index["weight_map"]))
    del index["weight_map"][name]
    return name


def entry_wrong(index: dict[str, Any], generator: random.Random) -> str:
    name = pick(generator, list(index["weight_map"]))
    index["weight_map"][name] = pick(generator, [f for f in set(index["weight_map"].values())
                                                 if f != index["weight_map"][name]])
    return name


def entry_extra(index: dict[str, Any], _: random.Random) -> str:
    index["weight_map"]["model.nothing.weight"] = next(iter(index["weight_map"].values()))
    return "model.nothing.weight"


def entry_elsewhere(index: dict[str, Any], generator: random.Random) -> str:
    name = pick(generator, list(index["weight_map"]))
    index["weight_map"][name] = "model-00007-of-00007.safetensors"
    return "model-00007-of-00007.safetensors"


def total_size(index: dict[str, Any], _: random.Random) -> str:
    index["metadata"]["total_size"] += 10
    return INDEX
