"""Small changes to a checkpoint. Each function returns an Edit; names of tensors are globs that must match some."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from checkpoints import INDEX, Checkpoint, Stored, stored_array

REMOVED = object()  # as the value of a key: the key goes


@dataclass(frozen=True)
class Edit:
    """`what` is touched decides whether --fix can undo it: it writes quantization_config and the index."""

    what: Literal["quantization", "config", "index", "tensor", "file"]
    apply: Callable[[Checkpoint], None]


def _set(mapping: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        mapping = mapping[key]
    if value is REMOVED:
        del mapping[last]
    else:
        mapping[last] = value


def quant(path: str, value: Any) -> Edit:
    """Sets a key of quantization_config; group_0.weights is short for config_groups.group_0.weights."""
    full = f"config_groups.{path}" if path.startswith("group_") else path
    return Edit("quantization", lambda c: _set(c.config["quantization_config"], full, value))


def whole_quant(value: Any) -> Edit:
    """Replaces quantization_config; a function is called with the checkpoint."""
    make = value if callable(value) else lambda _: value
    return Edit("quantization", lambda c: _set(c.config, "quantization_config", make(c)))


def ignore(*entries: str) -> Edit:
    """More entries of `ignore`."""
    return Edit("quantization", lambda c: c.config["quantization_config"]["ignore"].extend(entries))


def targets(group: int, *entries: str) -> Edit:
    return quant(f"group_{group}.targets", list(entries))


def more_targets(group: int, *entries: str) -> Edit:
    def apply(c: Checkpoint) -> None:
        c.config["quantization_config"]["config_groups"][f"group_{group}"]["targets"].extend(entries)

    return Edit("quantization", apply)


def config(path: str, value: Any) -> Edit:
    return Edit("config", lambda c: _set(c.config, path, value))


def index(path: str, value: Any) -> Edit:
    return Edit("index", lambda c: _set(c.index, path, value))


def index_entry(name: str, shard: Any) -> Edit:
    """Where the index says that a tensor lies: a number stands for that shard."""

    def apply(c: Checkpoint) -> None:
        weight_map = c.index["weight_map"]
        if shard is REMOVED:
            del weight_map[name]
        else:
            weight_map[name] = list(c.shards)[shard] if isinstance(shard, int) else shard

    return Edit("index", apply)


def whole_index(value: Any) -> Edit:
    return Edit("index", lambda c: setattr(c, "index", value))


def index_text(text: str) -> Edit:
    return Edit("index", lambda c: c.after.append(lambda folder: (folder / INDEX).write_text(text)))


def _names(checkpoint: Checkpoint, glob: str) -> list[str]:
    names = [name for name in checkpoint.tensors if fnmatchcase(name, glob)]
    assert names, f"no tensor is called {glob}"
    return names


def _each(glob: str, change: Callable[[Checkpoint, str], None]) -> Edit:
    def apply(c: Checkpoint) -> None:
        for name in _names(c, glob):
            change(c, name)

    return Edit("tensor", apply)


def drop(glob: str) -> Edit:
    return _each(glob, lambda c, name: c.drop(name) and None)


def rename(glob: str, old: str, new: str) -> Edit:
    def change(c: Checkpoint, name: str) -> None:
        file = c.shard_of(name)
        c.put(name.replace(old, new), c.drop(name), file)

    return _each(glob, change)


def add(name: str, stored: Stored, shard: int = -1) -> Edit:
    return Edit("tensor", lambda c: c.put(name, stored, list(c.shards)[shard]))


def remake(glob: str, change: Callable[[np.ndarray], np.ndarray], dtype: str | None = None) -> Edit:
    """Another array in a tensor's place, of its dtype unless told."""

    def apply(c: Checkpoint, name: str) -> None:
        made = np.ascontiguousarray(change(c.array(name)))
        c.put(name, stored_array(dtype or c.tensors[name].dtype, made))

    return _each(glob, apply)


def relabel(glob: str, dtype: str) -> Edit:
    """The same bytes under another dtype."""
    return _each(glob, lambda c, name: c.put(name, replace(c.tensors[name], dtype=dtype)))


def reshape(glob: str, *shape: int) -> Edit:
    return _each(glob, lambda c, name: c.put(name, replace(c.tensors[name], shape=shape)))


def poke(glob: str, value: float, at: int = 0) -> Edit:
    """One number, or the code of a dtype that numpy does not know."""

    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[at] = value
        return array

    return remake(glob, change)


def store(glob: str, make: Callable[[int, int], dict[str, Stored]]) -> Edit:
    """Stores the modules that `glob` names in another format: [out, in] -> its tensors."""

    def apply(c: Checkpoint) -> None:
        modules = {name.rpartition(".")[0] for name in c.tensors}
        chosen = sorted(module for module in modules if fnmatchcase(module, glob))
        assert chosen, f"no module is called {glob}"
        for module in chosen:
            old = {name: c.tensors[name] for name in c.tensors if name.rpartition(".")[0] == module}
            weight = next(old[name] for name in old if name.endswith((".weight", ".weight_packed")))
            per_byte = {"U8": 2, "I32": 8}.get(weight.dtype, 1)
            file = c.shard_of(next(iter(old)))
            for name in old:
                c.drop(name)
            for part, stored in make(weight.shape[0], weight.shape[1] * per_byte).items():
                c.put(f"{module}.{part}", stored, file)

    return Edit("tensor", apply)


def file_edit(change: Callable[[Path], None]) -> Edit:
    return Edit("file", lambda c: c.after.append(change))


def shard_bytes(number: int, change: Callable[[bytes], bytes]) -> Edit:
    """The raw bytes of a shard."""

    def apply(c: Checkpoint) -> None:
        name = list(c.shards)[number]

        def after(folder: Path) -> None:
            content = (folder / name).read_bytes()
            (folder / name).unlink()  # a hard link: the good checkpoint must keep its own
            (folder / name).write_bytes(change(content))

        c.after.append(after)

    return Edit("file", apply)


def shard_header(number: int, change: Callable[[dict[str, Any]], None]) -> Edit:
    """A shard's header, the data as it was."""

    def rewrite(content: bytes) -> bytes:
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change(header)
        text = json.dumps(header, separators=(",", ":")).encode()
        return len(text).to_bytes(8, "little") + text + content[end:]

    return shard_bytes(number, rewrite)


def shard_gone(number: int) -> Edit:
    return Edit("file", lambda c: c.after.append(lambda folder: (folder / list(c.shards)[number]).unlink()))


def shard_as(number: int, name: str) -> Edit:
    """A copy of a shard under another name."""

    def apply(c: Checkpoint) -> None:
        c.after.append(lambda folder: (folder / name).write_bytes((folder / list(c.shards)[number]).read_bytes()))

    return Edit("file", apply)
