"""`qstream audit --fix OUT`: what it writes repairs the checkpoint, and the checkpoint itself is left alone."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from audits import audit
from checkpoints import INDEX, Checkpoint
from safetensors_files import read_header

WRITTEN = {"config.json", INDEX}


def snapshot(folder: Path) -> dict[str, Any]:
    """Enough of every file to notice a change."""
    if not folder.exists():
        return {}
    state = {}
    for file in folder.iterdir():
        status = file.stat()
        text = file.read_bytes() if file.suffix == ".json" else b""
        state[file.name] = (status.st_ino, status.st_size, status.st_mtime_ns, text)
    return state


def fix_problems(folder: Path, good: Checkpoint) -> list[str]:
    out, repaired = folder.with_name(folder.name + ".fix"), folder.with_name(folder.name + ".repaired")
    for old in (out, repaired):
        shutil.rmtree(old, ignore_errors=True)
    before = snapshot(folder)
    plain, fixing = audit(folder), audit(folder, "--fix", out)
    if fixing.status != plain.status:
        return [f"exit {fixing.status} with --fix, {plain.status} without: {fixing.errors}"]
    if snapshot(folder) != before:
        return ["the checkpoint has changed"]
    names = {file.name for file in out.iterdir()} if out.is_dir() else set()
    if not names or names - WRITTEN:
        return [f"written: {sorted(names)}"]
    problems = written_problems(folder, out, names, good) + repeat_problems(folder, out)
    shutil.copytree(folder, repaired, copy_function=os.link)
    for name in names:
        (repaired / name).unlink(missing_ok=True)
        shutil.copy(out / name, repaired / name)
    result = audit(repaired)
    problems += result.problems()
    problems += [f"still there: {finding['id']} {finding['subject']}" for finding in result.findings]
    if not problems:
        shutil.rmtree(out)
        shutil.rmtree(repaired)
    return problems


def written_problems(folder: Path, out: Path, names: set[str], good: Checkpoint) -> list[str]:
    """What is not quantization_config stays as it is; the index names every tensor where it lies."""
    problems = []
    if "config.json" in names:
        old, new = (json.loads((each / "config.json").read_text()) for each in (folder, out))
        for config in (old, new):
            config.pop("quantization_config", None)
        if list(old.items()) != list(new.items()):
            problems.append("config.json has changed elsewhere")
    if INDEX in names:
        index = json.loads((out / INDEX).read_text())
        shards = sorted(file for file in folder.glob("*.safetensors") if file.name in good.shards)
        truth = {tensor.name: (file.name, tensor.nbytes) for file in shards for tensor in read_header(file).tensors}
        if index["weight_map"] != {name: file for name, (file, _) in truth.items()}:
            problems.append("the index is not right")
        if index["metadata"]["total_size"] != sum(size for _, size in truth.values()):
            problems.append(f"total_size {index['metadata']['total_size']}")
    return problems


def repeat_problems(folder: Path, out: Path) -> list[str]:
    """Existing files are replaced with --force only."""
    problems, before = [], snapshot(out)
    again = audit(folder, "--fix", out)
    if again.status != 2 or snapshot(out) != before:
        problems.append(f"exit {again.status} the second time, expected a refusal and the files as they were")
    forced = audit(folder, "--fix", out, "--force")
    if forced.status == 2 or {name: state[3] for name, state in snapshot(out).items()} != {
        name: state[3] for name, state in before.items()
    }:
        problems.append(f"exit {forced.status} with --force: {forced.errors}")
    return problems
