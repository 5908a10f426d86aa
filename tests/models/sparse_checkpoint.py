"""Checkpoints of any size on any disk: true headers, index, config, scales and norms, and holes where the weights would be."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from make_checkpoint import Spec, Weights, config, cut_shards, model_entries
from safetensors_files import write_shards

LARGE = 1 << 20


def sparse_checkpoint(folder: Path, spec: Spec, holes_from: int = LARGE) -> Path:
    """Tensors of so many bytes or more read as zeros. What is there is kept if it was made so."""
    made, how = folder.with_name(folder.name + ".spec"), f"{spec} {holes_from}\n"
    if not made.exists() or made.read_text() != how:
        made.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        entries = [replace(entry, chunks=None if entry.nbytes >= holes_from else entry.chunks)
                   for entry in model_entries(spec, Weights(spec))]  # fmt: skip
        write_shards(folder, cut_shards(spec, entries))
        (folder / "README.md").write_text("# holes\n")
        (folder / "tokenizer_config.json").write_text("{}\n")
        (folder / "config.json").write_text(json.dumps(config(spec)))
        made.write_text(how)
    return folder
