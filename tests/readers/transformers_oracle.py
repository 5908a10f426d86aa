#!/usr/bin/env python3
"""Loads a checkpoint with transformers and tells whether it arrived as meant.

    transformers_oracle.py FOLDER

prints JSON: whether it loads, the error, which names were missing, unexpected or of another shape, which modules hold
other weights than their tensors say, and whether a forward pass stays finite. What the tensors say is decoded in numpy
from the bytes of the files, by dtypes, names and shapes alone: the configuration has no part in it. Run it with
build/readers-transformers/bin/python (venv.sh), or import judge().
"""

import argparse
import io
import json
import logging
import os
import re
import sys
import warnings
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical", "TQDM_DISABLE": "1",
               "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from loguru import logger as loguru_logger  # noqa: E402
from number_formats import bf16_decode, e2m1_decode, e2m1_unpack, fp8_decode  # noqa: E402
from safetensors_files import BadFile, Tensor, read_header  # noqa: E402

INDEX = "model.safetensors.index.json"
BLOCK = 128
EXPONENT_NAN = 255
# BF16 holds the scale and then the product: each rounds by up to 2^-9.
RELATIVE_TOLERANCE = 2.0**-7
F16_STEP = 2.0**-24  # between small numbers
TOKENS = 7

# Names of older checkpoints, as the transformers classes call the same module today.
RENAMED = [
    (r"^language_model\.lm_head\b", "lm_head"),
    (r"^language_model\.model\b", "model.language_model"),
    (r"^(vision_tower|multi_modal_projector)\b", r"model.\1"),
]


@dataclass
class Verdict:
    """What transformers made of a checkpoint."""

    loads: bool = False
    error: str | None = None
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    wrong_values: list[str] = field(default_factory=list)
    forward_ok: bool = False

    @property
    def as_meant(self) -> bool:
        """Unexpected names do no harm as long as all weights are right: a tensor more than the model has."""
        return self.loads and self.forward_ok and not (self.missing or self.mismatched or self.wrong_values)


def values(tensor: Tensor) -> np.ndarray | None:
    """A tensor's numbers; None where the dtype holds codes rather than numbers."""
    array = tensor.array()
    if tensor.dtype == "BF16":
        return bf16_decode(array)
    if tensor.dtype == "F8_E4M3":
        return fp8_decode(array)
    if tensor.dtype == "F8_E8M0":
        return exponents(array)
    return array.astype(np.float32) if tensor.dtype in ("F16", "F32", "F64") else None


def exponents(codes: np.ndarray) -> np.ndarray:
    scales = np.ldexp(1.0, codes.astype(np.int32) - 127)
    return np.where(codes == EXPONENT_NAN, np.nan, scales)


def spread(scales: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Scales laid over a weight: one for all, for a row, for a run of columns, or for a block of 128 x 128."""
    rows, columns = shape
    if scales.size == 1:
        return np.broadcast_to(scales.reshape(()), shape)
    if scales.shape in ((rows,), (rows, 1)):
        return np.broadcast_to(scales.reshape(rows, 1), shape)
    if scales.ndim == 2 and scales.shape[0] == rows and columns % scales.shape[1] == 0:
        return np.repeat(scales, columns // scales.shape[1], axis=1)
    if scales.shape == (-(-rows // BLOCK), -(-columns // BLOCK)):
        return np.repeat(np.repeat(scales, BLOCK, axis=0), BLOCK, axis=1)[:rows, :columns]
    return None


def decode(parts: dict[str, Tensor]) -> np.ndarray | None:
    """A module's weight from its tensors; None when they do not make sense together."""
    packed, weight, scale = parts.get("weight_packed"), parts.get("weight"), parts.get("weight_scale")
    if packed is None and weight is not None and scale is None:
        return None if weight.dtype == "F8_E4M3" else values(weight)
    codes = packed if packed is not None else weight
    if scale is None or codes is None or codes.dtype != ("F8_E4M3" if packed is None else "U8"):
        return None
    numbers = fp8_decode(codes.array()) if packed is None else e2m1_decode(e2m1_unpack(codes.array()))
    scales = exponents(scale.array()) if scale.dtype == "U8" else values(scale)
    if scales is None or numbers.ndim != 2 or (laid := spread(scales, numbers.shape)) is None:
        return None
    if (divisor := parts.get("weight_global_scale")) is not None:
        if (divisor_value := values(divisor)) is None:
            return None
        laid = laid / divisor_value.reshape(-1)[0]
    return numbers * laid


def files_of(folder: Path) -> dict[str, Tensor]:
    """The tensors as the index assigns them; those it does not know come from wherever they are."""
    index = folder / INDEX
    weight_map = json.loads(index.read_text()).get("weight_map", {}) if index.exists() else {}
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name.startswith("consolidated"):
            continue
        for tensor in read_header(file).tensors:
            if tensor.name not in tensors or weight_map.get(tensor.name) == file.name:
                tensors[tensor.name] = tensor
    return tensors


def modules_of(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{module, as transformers calls it: {weight, weight_scale...: tensor}}"""
    modules: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors.values():
        name = tensor.name
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensor
    return modules


def expected_parameter(name: str, modules: dict[str, dict[str, Tensor]], experts: int) -> np.ndarray | None:
    """What the tensors say a parameter of the running model is."""
    module, _, part = name.rpartition(".")
    if part in ("gate_up_proj", "down_proj"):
        if part in modules.get(module, {}):
            return values(modules[module][part])
        stacked = []
        for number in range(experts):
            names = ["gate_proj", "up_proj"] if part == "gate_up_proj" else ["down_proj"]
            weights = [decode(modules.get(f"{module}.{number}.{projection}", {})) for projection in names]
            if any(weight is None for weight in weights):
                return None
            stacked.append(np.concatenate([weight for weight in weights if weight is not None]))
        return np.stack(stacked)
    parts = modules.get(module, {})
    if part == "weight":
        return decode(parts)
    return values(parts[part]) if part in parts else None


def is_same(found: torch.Tensor, wanted: np.ndarray | None) -> bool:
    """No weight is meant to be infinite or NaN, whatever the tensors say."""
    if wanted is None or wanted.size != found.numel() or not np.isfinite(wanted).all():
        return False
    numbers = found.detach().to(torch.float64).numpy()
    step = F16_STEP if found.dtype == torch.float16 else 0
    return np.allclose(numbers.ravel(), wanted.ravel(), rtol=RELATIVE_TOLERANCE, atol=step)


def wrong_modules(model: torch.nn.Module, modules: dict[str, dict[str, Tensor]]) -> list[str]:
    """Modules whose dense parameters, or activation scales, are not what the tensors say."""
    text = model.config.get_text_config()
    experts = getattr(text, "num_experts", 0)
    wrong = set()
    tied = getattr(model, "all_tied_weights_keys", {})
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module, _, part = name.rpartition(".")
        if part.startswith("weight_"):
            continue  # already multiplied into the weight
        source = name
        if name in tied and name.rpartition(".")[0] not in modules:
            source = tied[name]
        if not is_same(parameter, expected_parameter(source, modules, experts)):
            wrong.add(module)
    return sorted(wrong)


def message(error: BaseException) -> str:
    first = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(first)[:300]}"


def judge(folder: Path) -> Verdict:
    """Loads the checkpoint, decompresses it, compares every parameter and runs it once."""
    with redirect_stderr(io.StringIO()):  # progress bars that cannot be turned off
        return judged(folder)


def judged(folder: Path) -> Verdict:
    verdict = Verdict()
    try:
        config = json.loads((folder / "config.json").read_text())
        model_class = getattr(transformers, config["architectures"][0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, info = model_class.from_pretrained(folder, output_loading_info=True)
    except Exception as error:  # whatever it is, it is the answer
        verdict.error = message(error)
        return verdict
    verdict.loads = True
    verdict.missing = sorted(info["missing_keys"])
    verdict.unexpected = sorted(info["unexpected_keys"])
    verdict.mismatched = sorted(str(key) for key in info["mismatched_keys"])
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(1, TOKENS + 1).remainder(vocabulary).reshape(1, -1)
    try:
        with torch.no_grad():
            logits = model(input_ids=tokens).logits  # decompresses the weights first
        verdict.forward_ok = bool(torch.isfinite(logits).all())
    except Exception as error:
        verdict.error = message(error)
    try:
        modules = modules_of(files_of(folder))
    except (BadFile, ValueError, OSError) as error:
        verdict.error = verdict.error or f"the files cannot be read: {error}"
        verdict.wrong_values = ["(unknown)"]
        return verdict
    if verdict.error is None:
        verdict.wrong_values = wrong_modules(model, modules)
    return verdict


def be_quiet() -> None:
    """The libraries report on stderr what the verdict says anyway."""
    loguru_logger.remove()
    logging.getLogger("compressed_tensors").setLevel(logging.CRITICAL)
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()


be_quiet()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    verdict = judge(parser.parse_args().folder)
    result: dict[str, Any] = {**asdict(verdict), "as_meant": verdict.as_meant}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
