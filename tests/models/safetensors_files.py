"""Reading and writing safetensors without the reference library: streaming, and in every dtype.

The tests need both: the library's numpy side knows neither BF16 nor FP8 and wants whole tensors in memory, and an
output should be read by two readers that share no code.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

# What numpy makes of a tensor's bytes: values where it knows the dtype, else the codes.
DTYPE_NUMPY = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "F8_E8M0": np.uint8,
    "I16": np.int16, "U16": np.uint16, "F16": np.float16, "BF16": np.uint16,
    "I32": np.int32, "U32": np.uint32, "F32": np.float32,
    "I64": np.int64, "U64": np.uint64, "F64": np.float64,
}  # fmt: skip


class BadFile(Exception):
    """A file is not what its format promises."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def array(self) -> np.ndarray:
        """The tensor mapped read-only, as DTYPE_NUMPY says."""
        if self.nbytes == 0:
            return np.zeros(self.shape, DTYPE_NUMPY[self.dtype])
        return np.memmap(self.file, DTYPE_NUMPY[self.dtype], "r", self.offset, self.shape)


@dataclass(frozen=True)
class Header:
    metadata: dict[str, str] | None
    tensors: list[Tensor]  # in the header's order
    data_start: int
    padding: bytes  # what follows the closing brace


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise BadFile("a name occurs twice in the header")
    return dict(pairs)


def read_header(file: Path) -> Header:
    """Parses the header; raises BadFile unless the tensors cover the data section exactly once."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise BadFile(f"{file}: shorter than its length field")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(size - 8, 100_000_000):
            raise BadFile(f"{file}: header length {length} does not fit the file")
        raw = stream.read(length)
    text = raw.rstrip(b" ")
    entries = json.loads(text, object_pairs_hook=_unique_keys)
    metadata = entries.pop("__metadata__", None)
    tensors = [
        Tensor(name, entry["dtype"], tuple(entry["shape"]), file, 8 + length + entry["data_offsets"][0])
        for name, entry in entries.items()
    ]
    ends = {name: 8 + length + entry["data_offsets"][1] for name, entry in entries.items()}
    position = 8 + length
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != position or ends[tensor.name] != position + tensor.nbytes:
            raise BadFile(f"{file}: {tensor.name} lies at {tensor.offset}..{ends[tensor.name]}, expected "
                          f"{position}..{position + tensor.nbytes}")
        position += tensor.nbytes
    if position != size:
        raise BadFile(f"{file}: {size - position} bytes behind the last tensor")
    return Header(metadata, tensors, 8 + length, raw[len(text):])


def checkpoint_shards(folder: Path) -> list[Path]:
    """The shards that hold a checkpoint's weights: those the index names, or else every *.safetensors file but the
    consolidated ones."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("consolidated"))


def checkpoint_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name."""
    tensors: dict[str, Tensor] = {}
    for shard in checkpoint_shards(folder):
        for tensor in read_header(shard).tensors:
            if tensor.name in tensors:
                raise BadFile(f"{tensor.name} is both in {tensors[tensor.name].file.name} and in {shard.name}")
            tensors[tensor.name] = tensor
    if not tensors:
        raise BadFile(f"{folder}: no *.safetensors file with tensors")
    return tensors


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; `chunks` yields its bytes in order, in arrays of any size. None leaves a hole, which reads as
    zeros and takes no space."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[np.ndarray]] | None

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


def entry_of(name: str, dtype: str, array: np.ndarray) -> Entry:
    """An entry for an array that is already in memory."""
    return Entry(name, dtype, array.shape, lambda: [array])


def write_shard(file: Path, entries: list[Entry]) -> None:
    """Writes one file, the wider dtypes first and then by name, as the reference library does."""
    entries = sorted(entries, key=lambda e: (-DTYPE_BYTES[e.dtype], e.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.nbytes],
        }
        position += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            start = stream.tell()
            if not entry.chunks:
                stream.truncate(start + entry.nbytes)
                stream.seek(0, os.SEEK_END)
            for chunk in entry.chunks() if entry.chunks else ():
                stream.write(memoryview(np.atleast_1d(chunk)).cast("B"))
            if stream.tell() - start != entry.nbytes:
                raise ValueError(f"{entry.name}: made {stream.tell() - start} bytes, {entry.nbytes} were promised")


def write_shards(folder: Path, shards: list[list[Entry]]) -> None:
    """model.safetensors for one shard, else model-0000k-of-0000n.safetensors and their index."""
    if len(shards) == 1:
        write_shard(folder / "model.safetensors", shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, entries in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / name, entries)
        weight_map |= {entry.name: name for entry in entries}
    total_size = sum(entry.nbytes for entries in shards for entry in entries)
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class NewFolder:
    """`with NewFolder(final) as folder:` fills a folder beside `final` and puts it in its place at the end; after an
    error nothing has changed. A folder that holds anything but a checkpoint is not replaced."""

    def __init__(self, final: Path) -> None:
        if final.exists() and any(final.iterdir()) and not (final / "config.json").exists():
            raise SystemExit(f"{final} exists and is no checkpoint: name another folder, or remove it")
        self.final = final
        self.work = final.with_name(f".{final.name}.partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        return self.work

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            shutil.rmtree(self.final, ignore_errors=True)
            self.work.rename(self.final)
        else:
            shutil.rmtree(self.work)
