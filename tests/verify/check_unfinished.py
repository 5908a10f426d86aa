#!/usr/bin/env python3
"""Checks what `qstream verify` says of folders that `qstream quantize` is still filling: after some of the parts, and
after a run that was killed. Prints TAP. QSTREAM names another binary, QSTREAM_TEST_SEED other moments and places.

    check_unfinished.py [--keep FOLDER]
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from verifying import REPO, SEED, TIMEOUT, Answer, Tap, quantize, verify

sys.path.insert(0, str(REPO / "tests" / "models"))

from make_checkpoint import Spec, make_checkpoint  # noqa: E402
from safetensors_files import Tensor, checkpoint_tensors, read_header  # noqa: E402

RECIPE = REPO / "configs" / "mistral-medium-3.5-mxfp4.json"
PARTS = 3
SMALL = Spec(hidden=128, mlp=160, layers=4, heads=2, kv_heads=1, head_dim=64, vocab=256)
MOMENTS = 6  # with some shards complete and some not, at which a run was killed
ATTEMPTS = 300  # that MOMENTS of them come at the right time, on slow machines as well
OPTIONS = ("--shard-size", "256KiB")


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Tensors of the shards of an unfinished folder."""
    shards = (file for file in folder.iterdir() if ".safetensors" in file.name and file.suffix != ".json")
    return {tensor.name: tensor for file in shards for tensor in read_header(file).tensors}


def is_unfinished(answer: Answer) -> list[str]:
    """No complaint about what is not there yet."""
    told, problems = answer.json, answer.problems()
    if (answer.status, told["state"], told["accounting"]["missing"]) != (0, "unfinished", 0):
        problems.append(
            f"exit {answer.status}, {told['state']}, {told['accounting']}: {answer.told('error', 'warning')[:3]}"
        )
    accounting = told["accounting"]
    if sum(accounting[key] for key in ("quantized", "kept", "consumed", "not_yet")) != accounting["source_tensors"]:
        problems.append(f"accounting {accounting}")
    return problems


def without_rule(weight: dict[str, Any]) -> dict[str, Any]:
    """What does not hang on whether a rule is known."""
    blocks = weight["blocks"] and {key: value for key, value in weight["blocks"].items() if key != "scale_of_rule"}
    return weight | {"blocks": blocks}


def weights_of(answer: Answer) -> dict[str, Any]:
    return {weight["name"]: without_rule(weight) for weight in answer.json["tensors"] if weight["read"] > 0}


def flipped(source: Path, folder: Path, tensor: Tensor, generator: random.Random) -> list[str]:
    """One bit of a tensor in a complete shard is found, and nothing else is."""
    at = tensor.offset + generator.randrange(tensor.nbytes)
    mask = 1 << generator.randrange(8)
    with tensor.file.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))
        file.flush()
        answer = verify(source, folder, "--rounding", "nearest", "--rule", "mse")
        file.seek(at)
        file.write(bytes([byte]))
    module = tensor.name.rpartition(".")[0]
    errors = [each for each in answer.findings if each["severity"] == "error"]
    if answer.status == 1 and errors and all(each["subject"] in (tensor.name, module) for each in errors):
        return []
    return [f"bit {mask} of byte {at} of {tensor.name}: exit {answer.status}: {answer.told('error')[:3]}"]


def parts_made(source: Path, work: Path, whole: Answer, shards: dict[str, str], made: tuple[int, ...]) -> list[str]:
    """After these parts, and no others: their tensors have the figures that they have in the end."""
    folder = work / f"parts-{'-'.join(map(str, made))}"
    for number in made:
        quantize(source, folder, RECIPE, "mse", *OPTIONS, "--part", f"{number}/{PARTS}")
    answer = verify(source, folder)
    problems = is_unfinished(answer)
    accounting, weights, final = answer.json["accounting"], weights_of(answer), weights_of(whole)
    there = tensors_of(folder)
    if accounting["output_tensors"] != len(there) or accounting["not_yet"] == 0 or not there:
        problems.append(f"{len(there)} tensors are there: {accounting}")
    expected = {name for name in final if name.replace(".weight", ".weight_packed") in there}
    if weights.keys() != expected:
        problems.append(f"{sorted(weights.keys() ^ expected)[:3]} of {len(expected)} weights")
    problems += [f"{name} has other figures than in the end" for name in weights if weights[name] != final.get(name)]
    if elsewhere := [
        name for name, tensor in there.items() if shards[name] != tensor.file.name.removesuffix(".partial")
    ]:
        problems.append(f"{elsewhere[:3]} lie in other shards in the end")
    generator = random.Random(f"{SEED}/{made}")
    for ending in (".weight_packed", "_proj.weight_scale", "_proj.weight", "norm.weight"):
        names = sorted(name for name in there if name.endswith(ending))
        if names:
            problems += flipped(source, folder, there[generator.choice(names)], generator)
    return problems


def all_parts(source: Path, work: Path, whole: Answer) -> list[str]:
    """All parts without --finish are unfinished and read everything; with it they are the whole."""
    folder = work / "all-parts"
    for number in range(PARTS):
        quantize(source, folder, RECIPE, "mse", *OPTIONS, "--part", f"{number}/{PARTS}")
    answer = verify(source, folder)
    problems = is_unfinished(answer)
    if answer.json["accounting"]["not_yet"] or weights_of(answer) != weights_of(whole):
        problems.append(f"not everything was compared: {answer.json['accounting']}")
    quantize(source, folder, RECIPE, "mse", *OPTIONS, "--finish")
    finished = verify(source, folder)
    if finished.json | {"folder": ""} != whole.json | {"folder": ""}:
        problems.append(f"finished, it is not the whole: exit {finished.status}, {finished.told()[:3]}")
    return problems


def shim(work: Path) -> dict[str, str]:
    """What makes a small run end in the middle: accidents at chosen operations, and a clock that runs fast, so that
    there are several commits."""
    library = work / "crash_shim.so"
    source = REPO / "tests" / "cli" / "crash_shim.c"
    compiler = os.environ.get("CC", "gcc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-pthread"], check=True)
    return os.environ | {"LD_PRELOAD": str(library), "SHIM_HASTE": "1", "SHIM_SLOW": "300"}


def killed(source: Path, work: Path, whole: Answer) -> list[str]:
    """A run is killed in the middle. Its complete shards are compared, a flip in one of them is found; then it goes
    on."""
    folder, environment = work / "killed", shim(work)
    environment |= {"SHIM_OUTPUT": str(folder), "SHIM_SOURCE": str(source)}
    command = [REPO / "build" / "qstream", "quantize", source, folder, "--recipe", RECIPE, *OPTIONS, "--quiet"]

    def shimmed(**settings: str) -> int:
        return subprocess.run(command, timeout=TIMEOUT, env=environment | settings, check=False).returncode

    if shimmed(SHIM_COUNT=str(work / "count")) != 0:
        return ["a run with the shim fails"]
    operations = int((work / "count").read_text().split()[1])
    generator, problems, seen, final = random.Random(SEED), [], 0, weights_of(whole)
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        shimmed(SHIM_KILL=str(generator.randrange(1, operations)))
        if not (folder / ".qstream" / "journal").exists() or (folder / "config.json").exists():
            continue  # too early, or too late
        answer = verify(source, folder, "--rounding", "nearest", "--rule", "mse")
        problems += is_unfinished(answer)
        weights = weights_of(answer)
        problems += [f"{name} has other figures than in the end" for name in weights if weights[name] != final[name]]
        if weights and answer.json["accounting"]["not_yet"]:
            problems += flipped(source, folder, a_weight(folder, sorted(weights), generator), generator)
            seen += 1
        if seen == MOMENTS:
            break
    else:
        problems.append(f"{seen} of {ATTEMPTS} runs were killed with some shards complete")
    subprocess.run(command, timeout=TIMEOUT, check=True)
    answer = verify(source, folder, "--hash")
    if (answer.status, answer.json["state"], weights_of(answer)) != (0, "complete", final):
        problems.append(f"in the end: exit {answer.status}: {answer.told()[:3]}")
    return problems


def a_weight(folder: Path, names: list[str], generator: random.Random) -> Tensor:
    """The codes of one of these weights. Shards that are not complete have holes, but their headers are there."""
    name = generator.choice(names).replace(".weight", ".weight_packed")
    return tensors_of(folder)[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the checkpoints there, and leave them")
    work = parser.parse_args().keep or Path(tempfile.mkdtemp(prefix="verify-unfinished."))
    source, output = work / "source", work / "whole"
    make_checkpoint(source, SMALL)
    quantize(source, output, RECIPE, "mse", *OPTIONS)
    whole = verify(source, output)
    shards = {name: tensor.file.name for name, tensor in checkpoint_tensors(output).items()}
    tap = Tap()
    made: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,), (0, 2), (1, 2))
    tap.run([
        *((f"only parts {each} of {PARTS}", partial(parts_made, source, work, whole, shards, each)) for each in made),
        ("all parts, before and after --finish", partial(all_parts, source, work, whole)),
        ("a run that was killed", partial(killed, source, work, whole)),
    ])  # fmt: skip
    if work.name.startswith("verify-unfinished."):
        shutil.rmtree(work)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
