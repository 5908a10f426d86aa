"""Mistakes put into a good quantization_config, one by one and in pairs; the same ones in every run.

    for mutant in mutants(config, names, pairs=60, seed=1): mutant.kind, mutant.label, mutant.config

A mistake changes a copy of the config. Kinds say which part it is about: "pattern anchors", "ignore", "field strategy".
`names` are the model's, in both namespaces, since targets and ignore lists may be plain names.
"""

from __future__ import annotations

import copy
import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

ABSENT = object()
"""The value of a key that is taken away."""


@dataclass(frozen=True)
class Names:
    """The quantized modules of a model: named as in the checkpoint, as in vLLM, and as vLLM's fused layers."""

    checkpoint: list[str]
    run_time: list[str]
    fused: list[str]


@dataclass(frozen=True)
class Mistake:
    kind: str
    label: str
    make: Callable[[Config], None]


@dataclass(frozen=True)
class Mutant:
    kind: str
    label: str
    config: Config
    accidental: bool = False  # see wrong_types


def mutants(config: Config, names: Names, pairs: int, seed: int) -> Iterator[Mutant]:
    """Every mistake alone, then as many pairs of them. What leaves the config as it was is left out, and so are pairs
    whose second mistake the first one has made impossible."""
    mistakes = list(all_mistakes(config, names))
    for mistake in mistakes:
        changed = copy.deepcopy(config)
        mistake.make(changed)
        if changed != config:
            yield Mutant(mistake.kind, mistake.label, changed, wrong_types(changed))
    chance = random.Random(seed)
    while pairs > 0:
        first, second = chance.sample(mistakes, 2)
        changed = copy.deepcopy(config)
        try:
            first.make(changed)
            once = copy.deepcopy(changed)
            second.make(changed)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            continue
        if changed not in (config, once):
            pairs -= 1
            label = f"{first.kind}: {first.label}; {second.kind}: {second.label}"
            yield Mutant("two mistakes", label, changed, wrong_types(changed))


def wrong_types(config: Config) -> bool:
    """Whether something has a type that compressed-tensors refuses and vLLM takes only because it never looks: it goes
    through a string's letters or an object's keys as if they were a list, and takes whatever is empty for null."""

    def not_a_list(value: Any) -> bool:
        return isinstance(value, (str, dict))

    def empty(value: Any) -> bool:
        return value is not None and not isinstance(value, dict) and not value

    groups = config.get("config_groups")
    groups = [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
    parts = ("input_activations", "output_activations")
    return (
        not_a_list(config.get("ignore"))
        or any(not_a_list(group.get("targets")) for group in groups)
        or any(empty(group.get(part)) for group in groups for part in parts)
    )


def all_mistakes(config: Config, names: Names) -> Iterator[Mistake]:
    for group, settings in config["config_groups"].items():
        for index, target in enumerate(settings["targets"]):
            if target.startswith("re:"):
                yield from pattern_mistakes(group, index, target)
        yield from name_mistakes(group, settings["targets"], names)
        yield from class_mistakes(group)
        yield from target_list_mistakes(group)
        yield from argument_mistakes(group, "weights")
        if settings.get("input_activations"):
            yield from argument_mistakes(group, "input_activations")
        yield from activation_mistakes(group)
        yield from group_format_mistakes(group)
    yield from ignore_mistakes(config, names)
    yield from group_mistakes(config)
    yield from split_mistakes(config)
    yield from top_level_mistakes()


def setting(path: tuple[str | int, ...], value: Any) -> Callable[[Config], None]:
    """What sets or takes away the value at a path."""

    def make(config: Config) -> None:
        place: Any = config
        for key in path[:-1]:
            place = place[key]
        if value is not ABSENT:
            place[path[-1]] = copy.deepcopy(value)
        elif isinstance(place, dict):
            place.pop(path[-1], None)
        else:
            del place[path[-1]]

    return make


def said(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value)


# Patterns


def pattern_mistakes(group: str, index: int, target: str) -> Iterator[Mistake]:
    pattern = target[3:]
    variants: list[tuple[str, str]] = []

    def add(kind: str, changed: str) -> None:
        if changed != target:
            variants.append((kind, changed))

    add("pattern anchors", "re:^" + pattern)
    add("pattern anchors", "re:" + pattern.removesuffix("$"))
    add("pattern anchors", "re:" + pattern.removeprefix(".*"))
    add("pattern anchors", "re:.*" + pattern)
    add("pattern anchors", "re:.+" + pattern.removeprefix(".*"))
    add("pattern anchors", "re:" + pattern.removesuffix("$") + r"\.weight$")
    add("pattern anchors", "re:" + pattern.removesuffix("$") + ".+$")
    add("pattern anchors", "re:" + pattern.removesuffix("$") + r"\b")
    add("pattern anchors", "re:" + pattern.removesuffix("$") + r"\Z")
    for old, new in (
        ("language_model", "language_models"),
        ("layers", "layer"),
        ("layers", "blocks"),
        ("mlp", "ffn"),
        ("self_attn", "attention"),
        ("_proj", "_projection"),
        ("model", "Model"),
        ("proj", "Proj"),
    ):
        add("pattern wording", "re:" + pattern.replace(old, new))
    for new in (
        r"model\.language_model\.layers",
        r"language_model\.model\.layers",
        r"model\.layers",
        "layers",
        r"(model\.)?language_model\.(model\.)?layers",
    ):
        add(
            "pattern namespace",
            "re:"
            + re.sub(
                r"(?:\.\*)?(?:language_model\\\.\(model\\\.\)\?|model\\\.)layers",
                lambda _match, new=new: ".*" + new,
                pattern,
            ),
        )
        add(
            "pattern namespace",
            "re:"
            + re.sub(
                r"(?:\.\*)?(?:language_model\\\.\(model\\\.\)\?|model\\\.)layers", lambda _match, new=new: new, pattern
            ),
        )
    add("pattern dots", "re:" + pattern.replace("\\.", "."))
    add("pattern dots", "re:" + pattern.replace("\\.", "\\\\."))
    add("pattern dots", "re:" + pattern.replace("\\.", "/"))
    for numbers in (
        "0",
        "1",
        "[0-9]+",
        r"\d",
        r"\d*",
        "{1}",
        "[1-9]",
        "(0|1)",
        "(?!0)\\d+",
        "[^0]",
        r"\d{2}",
        "(?:0|1)",
        ".*",
        r"\w+",
        r"\D+",
        r"\d++",
        r"\d+?",
        "(?P<layer>\\d+)",
    ):
        add("pattern numbers", "re:" + pattern.replace(r"\d+", numbers, 1))
    for found in re.finditer(r"\(([a-z_]+(?:\|[a-z_]+)+)\)", pattern):
        parts = found[1].split("|")
        choices = [[part for part in parts if part != dropped] for dropped in parts] + [[part] for part in parts]
        choices += [[part for part in parts if part not in pair] for pair in itertools.pairwise(parts)]
        choices += [parts[::-1], [*parts, "x"], ["", *parts], ["."], [".*"], ["[a-z]"], ["[a-z_]+"]]
        for choice in choices:
            kept = f"({'|'.join(choice)})"
            add("pattern alternatives", "re:" + pattern[: found.start()] + kept + pattern[found.end() :])
    chance = random.Random(f"{group}{index}{target}")
    for _ in range(8):
        place = chance.randrange(len(pattern))
        add("pattern character", "re:" + pattern[:place] + chance.choice("abcxyz_0.") + pattern[place + 1 :])
        place = chance.randrange(len(pattern))
        add("pattern character", "re:" + pattern[:place] + pattern[place + 1 :])
    for changed in (
        pattern,
        "re: " + pattern,
        "RE:" + pattern,
        "re" + pattern,
        "re:" + pattern.replace("_proj", ""),
        "re:",
        "re:.*",
        "re:(?i)" + pattern.upper().replace(r"\D+", r"\d+"),
        "re:" + pattern + "|lm_head",
        "re:(?:" + pattern + ")",
        "re:(?=" + pattern + ").*",
    ):
        add("pattern form", changed)
    for changed in ("re:(", "re:[", "re:*" + pattern, "re:" + pattern + ")", "re:(?P<a" + pattern, "re:\\"):
        add("pattern invalid", changed)
    for kind, changed in variants:
        yield Mistake(kind, f"{group}: {changed}", setting(("config_groups", group, "targets", index), changed))


# Names, classes and what else may stand in a list of targets


def name_mistakes(group: str, targets: list[str], names: Names) -> Iterator[Mistake]:
    def of_group(candidates: list[str]) -> list[str]:
        return [name for name in candidates if any(target_matches(target, name) for target in targets)]

    def add(label: str, chosen: list[str]) -> Mistake:
        return Mistake("plain names", f"{group}: {label}", setting(("config_groups", group, "targets"), chosen))

    for space in ("checkpoint", "run_time", "fused"):
        chosen = of_group(getattr(names, space))
        yield add(f"{space}, all", chosen)
        yield add(f"{space}, reversed", chosen[::-1])
        yield add(f"{space}, the first missing", chosen[1:])
        yield add(f"{space}, the last missing", chosen[:-1])
        yield add(f"{space}, with .weight", [name + ".weight" for name in chosen])
        yield add(f"{space}, of layer 0", [name for name in chosen if ".0." in name])
        yield add(f"{space}, without the model", [name.split("layers.", 1)[-1] for name in chosen])
        for part in (
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "experts.0",
            "experts.1",
        ):
            yield add(f"{space}, without {part}", [name for name in chosen if part not in name])
            yield add(f"{space}, only {part}", [name for name in chosen if part in name])
        yield add(f"{space}, parents", sorted({name.rpartition(".")[0] for name in chosen}))
        yield add(f"{space}, upper case", [name.upper() for name in chosen])
    yield add("of both namespaces", of_group(names.checkpoint) + of_group(names.run_time))


def target_matches(target: str, name: str) -> bool:
    return re.match(target[3:], name) is not None if target.startswith("re:") else target == name


CLASSES = [
    "Linear",
    "linear",
    "LINEAR",
    "RowParallelLinear",
    "QKVParallelLinear",
    "MergedColumnParallelLinear",
    "ColumnParallelLinear",
    "Parallel",
    "QKV",
    "Merged",
    "Row",
    "Embedding",
    "LMHead",
    "ParallelLMHead",
    "RoutedExperts",
    "Experts",
    "FusedMoE",
    "GateLinear",
    "Gate",
    "ReplicatedLinear",
    "LlamaAttention",
    "Attention",
    "Conv2d",
    "",
    "a",
    "re:.*Linear",
    "re:Linear",
    "re:.*Parallel.*",
    "re:Routed.*",
    "nn.Linear",
    "torch.nn.Linear",
]


def class_mistakes(group: str) -> Iterator[Mistake]:
    place = ("config_groups", group, "targets")
    for name in CLASSES:
        yield Mistake("class names", f"{group}: only {name!r}", setting(place, [name]))

        def before(config: Config, name: str = name) -> None:
            config["config_groups"][group]["targets"].insert(0, name)

        def after(config: Config, name: str = name) -> None:
            config["config_groups"][group]["targets"].append(name)

        yield Mistake("class names", f"{group}: {name!r} first", before)
        yield Mistake("class names", f"{group}: {name!r} last", after)


def target_list_mistakes(group: str) -> Iterator[Mistake]:
    place = ("config_groups", group, "targets")
    for value in (
        [],
        ["*"],
        ["*mlp*"],
        ["*.self_attn.*"],
        ["re:.*", "Linear"],
        "Linear",
        "re:.*mlp.*",
        None,
        ABSENT,
        {},
        5,
        [None],
        [5],
        [["Linear"]],
        {"Linear": 1},
        ["nothing"],
        ["mlp"],
        ["re:.*mlp"],
        ["re:.*self_attn"],
        ["re:.*proj"],
        ["re:.*layers"],
        ["re:.*lm_head"],
        ["re:.*embed_tokens"],
        ["re:.*vision.*"],
        ["re:.*multi_modal.*"],
        ["re:.*gate$"],
    ):
        yield Mistake("target list", f"{group}: {said(value)}", setting(place, value))


# Ignore


def ignore_mistakes(config: Config, names: Names) -> Iterator[Mistake]:
    def add(label: str, *entries: Any) -> Mistake:
        return Mistake("ignore", label, lambda config: config["ignore"].extend(entries))

    one_layer = [
        [name for name in getattr(names, space) if ".0." in name] for space in ("checkpoint", "run_time", "fused")
    ]
    for space, chosen in zip(("checkpoint", "run time", "fused"), one_layer, strict=True):
        for name in chosen:
            yield add(f"{space}: {name}", name)
        yield add(f"{space}: layer 0", *chosen)
    for name in names.fused:
        yield add(f"pattern: {name}", "re:" + name.replace(".", r"\."))
    for entry in (
        "lm_head",
        "model.lm_head",
        "language_model.lm_head",
        "re:lm_head",
        "re:.*lm_head",
        "embed_tokens",
        "Linear",
        "linear",
        "RowParallelLinear",
        "RoutedExperts",
        "mlp",
        "self_attn",
        "gate",
        "*",
        "*mlp*",
        "re:.*",
        "re:",
        "re:.*q_proj",
        "re:.*q_proj$",
        "re:q_proj",
        "re:.*(q|k|v)_proj$",
        "re:.*qkv_proj$",
        "re:.*gate_proj$",
        "re:.*(gate|up)_proj$",
        "re:.*gate_up_proj$",
        "re:.*gate",
        "re:.*up_proj",
        "re:.*o_proj",
        "re:.*down_proj",
        "re:.*mlp.*",
        "re:.*self_attn.*",
        r"re:.*layers\.0\..*",
        "re:.*layers.1",
        r"re:model\.layers",
        r"re:model\.language_model",
        "re:language_model",
        "re:.*experts.*",
        r"re:.*experts\.0\.",
        r"re:.*experts\.1\.",
        r"re:.*experts\.0\.gate_proj",
        "re:.*vision_tower.*",
        "re:(",
        "",
        None,
        5,
        ["lm_head"],
    ):
        yield add(said(entry), entry)
    for place in range(len(config["ignore"])):
        yield Mistake("ignore", f"without {config['ignore'][place]}", setting(("ignore", place), ABSENT))
    for value in ([], None, ABSENT, "lm_head", "re:.*", {}, {"re:.*mlp.*": 1}, 5, ["lm_head"], ["re:.*mlp.*"]):
        yield Mistake("ignore", f"as a whole {said(value)}", setting(("ignore",), value))


# Groups


def group_mistakes(config: Config) -> Iterator[Mistake]:
    order = list(config["config_groups"])

    def add(label: str, make: Callable[[Config], None]) -> Mistake:
        return Mistake("groups", label, make)

    def regroup(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Config], None]:
        def make(config: Config) -> None:
            config["config_groups"] = change(config["config_groups"])

        return make

    yield add("reversed", regroup(lambda groups: dict(reversed(groups.items()))))
    yield add("renamed", regroup(lambda groups: {f"other_{name}": group for name, group in groups.items()}))
    for name in order:
        yield add(f"without {name}", setting(("config_groups", name), ABSENT))
        for value in (None, [], ["Linear"], {}, "W8A8", 5):
            yield add(f"{name} is {said(value)}", setting(("config_groups", name), value))
        yield add(f"{name} with an unknown key", setting(("config_groups", name, "notes"), "none"))
        for other in order:
            if other == name:
                continue

            def duplicate(config: Config, name: str = name, other: str = other) -> None:
                groups = config["config_groups"]
                groups[name]["targets"] = groups[name]["targets"] + groups[other]["targets"]

            def duplicate_before(config: Config, name: str = name, other: str = other) -> None:
                groups = config["config_groups"]
                groups[name]["targets"] = groups[other]["targets"] + groups[name]["targets"]

            def merge(config: Config, name: str = name, other: str = other) -> None:
                duplicate(config, name, other)
                del config["config_groups"][other]

            def exchange(config: Config, name: str = name, other: str = other) -> None:
                groups = config["config_groups"]
                groups[name]["targets"], groups[other]["targets"] = groups[other]["targets"], groups[name]["targets"]

            yield add(f"targets of {other} in {name} too", duplicate)
            yield add(f"targets of {other} in {name} too, first", duplicate_before)
            yield add(f"{other} merged into {name}", merge)
            yield add(f"targets of {name} and {other} exchanged", exchange)
        for targets in (
            ["Linear"],
            ["re:.*"],
            ["re:.*mlp.*"],
            ["re:.*self_attn.*"],
            ["re:.*o_proj"],
            ["re:.*lm_head"],
            ["LlamaAttention"],
            [],
        ):
            for first in (False, True):

                def third(config: Config, name: str = name, targets: list[str] = targets, first: bool = first) -> None:
                    extra = {"group_9": copy.deepcopy(config["config_groups"][name]) | {"targets": list(targets)}}
                    config["config_groups"] = (
                        extra | config["config_groups"] if first else config["config_groups"] | extra
                    )

                yield add(f"another like {name} for {targets}{', first' if first else ''}", third)
    for label, scheme in OTHER_SCHEMES.items():
        for targets in (["re:.*mlp.*"], ["re:.*self_attn.*"], ["Linear"], ["re:.*lm_head"]):
            for only in (False, True):

                def other(
                    config: Config, scheme: Config = scheme, targets: list[str] = targets, only: bool = only
                ) -> None:
                    extra = {"group_9": copy.deepcopy(scheme) | {"targets": list(targets)}}
                    config["config_groups"] = extra if only else extra | config["config_groups"]

                yield Mistake("other schemes", f"{label} for {targets}{' alone' if only else ' first'}", other)
    for value in (None, ABSENT, {}, [], [{"targets": ["Linear"]}], "Linear", 5):
        yield add(f"config_groups is {said(value)}", setting(("config_groups",), value))


def arguments(bits: int, kind: str, strategy: str, **more: Any) -> Config:
    return {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, "dynamic": False} | more


def scheme(weights: Config, activations: Config | None, name: str | None, **more: Any) -> Config:
    return {"weights": weights, "input_activations": activations, "output_activations": None, "format": name} | more


MXFP4 = arguments(4, "float", "group", group_size=32, scale_dtype="torch.uint8")
NVFP4 = arguments(4, "float", "tensor_group", group_size=16)
TOKEN8 = arguments(8, "float", "token", dynamic=True)
TOKEN_INT8 = arguments(8, "int", "token", dynamic=True)
INT8 = arguments(8, "int", "tensor")

OTHER_SCHEMES: dict[str, Config] = {
    "MXFP4 with FP8 activations": scheme(MXFP4, TOKEN8, "mxfp4-pack-quantized"),
    "MXFP4 with FP8 group activations": scheme(
        MXFP4, arguments(8, "float", "group", group_size=128, dynamic=True), "mxfp4-pack-quantized"
    ),
    "MXFP4 both": scheme(MXFP4, MXFP4 | {"dynamic": True}, "mxfp4-pack-quantized"),
    "NVFP4 both": scheme(NVFP4, NVFP4 | {"dynamic": "local"}, "nvfp4-pack-quantized"),
    "NVFP4 weights": scheme(NVFP4, None, "nvfp4-pack-quantized"),
    "NVFP4 with FP8 activations": scheme(NVFP4, TOKEN8, "nvfp4-pack-quantized"),
    "MXFP8": scheme(arguments(8, "float", "group", group_size=32, scale_dtype="torch.uint8"), None, "mxfp8-quantized"),
    "FP8 channel, token": scheme(arguments(8, "float", "channel"), TOKEN8, "float-quantized"),
    "FP8 tensor, token": scheme(arguments(8, "float", "tensor"), TOKEN8, "float-quantized"),
    "FP8 tensor, tensor": scheme(arguments(8, "float", "tensor"), arguments(8, "float", "tensor"), "float-quantized"),
    "FP8 tensor, dynamic tensor": scheme(
        arguments(8, "float", "tensor"), arguments(8, "float", "tensor", dynamic=True), "float-quantized"
    ),
    "FP8 channel, static tensor": scheme(
        arguments(8, "float", "channel"), arguments(8, "float", "tensor"), "float-quantized"
    ),
    "FP8 block": scheme(
        arguments(8, "float", "block", block_structure=[128, 128]),
        arguments(8, "float", "group", group_size=128, dynamic=True),
        "float-quantized",
    ),
    "FP8 block, static": scheme(
        arguments(8, "float", "block", block_structure=[128, 128]), arguments(8, "float", "tensor"), "float-quantized"
    ),
    "FP8 block, no activations": scheme(
        arguments(8, "float", "block", block_structure=[128, 128]), None, "float-quantized"
    ),
    "FP8 weights": scheme(arguments(8, "float", "channel"), None, "float-quantized"),
    "FP8, naive format": scheme(arguments(8, "float", "tensor"), TOKEN8, "naive-quantized"),
    "FP8, no format": scheme(arguments(8, "float", "tensor"), TOKEN8, None),
    "FP4 tensor": scheme(arguments(4, "float", "tensor"), TOKEN8, "float-quantized"),
    "int8 channel, token": scheme(arguments(8, "int", "channel"), TOKEN_INT8, "int-quantized"),
    "int8 tensor, tensor": scheme(arguments(8, "int", "tensor"), INT8, "int-quantized"),
    "int8 channel, asymmetric static": scheme(
        arguments(8, "int", "channel"), INT8 | {"symmetric": False}, "int-quantized"
    ),
    "int8 with output": scheme(arguments(8, "int", "channel"), INT8, "int-quantized", output_activations=INT8),
    "int4 with output": scheme(
        arguments(4, "int", "group", group_size=32), INT8, "pack-quantized", output_activations=INT8
    ),
    "int8, no activations": scheme(arguments(8, "int", "channel"), None, "int-quantized"),
    "int8 group": scheme(arguments(8, "int", "group", group_size=128), TOKEN_INT8, "int-quantized"),
    "int4 packed": scheme(arguments(4, "int", "group", group_size=128), None, "pack-quantized"),
    "int4 packed channel": scheme(arguments(4, "int", "channel"), None, "pack-quantized"),
    "int4 packed asymmetric": scheme(
        arguments(4, "int", "group", group_size=128) | {"symmetric": False}, None, "pack-quantized"
    ),
    "int3 packed": scheme(arguments(3, "int", "group", group_size=128), None, "pack-quantized"),
    "int1 packed": scheme(arguments(1, "int", "group", group_size=128), None, "pack-quantized"),
    "int16 packed": scheme(arguments(16, "int", "group", group_size=128), None, "pack-quantized"),
    "int4, no format": scheme(arguments(4, "int", "group", group_size=128), None, None),
    "int4 with int8 activations": scheme(arguments(4, "int", "group", group_size=128), TOKEN_INT8, "int-quantized"),
    "int4 packed with int8 activations": scheme(
        arguments(4, "int", "group", group_size=128), TOKEN_INT8, "pack-quantized"
    ),
    "int4 packed with int4 activations": scheme(
        arguments(4, "int", "group", group_size=128), arguments(4, "int", "token", dynamic=True), "pack-quantized"
    ),
    "int4 with FP8 activations": scheme(arguments(4, "int", "group", group_size=128), TOKEN8, "pack-quantized"),
    "int4 of 32 with FP8 activations": scheme(arguments(4, "int", "group", group_size=32), TOKEN8, "pack-quantized"),
}


def split_mistakes(config: Config) -> Iterator[Mistake]:
    """Parts of fused layers in another group than the rest: with the same arguments, and with others."""
    for name in config["config_groups"]:
        for part in ("q", "k", "v", "gate", "up", "down"):
            for how in ("same", "other"):
                for first in (False, True):

                    def split(
                        config: Config, name: str = name, part: str = part, how: str = how, first: bool = first
                    ) -> None:
                        old = config["config_groups"][name]
                        if not any(re.search(rf"[(|]{part}[|)]", target) for target in old["targets"]):
                            return
                        new = copy.deepcopy(old)
                        new["targets"] = [
                            re.sub(r"\([a-z_]+(?:\|[a-z_]+)+\)", part, target) for target in old["targets"]
                        ]
                        if how == "other":
                            new = copy.deepcopy(OTHER_SCHEMES["FP8 channel, token"]) | {"targets": new["targets"]}
                        old["targets"] = [re.sub(rf"(?<=[(|]){part}\|", "", target) for target in old["targets"]]
                        extra = {"group_8": new}
                        config["config_groups"] = (
                            extra | config["config_groups"] if first else config["config_groups"] | extra
                        )

                    yield Mistake(
                        "fused parts split", f"{part} of {name}, {how} arguments{', first' if first else ''}", split
                    )


# Arguments of weights and activations

FIELDS: dict[str, list[Any]] = {
    "num_bits": [
        ABSENT,
        None,
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        16,
        32,
        -4,
        "4",
        "8",
        " 8 ",
        "x",
        8.0,
        4.0,
        4.5,
        True,
        [4],
        {},
        10**30,
    ],
    "type": [ABSENT, None, "int", "float", "INT", "Float", "fp8", "", 5, True, ["float"]],
    "strategy": [
        ABSENT,
        None,
        "tensor",
        "channel",
        "group",
        "block",
        "token",
        "tensor_group",
        "attn_head",
        "Channel",
        "TENSOR",
        "row",
        "",
        5,
        ["tensor"],
    ],
    "group_size": [ABSENT, None, 32, 16, 64, 128, 1, 0, -1, -2, "32", "x", 32.0, 32.5, True, False, [32]],
    "symmetric": [ABSENT, None, False, True, "true", "false", "yes", "off", "maybe", 0, 1, 2, 1.0, []],
    "dynamic": [ABSENT, None, True, False, "local", "LOCAL", "true", "false", "global", 0, 1, 2, []],
    "scale_dtype": [
        ABSENT,
        None,
        "torch.uint8",
        "uint8",
        "torch.float32",
        "torch.bfloat16",
        "torch.float8_e8m0fnu",
        "torch.nothing",
        "int",
        "",
        5,
    ],
    "zp_dtype": [None, "torch.int8", "torch.float8_e4m3fn", "torch.nothing", 5],
    "block_structure": [
        None,
        [128, 128],
        [128],
        [0, 128],
        [-1, 128],
        [128, 128, 128],
        [128.0, 128],
        ["128", "128"],
        "128x128",
        "128",
        "axb",
        [],
        {},
        5,
        [True, 128],
    ],
    "actorder": [None, "weight", "static", "group", "dynamic", "GROUP", "Weight", True, False, "other", "", 5],
    "observer": [None, "minmax", "anything", 5, []],
    "observer_kwargs": [None, {}, {"a": 1}, [], "x"],
    "scale_dtypes": ["torch.uint8", None],
    "notes": [None, "x"],
}


def argument_mistakes(group: str, part: str) -> Iterator[Mistake]:
    place = ("config_groups", group, part)
    for field, values in FIELDS.items():
        kind = "field unknown" if field in ("scale_dtypes", "notes") else f"field {field}"
        for value in values:
            yield Mistake(kind, f"{group}.{part}.{field} {said(value)}", setting((*place, field), value))
    yield Mistake(
        "field block_structure",
        f"{group}.{part} block of 128",
        lambda config: (
            config["config_groups"][group][part].update(strategy="block", block_structure=[128, 128])
            or config["config_groups"][group][part].pop("group_size", None)
        ),
    )
    for structure in ("64x64", "128", "1x2x3", [64, 128], [0, 0], [128], "0x128", "-1x128", " 128 x 128 "):
        yield Mistake(
            "field block_structure",
            f"{group}.{part} block of {structure!r}",
            lambda config, structure=structure: (
                config["config_groups"][group][part].update(strategy="block", block_structure=structure)
                or config["config_groups"][group][part].pop("group_size", None)
            ),
        )
    for strategy in ("channel", "tensor"):
        yield Mistake(
            "field strategy",
            f"{group}.{part} {strategy} without a group size",
            lambda config, strategy=strategy: config["config_groups"][group][part].update(
                strategy=strategy, group_size=None
            ),
        )
    for bits, kind in (
        (4, "int"),
        (8, "int"),
        (6, "float"),
        (8, "float"),
        (4, "float"),
        (16, "float"),
        (2, "int"),
        (9, "int"),
    ):
        yield Mistake(
            "field type",
            f"{group}.{part} {kind}{bits}",
            lambda config, bits=bits, kind=kind: config["config_groups"][group][part].update(num_bits=bits, type=kind),
        )
    for value in (ABSENT, None, {}, [], "W8A8", 5, True):
        yield Mistake(f"{part} as a whole", f"{group}.{part} {said(value)}", setting(place, value))


def activation_mistakes(group: str) -> Iterator[Mistake]:
    values: list[Any] = [
        ABSENT,
        None,
        {},
        [],
        "x",
        5,
        True,
        0,
        False,
        "",
        TOKEN8,
        TOKEN8 | {"dynamic": False},
        TOKEN8 | {"symmetric": False},
        TOKEN_INT8,
        INT8,
        arguments(8, "float", "tensor"),
        arguments(8, "float", "tensor", dynamic=True),
        arguments(4, "int", "token", dynamic=True),
        arguments(8, "float", "channel"),
        arguments(8, "float", "tensor") | {"symmetric": False},
        arguments(8, "float", "group", group_size=128, dynamic=True),
        arguments(8, "float", "group", group_size=128),
        arguments(8, "float", "block", block_structure=[128, 128]),
        arguments(16, "float", "tensor"),
        arguments(4, "float", "token", dynamic=True),
        {"num_bits": 8},
        {"num_bits": 8, "type": "float"},
        {"dynamic": True},
        {"notes": 1},
        NVFP4 | {"dynamic": "local"},
        MXFP4 | {"dynamic": True},
        {"group_size": 32},
    ]
    for part in ("input_activations", "output_activations"):
        for value in values:
            yield Mistake(
                part.replace("_", " "), f"{group}.{part} {said(value)}", setting(("config_groups", group, part), value)
            )


# Formats and the rest

FORMATS: list[Any] = [
    ABSENT,
    None,
    "dense",
    "sparse-bitmask",
    "naive-quantized",
    "float-quantized",
    "int-quantized",
    "pack-quantized",
    "marlin-24",
    "mixed-precision",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "MXFP4-pack-quantized",
    "Float-Quantized",
    "mxfp4",
    "fp8",
    "",
    5,
    [],
    {},
    True,
]


def group_format_mistakes(group: str) -> Iterator[Mistake]:
    for value in FORMATS:
        yield Mistake("format of a group", f"{group} {said(value)}", setting(("config_groups", group, "format"), value))


def top_level_mistakes() -> Iterator[Mistake]:
    for value in FORMATS:
        yield Mistake("format, top level", said(value), setting(("format",), value))

        def only(config: Config, value: Any = value) -> None:
            for group in config["config_groups"].values():
                group.pop("format", None)
            setting(("format",), value)(config)

        yield Mistake("format, top level", f"{said(value)} and none in the groups", only)
    for value in (ABSENT, None, "compressed", "initialized", "frozen", "calibration", "other", 5, True):
        yield Mistake("quantization_status", said(value), setting(("quantization_status",), value))
    for value in (
        {},
        {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False},
        ABSENT,
        [],
        "x",
        5,
        {"num_bits": 4},
    ):
        yield Mistake("kv_cache_scheme", said(value), setting(("kv_cache_scheme",), value))
    for key, value in (
        ("notes", 1),
        ("version", "0.1"),
        ("global_compression_ratio", 1.5),
        ("quant_method", "compressed_tensors"),
        ("quant_method", "Compressed-Tensors"),
        ("transform_config", {}),
        ("transform_config", None),
        ("transform_config", {"config_groups": {}}),
        ("transform_config", {"nothing": 1}),
        ("transform_config", [1]),
        ("sparsity_config", {}),
        ("sparsity_config", None),
        ("sparsity_config", {"format": "dense"}),
        ("sparsity_config", {"format": "dense", "targets": ["Linear"]}),
        ("sparsity_config", {"format": "sparse-24-bitmask", "targets": []}),
        ("sparsity_config", {"targets": ["Linear"]}),
        ("sparsity_config", [1]),
    ):
        yield Mistake("other keys", f"{key} {value!r}", setting((key,), value))
