"""What the real vLLM makes of a checkpoint's quantization_config, module by module, on a machine without a GPU.

    model = Model(folder)            # once for each model: its shapes, its names
    model.resolve(config)            # then for any number of quantization_configs: {module: Answer}

Nothing here re-implements a rule. vLLM builds the model once, on the meta device and unquantized, while a recorder in
the place of the quantization config notes each layer that asks for a method, the name it asks under, the mappers and
the fused names that were known by then. For a config under test, vLLM's own CompressedTensorsConfig is made from it and
asked the same questions about the same layers in the same order: the order matters, since answers leave traces in the
config. Only what would touch a GPU is replaced: the choice of a kernel, and what the device is said to be (Hopper).

    load_problems(folder)            # whether vLLM's own loader takes the tensors: [] when every byte of them arrives

Run as a program it prints the answers for a folder as JSON:  vllm_oracle.py FOLDER [CONFIG.json]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib
import json
import logging
import os
import pathlib
import pkgutil
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.update(
    VLLM_TARGET_DEVICE="cpu",
    VLLM_LOGGING_LEVEL="CRITICAL",
    HF_HUB_OFFLINE="1",
    CUDA_VISIBLE_DEVICES="",
    VLLM_NO_USAGE_STATS="1",
    VLLM_PLUGINS="",
)
logging.disable(logging.WARNING)

import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from vllm.config import VllmConfig, set_current_vllm_config  # noqa: E402
from vllm.distributed import init_distributed_environment, initialize_model_parallel  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.model_executor.layers.attention import Attention  # noqa: E402
from vllm.model_executor.layers.fused_moe import RoutedExperts  # noqa: E402
from vllm.model_executor.layers.fused_moe.oracle.int_wna16 import WNA16MoEBackend  # noqa: E402
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend  # noqa: E402
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod  # noqa: E402
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod  # noqa: E402
from vllm.model_executor.layers.quantization import mxfp4  # noqa: E402
from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors as real  # noqa: E402
from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors_moe  # noqa: E402
from vllm.model_executor.model_loader.utils import initialize_model  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.platforms.interface import DeviceCapability  # noqa: E402

HOPPER = DeviceCapability(9, 0)
"""The device that vLLM is told it has: most schemes need 8.0 or 8.9, only int4 weights with FP8 activations differ."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A layer that asked for its quantization method while vLLM built the model."""

    layer: torch.nn.Module
    name: str  # the run-time one, fused: language_model.model.layers.0.self_attn.qkv_proj
    fused: dict[str, list[str]]  # packed_modules_mapping as it was at that moment


@dataclasses.dataclass(frozen=True)
class Answer:
    layer: str
    layer_class: str
    resolution: str  # scheme, unquantized or raises
    target: str | None = None
    groups: tuple[str, ...] = ()  # the group of the target; of experts, those of the three projections asked for
    scheme: str | None = None
    error: str | None = None


class Recorder(real.CompressedTensorsConfig):
    """Stands where the model's quantization config would be; every layer stays unquantized."""

    def __init__(self) -> None:
        super().__init__(target_scheme_map={}, ignore=[], quant_format="")
        self.questions: list[Question] = []
        self.mappers: list[tuple[int, Any]] = []  # with the number of questions asked before

    def apply_vllm_mapper(self, hf_to_vllm_mapper: Any) -> None:
        self.mappers.append((len(self.questions), hf_to_vllm_mapper))

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        self.questions.append(Question(layer, prefix, copy.deepcopy(dict(self.packed_modules_mapping))))
        if isinstance(layer, LinearBase):
            return UnquantizedLinearMethod()
        if isinstance(layer, RoutedExperts):
            return UnquantizedFusedMoEMethod(layer.moe_config)
        return None


def no_kernel(*_args: Any, **_kwargs: Any) -> None:
    """In the place of what chooses a kernel for a linear layer by the device."""


def no_backend(*_args: Any, **_kwargs: Any) -> tuple[None, None]:
    """In the place of what chooses a kernel for experts."""
    return None, None


def marlin_backend(*_args: Any, **_kwargs: Any) -> tuple[Any, None]:
    """The same for packed integers: what every NVIDIA device gets."""
    return WNA16MoEBackend.MARLIN, None


class Model:
    """A model as vLLM builds it from a folder's config.json and the names of its tensors."""

    def __init__(self, folder: pathlib.Path) -> None:
        prepare_vllm()
        config = json.loads((folder / "config.json").read_text())
        config.pop("quantization_config", None)
        self.modules = weight_modules(folder)
        with tempfile.TemporaryDirectory() as unquantized:
            (pathlib.Path(unquantized) / "config.json").write_text(json.dumps(config))
            for name in ("processor_config.json", "preprocessor_config.json"):
                if (folder / name).exists():
                    shutil.copy(folder / name, unquantized)
            self.vllm_config = engine_config(unquantized)
            self.recorder = Recorder()
            self.vllm_config.quant_config = self.recorder
            with set_current_vllm_config(self.vllm_config), torch.device("meta"):
                self.model = initialize_model(self.vllm_config)
        self.layer_of = {module: self.run_time_layer(module) for module in self.modules}

    def run_time_name(self, module: str) -> str:
        """A module's name after the model's mapper; parts of a fused layer keep their own."""
        mapper = getattr(type(self.model), "hf_to_vllm_mapper", None)
        name = module + ".weight"
        return (mapper.get_rename_mapper().map_name(name) if mapper else name).removesuffix(".weight")

    def run_time_layer(self, module: str) -> str | None:
        """The run-time layer that loads a module of the checkpoint, by the mapper and the fused names of the model;
        none for what loads without one (norms, convolutions) and for modules that vLLM keeps as plain torch layers."""
        asked = {question.name: question for question in self.recorder.questions}
        name = self.run_time_name(module)
        if name in asked:
            return name
        parent, _, part = name.rpartition(".")
        for question in self.recorder.questions:
            prefix, _, last = question.name.rpartition(".")
            if prefix == parent and part in question.fused.get(last, FUSED.get(last, [])):
                return question.name
        if "experts" in (parts := name.split(".")):
            layer = ".".join(parts[: parts.index("experts") + 1])
            return layer if layer in asked else None
        return None

    def resolve(self, config: dict[str, Any]) -> dict[str, Answer | None]:
        """What vLLM makes of each module that has a weight. None: no layer that could be quantized."""
        answers = self.answers(config)
        return {module: answers[layer] if layer else None for module, layer in self.layer_of.items()}

    def answers(self, config: dict[str, Any]) -> dict[str, Answer]:
        """The same for the run-time layers, in the order in which vLLM asks."""
        config = copy.deepcopy(config)
        group_of = groups_of_targets(config)
        mappers = list(self.recorder.mappers)
        answers: dict[str, Answer] = {}
        with set_current_vllm_config(self.vllm_config):
            quant, broken = None, None
            for number, question in enumerate(self.recorder.questions):
                try:
                    quant = quant or self.quant_config(config)
                    while not broken and mappers and mappers[0][0] <= number:
                        mapper = mappers.pop(0)[1]
                        quant.apply_vllm_mapper(mapper)
                        group_of = {mapped(mapper, target): group for target, group in group_of.items()}
                except Exception as error:  # noqa: BLE001 whatever it is, vLLM does not start
                    broken = describe(error)
                if broken:
                    answers[question.name] = Answer(
                        question.name, type(question.layer).__name__, "raises", error=broken
                    )
                else:
                    quant.packed_modules_mapping = question.fused
                    answers[question.name] = ask(quant, question, group_of)
        return {name: self.unless_cache_raises(answer, answers) for name, answer in answers.items()}

    def unless_cache_raises(self, answer: Answer, answers: dict[str, Answer]) -> Answer:
        """An attention layer asks only about its cache: what it raises is about the config as a whole."""
        for question in self.recorder.questions:
            cache = answers[question.name]
            if isinstance(question.layer, Attention) and cache.resolution == "raises":
                return Answer(answer.layer, answer.layer_class, "raises", error=cache.error)
        return answer

    def quant_config(self, config: dict[str, Any]) -> Any:
        """Made as vLLM's get_quant_config makes it."""
        if "config_groups" in config:
            config["total_num_heads"] = self.vllm_config.model_config.model_arch_config.total_num_attention_heads
            config["total_num_kv_heads"] = self.vllm_config.model_config.model_arch_config.total_num_kv_heads
        return real.CompressedTensorsConfig.from_config(config)


def load_problems(folder: pathlib.Path) -> list[str]:
    """Loads a checkpoint as vLLM does, up to where kernels repack the weights: what it refuses, and which parameters
    were not filled. Two loads into memory that held other bytes before must end with the same: what still differs did
    not come from the checkpoint. KV-cache scales have a default and may be missing."""
    prepare_vllm()
    loaded = []
    for fill in (0x00, 0xFF):
        try:
            config = engine_config(folder)
            with set_current_vllm_config(config):
                model = initialize_model(config)
                for parameter in model.parameters():
                    parameter.data.view(torch.uint8).fill_(fill)
                model.load_weights(tensors(folder))
        except Exception as error:  # noqa: BLE001 whatever it is, vLLM does not start
            return [describe(error)]
        loaded.append({name: parameter.data.view(torch.uint8) for name, parameter in model.named_parameters()})
    return [
        f"{name} is not filled"
        for name, data in loaded[0].items()
        if not torch.equal(data, loaded[1][name]) and not name.endswith(KV_CACHE_PARAMETERS)
    ]


KV_CACHE_PARAMETERS = tuple(f".{letter}_{part}" for letter in "qkv" for part in ("scale", "zero_point"))


def tensors(folder: pathlib.Path) -> Iterator[tuple[str, torch.Tensor]]:
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118 it is no dict
                yield name, file.get_tensor(name)


def engine_config(folder: pathlib.Path | str) -> VllmConfig:
    arguments = EngineArgs(
        model=str(folder), skip_tokenizer_init=True, enforce_eager=True, load_format="dummy", max_model_len=64
    )
    return arguments.create_engine_config()


FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
"""Which weights a fused layer loads, for layers that the model fuses without telling its quantization config so."""


def mapped(mapper: Any, target: str) -> str:
    """A target after apply_vllm_mapper: only what looks like a path is mapped."""
    return mapper.map_name(target) if "." in target and not target.startswith("re:") else target


def groups_of_targets(config: dict[str, Any]) -> dict[str, str]:
    """The group each target stands for: the last one that names it, as in vLLM's map of targets."""
    group_of: dict[str, str] = {}
    groups = config.get("config_groups")
    for name, group in groups.items() if isinstance(groups, dict) else []:
        targets = group.get("targets") if isinstance(group, dict) else None
        for target in targets if isinstance(targets, (list, str)) else []:
            if isinstance(target, str):
                group_of[target] = name
    return group_of


def ask(quant: Any, question: Question, group_of: dict[str, str]) -> Answer:
    layer, name = question.layer, question.name
    told = (name, type(layer).__name__)
    used: dict[str, None] = {}
    find = real.find_matched_target

    def spy(*args: Any, **kwargs: Any) -> str | None:
        target = find(*args, **kwargs)
        if target is not None:
            used[target] = None
        return target

    real.find_matched_target = spy
    try:
        method = quant.get_quant_method(layer, name)
    except Exception as error:  # noqa: BLE001 whatever it is, vLLM does not start
        return Answer(*told, "raises", error=describe(error))
    finally:
        real.find_matched_target = find
    if method is None or isinstance(method, UNQUANTIZED):
        return Answer(*told, "unquantized")
    if "RoutedExperts" not in group_of and "Linear" in group_of:
        group_of = group_of | {"RoutedExperts": group_of["Linear"]}  # what vLLM adds for experts
    groups = tuple(dict.fromkeys(group_of[target] for target in used))
    scheme = layer.scheme if isinstance(method, real.CompressedTensorsLinearMethod) else method
    return Answer(*told, "scheme", next(iter(used)), groups, type(scheme).__name__)


UNQUANTIZED = (UnquantizedLinearMethod, UnquantizedFusedMoEMethod, real.CompressedTensorsKVCacheMethod)


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def prepare_vllm() -> None:
    """Once per process: a group of one process, no choice of kernels, and the device said to be HOPPER."""
    if torch.distributed.is_initialized():
        return
    with tempfile.NamedTemporaryFile(prefix="qstream-readers-") as rendezvous, set_current_vllm_config(VllmConfig()):
        init_distributed_environment(
            world_size=1, rank=0, distributed_init_method=f"file://{rendezvous.name}", local_rank=0, backend="gloo"
        )
        initialize_model_parallel(1, 1)
    for module in pkgutil.iter_modules(compressed_tensors_moe.__path__, compressed_tensors_moe.__name__ + "."):
        with contextlib.suppress(ImportError):  # one is AMD's
            importlib.import_module(module.name)  # else vLLM imports them when it needs them, not as changed below
    type(current_platform).get_device_capability = classmethod(lambda *_args, **_kwargs: HOPPER)
    mxfp4.select_deepseek_v4_mxfp4_moe_backend = lambda *_args, **_kwargs: (Mxfp4MoeBackend.MARLIN, None)
    for module in list(sys.modules.values()):
        if module is None or not module.__name__.startswith(real.__package__):
            continue
        for name in dir(module):
            if name == "expose_input_quant_key" or name.startswith("init_") and name.endswith("_linear_kernel"):
                setattr(module, name, no_kernel)
            elif name == "select_wna16_moe_backend":
                setattr(module, name, marlin_backend)
                module.check_moe_marlin_supports_config = lambda *_args, **_kwargs: True
            elif name.startswith("select_") and name.endswith("_moe_backend"):
                setattr(module, name, no_backend)


def weight_modules(folder: pathlib.Path) -> list[str]:
    """The modules that have a weight, stored whole or packed, by the names of the checkpoint's tensors."""
    modules: dict[str, None] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        if shard.name.startswith("consolidated"):
            continue
        with shard.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name in header:
            module, _, part = name.rpartition(".")
            if part in ("weight", "weight_packed"):
                modules[module] = None
    return list(modules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("config", type=pathlib.Path, nargs="?", help="another config.json than the folder's")
    options = parser.parse_args()
    config = json.loads((options.config or options.folder / "config.json").read_text())["quantization_config"]
    answers = Model(options.folder).resolve(config)
    json.dump(
        {module: answer and dataclasses.asdict(answer) for module, answer in answers.items()}, sys.stdout, indent=1
    )
    print()


if __name__ == "__main__":
    main()
