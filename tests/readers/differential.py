"""Compares what `qstream audit` predicts of vLLM with what the real vLLM says, for some thousand configs.

Good checkpoints are made with tests/models/make_checkpoint.py and `qstream quantize`, one for each architecture and
layout of the source. Each mistake of mutate_configs.py is put into their config.json; vLLM (vllm_oracle.py) and
`qstream audit FOLDER --json --modules --headers-only` then tell for each module which layer loads it, and whether that
layer gets a scheme, from which group, stays unquantized, or makes vLLM refuse.

TAP on standard output, a test for each kind of mistake, then a table as a comment. Each disagreement, with the change
of the config and both answers, goes to build/readers-tests/disagreements.txt. Exit 1 if there is any.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import difflib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mutate_configs import Config, Mutant, Names, mutants

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "readers-tests"

RECIPES = {"mistral3": "mistral-medium-3.5-mxfp4", "llama": "llama-mxfp4", "qwen3_moe": "qwen3-moe-mxfp4"}
LAYOUTS = ("fp8-tensor", "bf16", "fp8-block", "mxfp8")
SIZES = [
    "--hidden",
    "128",
    "--mlp",
    "256",
    "--layers",
    "2",
    "--heads",
    "2",
    "--kv-heads",
    "2",
    "--head-dim",
    "64",
    "--vocab",
    "256",
]
"""The smallest that every layout takes; resolution does not depend on sizes."""

SHOWN, SHOWN_LINES = 3, 16
"""Disagreements of each kind, and lines of each, in the TAP output; the file has all."""


@dataclass
class Tally:
    configs: int = 0
    modules: int = 0
    wrong_configs: int = 0
    wrong_modules: int = 0
    reports: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Base:
    """A good checkpoint, and what vLLM says to any config of it."""

    name: str
    folder: pathlib.Path
    config: Config
    model: Any  # vllm_oracle.Model

    def names(self) -> Names:
        good = self.model.resolve(self.config)
        modules = [module for module, answer in good.items() if answer and answer.resolution == "scheme"]
        fused = list(dict.fromkeys(self.model.layer_of[module] for module in modules))
        return Names(modules, [self.model.run_time_name(module) for module in modules], fused)


def make_bases(chosen: list[str]) -> Iterator[Base]:
    from vllm_oracle import Model

    for arch, recipe in RECIPES.items():
        for layout in LAYOUTS:
            name = f"{arch}/{layout}"
            if chosen and not any(part in name for part in chosen):
                continue
            folder = good_checkpoint(arch, layout, recipe)
            config = json.loads((folder / "config.json").read_text())["quantization_config"]
            yield Base(name, folder, config, Model(folder))


def good_checkpoint(arch: str, layout: str, recipe: str) -> pathlib.Path:
    source, folder = WORK / f"{arch}-{layout}-source", WORK / f"{arch}-{layout}"
    for path in (source, folder):
        shutil.rmtree(path, ignore_errors=True)
    python = ROOT / "build" / "venv" / "bin" / "python"
    maker = ROOT / "tests" / "models" / "make_checkpoint.py"
    subprocess.run([python, maker, "--out", source, "--arch", arch, "--layout", layout, *SIZES], check=True)
    subprocess.run([qstream(), "quantize", source, folder, "--recipe", recipe, "--quiet"], check=True)
    shutil.rmtree(source)
    return folder


def qstream() -> str:
    return os.environ.get("QSTREAM", str(ROOT / "build" / "qstream"))


# What the audit says


class Audit:
    """Runs `qstream audit` on a checkpoint with another config: the shards are links."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.whole = json.loads((base.folder / "config.json").read_text())

    def __call__(self, config: Config) -> dict[str, Any] | str:
        """The audit's modules by name, or what went wrong."""
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            for path in self.base.folder.iterdir():
                if path.name != "config.json":
                    (pathlib.Path(folder) / path.name).symlink_to(path)
            whole = self.whole | {"quantization_config": config}
            (pathlib.Path(folder) / "config.json").write_text(json.dumps(whole))
            command = [qstream(), "audit", folder, "--json", "--modules", "--headers-only"]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            except subprocess.TimeoutExpired:
                return "no answer within 60 s"
        if run.returncode not in (0, 1):
            return f"exit status {run.returncode}: {run.stderr.strip()[-300:]}"
        try:
            return {module["name"]: module["vllm"] for module in json.loads(run.stdout)["modules"]}
        except (KeyError, TypeError, ValueError) as error:
            return f"output that is not qstream.audit/1 ({error!r}): {run.stdout[:200]}"


# The comparison


def differences(test: Mutant, answers: dict[str, Any], audited: dict[str, Any]) -> list[str]:
    """A line for each module about which the two disagree. What vLLM takes by accident only may be called refused."""
    lines = []
    for module, answer in answers.items():
        if answer is None:
            continue  # vLLM keeps it in a plain layer: nothing to be resolved
        says = audited.get(module)
        if says is None:
            lines.append(f"{module}: the audit does not list it")
            continue
        if test.accidental and says["resolution"] == "raises":
            continue
        wrong = []
        if says["resolution"] != answer.resolution:
            wrong.append("resolution")
        elif answer.resolution == "scheme":
            if says["group"] not in answer.groups:
                wrong.append("group")
            if says["scheme"] != answer.scheme and answer.layer_class != "RoutedExperts":  # there it is a method
                wrong.append("scheme")
        if says["layer"] != answer.layer and answer.layer_class != "RoutedExperts":
            wrong.append("layer")
        if wrong:
            real = (
                answer.layer,
                answer.resolution,
                "/".join(answer.groups),
                answer.scheme,
                answer.target,
                answer.error,
            )
            mine = tuple(says.get(key) for key in ("layer", "resolution", "group", "scheme", "target", "reason"))
            lines.append(f"{module} ({', '.join(wrong)}):\n    vLLM  {shown(real)}\n    audit {shown(mine)}")
    return lines


def shown(answer: tuple[Any, ...]) -> str:
    return " | ".join("-" if part in (None, "") else str(part)[:160] for part in answer)


def config_change(good: Config, bad: Config) -> str:
    before, after = (json.dumps(config, indent=1).splitlines() for config in (good, bad))
    lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
    return "\n".join("    " + line for line in lines if not line.startswith("@@"))


def compare(base: Base, tests: list[Mutant], pool: concurrent.futures.Executor, tallies: dict[str, Tally]) -> None:
    audit = Audit(base)
    audits = pool.map(audit, (test.config for test in tests))
    for test, audited in zip(tests, audits, strict=True):
        answers = base.model.resolve(test.config)  # one thread for vLLM: it keeps what it is asked about in globals
        tally = tallies[test.kind]
        tally.configs += 1
        tally.modules += sum(answer is not None for answer in answers.values())
        lines = [audited] if isinstance(audited, str) else differences(test, answers, audited)
        if lines:
            tally.wrong_configs += 1
            tally.wrong_modules += len(lines)
            tally.reports.append(
                f"{base.name}: {test.kind}: {test.label}\n{config_change(base.config, test.config)}\n  "
                + "\n  ".join(lines)
            )


# The config of the original tool


def original_config(base: Base) -> Config:
    """What the Python tool named qstream writes for a source in per-tensor FP8 with static activations: a pattern for
    each kind of module in the checkpoint's names and its fused name, `block` for scales that are per tensor, no
    activations, no status."""

    def pattern(name: str) -> str:
        parts = [r"\d+" if part.isdigit() else part for part in name.split(".")]
        return "re:.*" + r"\.".join(parts) + "$"

    def patterns(modules: list[str]) -> list[str]:
        fused = {
            "q_proj": "qkv_proj",
            "k_proj": "qkv_proj",
            "v_proj": "qkv_proj",
            "gate_proj": "gate_up_proj",
            "up_proj": "gate_up_proj",
        }
        plain = [pattern(module) for module in modules]
        merged = [
            pattern(f"{parent}.{fused[last]}")
            for parent, _, last in (module.rpartition(".") for module in modules)
            if last in fused
        ]
        return list(dict.fromkeys(plain + merged))

    names = base.names().checkpoint
    mlp = [name for name in names if ".mlp." in name]
    attention = [name for name in names if ".mlp." not in name]
    kept = [module for module in base.model.modules if module not in names and "norm" not in module]
    weights = {"type": "float", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": {
            "group_0": {
                "targets": patterns(sorted(mlp)),
                "format": "mxfp4-pack-quantized",
                "weights": weights | {"num_bits": 4, "strategy": "group", "group_size": 32},
            },
            "group_1": {
                "targets": patterns(sorted(attention)),
                "format": "float-quantized",
                "weights": weights
                | {"num_bits": 8, "strategy": "block", "block_structure": [128, 128], "dynamic": False},
            },
        },
        "ignore": list(dict.fromkeys(pattern(module) for module in sorted(kept))),
    }


def check_good(base: Base) -> list[str]:
    """vLLM itself must give each quantized module its scheme, else the comparison compares nothing."""
    parts = {
        module for module, answer in base.model.resolve(base.config).items() if answer and answer.resolution == "scheme"
    }
    stored = quantized_modules(base.folder)
    return [f"{base.name}: vLLM gives no scheme to {module}" for module in sorted(stored - parts)] + [
        f"{base.name}: vLLM gives a scheme to {module}, which is stored unquantized"
        for module in sorted(parts - stored)
    ]


def quantized_modules(folder: pathlib.Path) -> set[str]:
    names = set()
    for shard in folder.glob("*.safetensors"):
        with shard.open("rb") as file:
            names.update(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
    return {name.removesuffix(".weight_scale") for name in names if name.endswith(".weight_scale")}


def table(tallies: dict[str, Tally]) -> str:
    width = max(map(len, tallies), default=0)
    lines = [f"{'mistake':{width}}  configs agreed disagreed    modules agreed disagreed"]
    for kind, tally in sorted(tallies.items()):
        lines.append(
            f"{kind:{width}}  {tally.configs - tally.wrong_configs:14d} {tally.wrong_configs:9d}"
            f"    {tally.modules - tally.wrong_modules:14d} {tally.wrong_modules:9d}"
        )
    total = [
        sum(getattr(tally, name) for tally in tallies.values())
        for name in ("configs", "wrong_configs", "modules", "wrong_modules")
    ]
    lines.append(f"{'all':{width}}  {total[0] - total[1]:14d} {total[1]:9d}    {total[2] - total[3]:14d} {total[3]:9d}")
    return "\n".join("# " + line for line in lines)


class Tap:
    def __init__(self) -> None:
        self.tests = self.failed = 0

    def test(self, name: str, problems: list[str]) -> None:
        self.tests += 1
        self.failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {self.tests} - {name}", flush=True)
        for problem in problems[:SHOWN]:
            lines = problem.splitlines()
            print("\n".join(f"# {line}" for line in lines[:SHOWN_LINES]))
            if len(lines) > SHOWN_LINES:
                print(f"# and {len(lines) - SHOWN_LINES} lines more")
        if len(problems) > SHOWN:
            print(f"# and {len(problems) - SHOWN} more")


def load_problems(folder: pathlib.Path) -> list[str]:
    from vllm_oracle import load_problems as problems

    return problems(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("bases", nargs="*", help="only checkpoints whose ARCH/LAYOUT has one of these in its name")
    parser.add_argument("--kind", help="only kinds of mistakes that have this in their name")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of mistakes for each checkpoint (default 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="only each Nth mistake, for a quick run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()

    WORK.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    tap = Tap()
    tallies: dict[str, Tally] = defaultdict(Tally)
    resolutions: Counter[str] = Counter()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for base in make_bases(options.bases):
            tap.test(f"vLLM resolves {base.name} as qstream quantize means it", check_good(base))
            tap.test(f"vLLM's loader fills every parameter from {base.name}", load_problems(base.folder))
            tests = [Mutant("none", "the config as it was written", base.config)]
            tests += mutants(base.config, base.names(), options.pairs, options.seed)
            tests = [
                test for test in tests[:1] + tests[1 :: options.every] if not options.kind or options.kind in test.kind
            ]
            if base.name == "mistral3/fp8-tensor":
                original = original_config(base)
                schemes = [
                    module
                    for module, answer in base.model.resolve(original).items()
                    if answer and answer.resolution == "scheme"
                ]
                tap.test("vLLM gives no module a scheme for the original tool's config", schemes)
                tests.append(Mutant("the original tool's config", "as its code writes it", original))
            compare(base, tests, pool, tallies)
            for test in tests:
                resolutions.update(answer.resolution for answer in base.model.resolve(test.config).values() if answer)
    for kind, tally in sorted(tallies.items()):
        tap.test(f"audit and vLLM agree: {kind} ({tally.configs} configs, {tally.modules} modules)", tally.reports)
    print(f"1..{tap.tests}")
    print(table(tallies))
    counts = ", ".join(f"{count} {name}" for name, count in resolutions.most_common())
    print(f"# vLLM: {counts}; {time.monotonic() - started:.0f} s")
    (WORK / "disagreements.txt").write_text(
        "\n\n".join(report for tally in tallies.values() for report in tally.reports) + "\n"
    )
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
