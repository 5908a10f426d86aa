#!/usr/bin/env python3
"""Runs 'qstream ppl' and 'qstream generate' with --device cuda on the plug-in under the execution model. Prints TAP.

check_cuda.py [--only WORDS] [--full]: --full runs all of the sample model instead of one layer, which takes some 15 minutes.
QSTREAM names the binary, which has the plug-in beside it (build/cuda-model/qstream).
"""
import argparse
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/infer"))
import models  # noqa: E402

QSTREAM = os.environ.get("QSTREAM", str(ROOT / "build/cuda-model/qstream"))
SAMPLE = ROOT / "build/models"
GOLDEN = ROOT.parent / "shared/golden"
WIKITEXT = ROOT.parent / "shared/data/wikitext-2-raw/wiki.test.raw"
RECIPE = str(ROOT / "configs/mistral-medium-3.5-mxfp4.json")
FULL = False
TESTS = []


class Skip(Exception):
    pass


def test(name, full=False):
    def add(function):
        TESTS.append((name, function, full))
        return function
    return add


def run(*words, code=0, program=QSTREAM, **model):
    """Standard output; of a failure the one line on standard error. model: capability=80 is QSTREAM_MODEL_CAPABILITY."""
    environment = dict(os.environ, **{"QSTREAM_MODEL_" + key.upper(): str(value) for key, value in model.items()})
    done = subprocess.run([str(word) for word in (program, *words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment)
    errors = done.stderr.decode("utf-8", "replace")
    assert done.returncode == code, "exit code %d, not %d: %s\n%s" % (done.returncode, code, words, errors[-1500:])
    if code == 0:
        return done.stdout.decode()
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("qstream: "), errors
    return lines[0]


def ppl(model, *options, folder, **how):
    """The JSON, and the NLL of each scored token."""
    path = folder / "tokens.tsv"
    result = json.loads(run("ppl", model, "--quiet", "--json", "--per-token", path, *options, **how))
    return result, np.array([float(line.split("\t")[2]) for line in path.read_text().splitlines()[1:]])


def reported(*words, folder, **how):
    """Exit code, standard error, and what the model says of its memory."""
    environment = dict(os.environ, QSTREAM_MODEL_REPORT=str(folder / "report.json"))
    environment.update({"QSTREAM_MODEL_" + key.upper(): str(value) for key, value in how.items()})
    done = subprocess.run([QSTREAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    return (done.returncode, done.stdout.decode(), done.stderr.decode("utf-8", "replace"),
            json.loads((folder / "report.json").read_text()))


def with_tokenizer(model, prompt=(1, 2, 3, 4, 5, 6, 7, 8)):
    for name in "tokenizer.json", "tokenizer_config.json":
        shutil.copy(SAMPLE / "smollm2-fp8" / name, model)
    (model / "prompt.json").write_text(json.dumps(prompt))
    return model


def ids_file(folder, count, vocabulary, seed=1):
    path = folder / "ids.json"
    path.write_text(json.dumps(np.random.default_rng(seed).integers(0, vocabulary, count).tolist()))
    return path


def says(line, *words):
    for word in words:
        assert word in line, "%r is not in: %s" % (word, line)


# ---- one layer of the sample model ----

def one_layer(source, target):
    """The model with its first layer only; shards that hold nothing else of it go."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
            shutil.copy(path, target)
    config = json.loads((target / "config.json").read_text())
    config.get("text_config", config)["num_hidden_layers"] = 1
    (target / "config.json").write_text(json.dumps(config))
    tensors = {}
    for path in sorted(source.glob("model*.safetensors")):
        header, data = models.read_shard(path)
        for name, entry in header.items():
            kept = name != "__metadata__" and (".layers." not in name or ".layers.0." in name) and "vision" not in name
            if kept and not name.startswith("layers."):
                tensors[name] = (entry, data[slice(*entry["data_offsets"])])
    header, at = {}, 0
    for name, (entry, data) in tensors.items():
        header[name] = dict(entry, data_offsets=[at, at + len(data)])
        at += len(data)
    models.write_shard(target / "model.safetensors", header, b"".join(bytes(data) for _, data in tensors.values()))
    return target


def sample_models(folder):
    """Name, folder, activations of each checkpoint of the sample, of one layer or of all."""
    two_group = folder / "two-group"
    run("quantize", SAMPLE / "smollm2-fp8", two_group, "--recipe", RECIPE, "--quiet")
    found = {}
    for name, source in (("bf16", SAMPLE / "smollm2-bf16"), ("fp8", SAMPLE / "smollm2-fp8"), ("mxfp4", two_group)):
        found[name] = source if FULL else one_layer(source, folder / name)
    return found


@test("given a layer of the sample model in each format, then the device's NLL are the CPU's")
def sample_layer(folder):
    tokens = ids_file(folder, 301, 49152)
    settings = ["--tokens", tokens, "--window", 200, "--stride", 101]
    def measure(model, *options, **how):
        return ppl(model, *settings, *options, folder=folder, **how)[1]

    for name, model in sample_models(folder).items():
        apart = np.abs(measure(model, "--compute", "f32", "--activations", "float", "--device", "cuda") -
                       measure(model, "--compute", "f32", "--activations", "float"))
        assert apart.max() < 5e-4, "%s: a token's NLL is %g away" % (name, apart.max())
        # bf16, and activations rounded to FP8: no further from the CPU's f32 than twice what the CPU's bf16 is
        exact = measure(model, "--compute", "f32")
        noise = np.abs(measure(model, "--compute", "bf16") - exact)
        for capability in (80, 90) if name == "fp8" else (90,):  # 8.0 unpacks FP8 to BF16, 9.0 takes products of FP8
            apart = np.abs(measure(model, "--compute", "bf16", "--device", "cuda", capability=capability) - exact)
            what = "%s, bf16, %d" % (name, capability)
            assert apart.max() < 2 * noise.max(), "%s: a token's NLL is %g away" % (what, apart.max())
            assert apart.mean() < 2 * noise.mean(), "%s: NLL are %g away in the mean" % (what, apart.mean())


@test("given the sample models, then windows on the device have the golden NLL", full=True)
def sample_golden(folder):
    path = GOLDEN / "smollm2_perplexity.json"
    if not path.exists() or not WIKITEXT.exists():
        raise Skip("no golden files")
    golden = json.loads(path.read_text())["checkpoints"]
    run("quantize", SAMPLE / "smollm2-fp8", folder / "amax", "--recipe", RECIPE, "--rule", "amax", "--quiet")
    for key, model, compute, tolerance in (
            ("bf16 (HF Llama layout)", SAMPLE / "smollm2-bf16", "f32", 2e-4),
            ("bf16 (HF Llama layout)", SAMPLE / "smollm2-bf16", "bf16", 3e-3),
            ("fp8 source, activations float", SAMPLE / "smollm2-fp8", "bf16", 3e-3),
            ("two-group, scale rule compressed-tensors, activations float", folder / "amax", "bf16", 3e-3)):
        result = json.loads(run("ppl", model, "--quiet", "--text", WIKITEXT, "--windows", 1, "--compute", compute,
                                "--activations", "float", "--device", "cuda", "--json"))
        apart = abs(result["windows"][0]["nll"] - golden[key]["window_nll"][0])
        assert apart < tolerance, "%s, %s: %g away" % (key, compute, apart)


# ---- where weights and hidden states lie ----

@test("given weights streamed, resident or in shared memory, and little memory, then figures are the same")
def places(folder):
    model = models.make(folder / "model", seed=3, layout="fp8-tensor", arch="mistral3", vocab=600, layers=3)
    settings = ["--tokens", ids_file(folder, 500, 600), "--window", 96, "--stride", 48, "--device", "cuda"]
    for compute in "f32", "bf16":
        _, expected = ppl(model, *settings, "--compute", compute, folder=folder)
        plans = set()
        for options, how in (([], {"order": "reverse"}), (["--resident"], {}), ([], {"unified": 1}),
                             (["--device-memory", "69MiB"], {}), (["--device-memory", "67750KiB"], {})):
            result, measured = ppl(model, *settings, "--compute", compute, *options, folder=folder, **how)
            apart = np.abs(measured - expected).max()
            assert apart < 1e-5, "%s %s %s: %g" % (compute, options, how, apart)
            device = result["budget"]["device"]
            plans.add((device["weights"], device["hidden"], result["budget"]["group"]))
        assert len(plans) >= 4, plans


@test("given a model larger than the device's memory, then it is measured, within what the plan says")
def larger_than_device(folder):
    model = models.make(folder / "model", seed=5, layout="bf16", hidden=512, mlp=2048, layers=24, heads=8, head_dim=64,
                        vocab=2000)
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    settings = ["--tokens", ids_file(folder, 130, 2000), "--window", 64, "--stride", 64, "--compute", "f32"]
    _, expected = ppl(model, *settings, folder=folder)
    plan = json.loads(run("ppl", model, "--quiet", *settings, "--device", "cuda", "--dry-run", "--json"))
    total = plan["budget"]["device"]["total"]
    assert size > total, (size, total)
    # the device of the model has as much as is planned, and what plans leave alone
    spare = 512 << 20
    result, measured = ppl(model, *settings, "--device", "cuda", folder=folder, memory=total + spare)
    assert np.abs(measured - expected).max() < 2e-3, np.abs(measured - expected).max()  # of NLL around 20
    assert result["budget"]["device"]["total"] <= total
    line = run("ppl", model, "--quiet", *settings, "--device", "cuda", "--resident", code=2, memory=total + spare)
    says(line, "too little memory", "--resident")


@test("given a baseline on the device, then divergences, errors and cosines are the CPU's")
def baseline(folder):
    source = models.make(folder / "source", seed=7, layout="fp8-tensor", arch="mistral3", layers=3)
    run("quantize", source, folder / "target", "--recipe", RECIPE, "--quiet")
    settings = ["--tokens", ids_file(folder, 200, 300), "--window", 80, "--stride", 40, "--compute", "f32", "--baseline",
                source, "--activations", "float"]
    expected, _ = ppl(folder / "target", *settings, folder=folder)
    for options in ([], ["--device-memory", "67900KiB"]):
        measured, _ = ppl(folder / "target", *settings, "--device", "cuda", *options, folder=folder)
        for key in "mean", "median", "p99", "max":
            assert abs(measured["kl"][key] - expected["kl"][key]) < 1e-4, (key, measured["kl"], expected["kl"])
        assert measured["top1_agreement"] == expected["top1_agreement"]
        for a, b in zip(measured["layers"], expected["layers"]):
            assert abs(a["rel_error"] - b["rel_error"]) < 1e-5 and abs(a["cosine"] - b["cosine"]) < 1e-5, (a, b)


@test("given streams early and late, a device that shares memory, and hidden states in a file, then a comparison is the CPU's")
def streams(folder):
    model = models.make(folder / "model", seed=3, layout="fp8-tensor", arch="mistral3", vocab=600, layers=3)
    source = models.make(folder / "source", seed=9, layout="fp8-tensor", arch="mistral3", vocab=600, layers=3)
    settings = ["--tokens", ids_file(folder, 320, 600), "--window", 32, "--stride", 16, "--compute", "f32", "--baseline",
                source]
    expected, _ = ppl(model, *settings, folder=folder)
    plan, _ = ppl(model, *settings, "--device", "cuda", folder=folder, unified=1)
    plan = plan["budget"]
    assert plan["groups"] > 1 and plan["hidden"] == 0, plan
    # where memory is shared, hidden states that are too much for it go to a file
    memory, spare = plan["total"] + plan["device"]["total"], 512 << 20  # plans leave the spare alone
    while plan["hidden"] <= plan["hidden_memory"]:
        memory -= 200000
        plan = json.loads(run("ppl", model, "--quiet", "--json", *settings, "--device", "cuda", "--dry-run",
                              "--device-memory", "unified:%dB" % (memory + spare)))["budget"]
    for options, how in (([], {"unified": 1}), (["--resident"], {"unified": 1, "eager": 1}), ([], {"eager": 1}),
                         (["--device-memory", "67800KiB"], {"eager": 2}),
                         (["--device-memory", "%dB" % memory], {"unified": 1})):
        measured, _ = ppl(model, *settings, "--device", "cuda", *options, folder=folder, **how)
        what = (options, how, measured["budget"])
        assert abs(measured["nll"] - expected["nll"]) < 1e-3, what
        assert abs(measured["kl"]["mean"] - expected["kl"]["mean"]) < 2e-3, what
        for a, b in zip(measured["layers"], expected["layers"]):
            assert abs(a["rel_error"] - b["rel_error"]) < 1e-4, (what, a, b)


@test("given a plan, then no more memory is taken, of the device and pinned, and a dry run tells the same")
def budgets(folder):
    model = with_tokenizer(models.make(folder / "model", seed=3, layout="fp8-tensor", arch="mistral3", vocab=600, layers=3))
    measure = ["ppl", model, "--quiet", "--json", "--tokens", ids_file(folder, 200, 600), "--window", 48, "--stride", 48]
    make = ["generate", model, "--quiet", "--json", "--tokens", model / "prompt.json", "--max-tokens", 3]
    for words, how in ((measure, {}), ([*measure, "--baseline", model], {"unified": 1}), ([*measure, "--compute", "f32"], {}),
                       ([*measure, "--baseline", model, "--resident"], {}), ([*measure, "--device-memory", "67300KiB"], {}),
                       (make, {}), ([*make, "--kv-cache", "fp8"], {"unified": 1})):
        code, output, errors, report = reported(*words, "--device", "cuda", folder=folder, **how)
        assert code == 0, errors
        answer = json.loads(output)
        host, device = (answer["memory"], answer["device"]) if words[0] == "generate" else (answer["budget"],
                                                                                           answer["budget"]["device"])
        assert device["total"] - 40000 < report["device"] <= device["total"], (words, how, report, device)
        assert report["pinned"] <= host["weights"] + host["work"] and report["left"] == 0, (words, report, host)
        if "--device-memory" not in words:
            plan = json.loads(run(*words, "--device", "cuda", "--dry-run", **how))
            assert plan.get("device", plan.get("budget")) == (device if words[0] == "generate" else host), (words, plan)
    # a card that is described has a plan that is no less, and hardly more
    described = json.loads(run(*make, "--device", "cuda", "--dry-run", "--device-memory", "8GiB"))["device"]["total"]
    real = json.loads(run(*make, "--device", "cuda", "--dry-run"))["device"]["total"]
    assert real <= described < real + (1 << 20), (real, described)


@test("given no memory or a device that breaks, at any place, then one line tells, and nothing is left")
def failures(folder):
    model = with_tokenizer(models.make(folder / "model", seed=3, layout="fp8-tensor", arch="mistral3", vocab=600, layers=3))
    measure = ["ppl", model, "--quiet", "--tokens", ids_file(folder, 100, 600), "--window", 48, "--stride", 48, "--device",
               "cuda", "--resident"]
    make = ["generate", model, "--quiet", "--tokens", model / "prompt.json", "--max-tokens", 3, "--device", "cuda"]
    for words in measure, make:
        count = reported(*words, folder=folder)[3]["allocations"]
        cases = [{"no_memory": i} for i in range(1, count + 1)] + [{"fail": i} for i in (1, 3, 8, 20, 50)]
        for how in cases:
            code, _, errors, report = reported(*words, folder=folder, **how)
            assert code == 4 and errors.startswith("qstream: ") and errors.count("\n") == 1, (words[0], how, code, errors)
            assert report["left"] == 0, (words[0], how, report)
    says(run(*make, code=4, no_memory=1), "host memory that can be pinned")
    says(run(*make, "--device-memory", "unified:8GB", code=2), "unified:", "has its own")


# ---- generation ----

def generated(model, *options, **how):
    return json.loads(run("generate", model, "--quiet", "--json", "--tokens", model / "prompt.json", *options, **how))


@test("given a prompt, then the device goes on with the CPU's tokens, whatever the cache")
def generate(folder):
    model = one_layer(SAMPLE / "smollm2-fp8", folder / "model")
    (model / "prompt.json").write_text("[253, 4959, 1909, 281, 6944]")
    for cache in "auto", "bf16", "fp8":
        settings = ["--max-tokens", 6, "--kv-cache", cache, "--ignore-eos", "--activations", "float"]
        expected = generated(model, *settings)["tokens"]
        result = generated(model, *settings, "--device", "cuda")
        assert result["tokens"] == expected, (cache, result["tokens"], expected)
        assert result["device"]["weights"] > result["device"]["cache"] > 0
        assert result["memory_bytes_per_second"] > 0
    # a device without space for the prompt at once takes its tokens one after another
    tight = result["device"]["total"] - (64 << 20)
    slow = generated(model, "--max-tokens", 3, "--ignore-eos", "--activations", "float", "--device", "cuda",
                     "--device-memory", "%dB" % tight)
    assert slow["tokens"] == expected[:3] and slow["device"]["total"] <= tight


# ---- damage ----

@test("given NaN in a layer or in codes of FP8, then it is told which layer or tensor")
def nan(folder):
    def damage(model, name, code):
        for path in model.glob("*.safetensors"):
            header, data = models.read_shard(path)
            data = bytearray(data)
            for found, entry in header.items():
                if found.endswith(name):
                    data[entry["data_offsets"][0] + 7] = code
            models.write_shard(path, header, bytes(data))

    model = models.make(folder / "model", seed=1, layout="fp8-tensor", arch="mistral3", layers=2)
    damage(model, "layers.1.mlp.up_proj.weight", 0x7F)
    tokens = ids_file(folder, 64, 300)
    says(run("ppl", model, "--quiet", "--tokens", tokens, "--window", 32, "--stride", 32, "--device", "cuda", code=3),
         "layer 1", "NaN", "position")
    model = one_layer(SAMPLE / "smollm2-fp8", folder / "sample")
    (model / "prompt.json").write_text("[1, 2, 3]")
    damage(model, "layers.0.self_attn.o_proj.weight", 0xFF)
    says(run("generate", model, "--quiet", "--tokens", model / "prompt.json", "--device", "cuda", code=3),
         "layers.0.self_attn.o_proj.weight", "NaN", "element 7")


@test("given damage, then the device tells of a prompt what the CPU tells")
def prompt_damage(folder):
    for name, tensor, word in (("layer", "layers.1.mlp.down_proj.weight", "layer 1 "), ("head", "lm_head.weight", "position 2"),
                               ("embedding", "embed_tokens.weight", "row 0"), ("norm", "model.norm.weight", "element 0")):
        model = with_tokenizer(models.make(folder / name, seed=5, layout="bf16", layers=4), (0, 2, 3))

        def change(found, dtype, array):
            if found.endswith(tensor):
                array.reshape(-1)[0] = 0x7FC0  # NaN

        models.edit_tensors(model, change)
        words = ["generate", model, "--quiet", "--tokens", model / "prompt.json", "--max-tokens", 2]
        line = run(*words, code=3)
        says(line, word)
        assert run(*words, "--device", "cuda", code=3) == line, (line, run(*words, "--device", "cuda", code=3))


# ---- plans for the reference model, which is not there ----

def sparse_model(folder, quantized_config, layers=88, divisor=1):
    """Headers and config of Mistral-Medium-3.5-128B as qstream writes it, or as it comes; its weights are holes, which read
    as zeros, its scales are 1. With fewer layers, or all widths divided."""
    heads, kv_heads, vocabulary = 96 // divisor, max(8 // divisor, 1), max(131072 // divisor, 49152)
    hidden, mlp, query, key = 12288 // divisor, 28672 // divisor, heads * 128, kv_heads * 128
    folder.mkdir()
    config = json.loads((SAMPLE / "smollm2-fp8/config.json").read_text())
    config["text_config"].update(vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp,
                                 num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
                                 head_dim=128)
    if quantized_config:
        config["quantization_config"] = quantized_config
    (folder / "config.json").write_text(json.dumps(config))
    sizes = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4}
    tensors = {"model.language_model.embed_tokens.weight": ("BF16", [vocabulary, hidden]),
               "model.language_model.norm.weight": ("BF16", [hidden]), "lm_head.weight": ("BF16", [vocabulary, hidden])}
    shapes = {"self_attn.q_proj": [query, hidden], "self_attn.k_proj": [key, hidden], "self_attn.v_proj": [key, hidden],
              "self_attn.o_proj": [hidden, query], "mlp.gate_proj": [mlp, hidden], "mlp.up_proj": [mlp, hidden],
              "mlp.down_proj": [hidden, mlp]}
    for layer in range(layers):
        prefix = "model.language_model.layers.%d." % layer
        tensors[prefix + "input_layernorm.weight"] = ("BF16", [hidden])
        tensors[prefix + "post_attention_layernorm.weight"] = ("BF16", [hidden])
        for name, (rows, columns) in shapes.items():
            if quantized_config and name.startswith("mlp"):
                tensors[prefix + name + ".weight_packed"] = ("U8", [rows, columns // 2])
                tensors[prefix + name + ".weight_scale"] = ("U8", [rows, columns // 32])
                continue
            tensors[prefix + name + ".weight"] = ("F8_E4M3", [rows, columns])
            scales = ("weight_scale", "input_scale") if quantized_config else ("weight_scale_inv", "activation_scale")
            for scale in scales:
                tensors[prefix + name + "." + scale] = ("F32", [1] if quantized_config else [])
    header, at = {}, 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: -sizes[item[1][0]]):
        size = sizes[dtype] * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for dtype, shape in sorted(tensors.values(), key=lambda tensor: -sizes[tensor[0]]):
            if dtype == "F32":  # they come first
                file.write(struct.pack("<%df" % max(shape, default=1), *[1] * max(shape, default=1)))
        file.truncate(8 + len(text) + at)
    for name in "tokenizer.json", "tokenizer_config.json":
        shutil.copy(SAMPLE / "smollm2-fp8" / name, folder)
    (folder / "prompt.json").write_text("[1, 2, 3]")
    return folder


@test("given the reference model and a card's memory, then its plan is told without a card")
def plans(folder):
    sample = folder / "sample"
    run("quantize", SAMPLE / "smollm2-fp8", sample, "--recipe", RECIPE, "--quiet")
    groups = json.loads((sample / "config.json").read_text())["quantization_config"]
    target, source = sparse_model(folder / "target", groups), sparse_model(folder / "source", None)
    program = folder / "qstream"  # no plug-in is beside it
    shutil.copy(QSTREAM, program)
    gb = 10**9

    def generation(model, *options, **how):
        text = run("generate", model, "--tokens", model / "prompt.json", "--dry-run", "--json", "--device", "cuda", "--memory",
                   "128GB", *options, program=program, **how)
        return json.loads(text) if not how else text

    device = generation(target, "--device-memory", "unified:128GB", "--max-tokens", 8000)["device"]
    assert 81 * gb < device["weights"] < 82 * gb and 2.8 * gb < device["cache"] < 3 * gb and device["unified"]
    assert device["total"] < 90 * gb, device
    assert generation(target, "--device-memory", "96GB")["device"]["total"] < 96 * gb
    says(generation(target, "--device-memory", "80GB", code=2), "too little memory", "weights 81", "GB")
    says(generation(source, "--device-memory", "96GB", code=2), "too little memory", "weights 125 GB")

    tokens = ids_file(folder, 4096, 49152)
    for model, options, layer in ((source, ["--device-memory", "96GB"], 1.39), (source, ["--device-memory", "24GB"], 1.39),
                                  (target, ["--device-memory", "24GB"], 0.89),
                                  (source, ["--device-memory", "unified:128GB"], 0)):
        plan = json.loads(run("ppl", model, "--tokens", tokens, "--windows", 5, "--dry-run", "--json", "--device", "cuda",
                              "--memory", "128GB", *options, program=program))["budget"]
        assert abs(plan["device"]["weights"] - 2 * layer * gb) < 0.05 * gb, plan  # two layers at a time
        assert plan["device"]["total"] < 10 * gb and plan["total"] < 6 * gb, plan
        assert plan["read"] > (80 if model == target else 124) * gb
    whole = json.loads(run("ppl", target, "--tokens", tokens, "--windows", 5, "--dry-run", "--json", "--device", "cuda", "--memory",
                           "128GB", "--device-memory", "128GB", "--resident", program=program))["budget"]
    assert whole["device"]["weights"] > 81 * gb


# ---- no device ----

@test("given no plug-in, one of another version, no device or no such device, then one line tells, and auto takes the CPU")
def no_device(folder):
    model = models.make(folder / "model", seed=1, layout="bf16")
    settings = ["ppl", model, "--quiet", "--tokens", ids_file(folder, 64, 300), "--window", 32, "--stride", 32]
    program = folder / "qstream"
    shutil.copy(QSTREAM, program)
    says(run(*settings, "--device", "cuda", program=program, code=4), "libqstream_cuda.so", "make cuda", str(folder))
    expected = run(*settings, "--json", "--compute", "f32")
    auto = json.loads(run(*settings, "--device", "auto", "--json", "--compute", "f32", program=program))
    assert auto["budget"]["device"] is None and auto["nll"] == json.loads(expected)["nll"]

    library = folder / "libqstream_cuda.so"
    library.write_bytes(b"not a library")
    says(run(*settings, "--device", "cuda", program=program, code=4), "cannot be loaded", str(library))
    (folder / "other.c").write_text("static const unsigned table[64] = {999, 256};\n"
                                    "const void *qstream_cuda_plugin(void) { return table; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "other.c"], check=True)
    says(run(*settings, "--device", "cuda", program=program, code=4), "another version", "999", "make cuda")
    (folder / "other.c").write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "other.c"], check=True)
    says(run(*settings, "--device", "cuda", program=program, code=4), "not a plug-in")

    says(run(*settings, "--device", "cuda", code=4, devices=0), "no CUDA device")
    says(run(*settings, "--device", "cuda:7", code=4), "cuda:7", "only 1")
    assert json.loads(run(*settings, "--device", "auto", "--json", devices=0))["budget"]["device"] is None
    assert json.loads(run(*settings, "--device", "auto", "--json"))["budget"]["device"]["name"]
    # the working directory is no place for code
    here = subprocess.run([str(program), *map(str, settings), "--device", "auto", "--json"], cwd=Path(QSTREAM).parent,
                          stdout=subprocess.PIPE, check=True)
    assert json.loads(here.stdout)["budget"]["device"] is None
    for wrong in ("gpu", "cuda:", "cuda:x", "cuda:-1", ""):
        says(run(*settings, "--device", wrong, code=2), "--device")
    says(run(*settings, "--device-memory", "8GB", code=2), "--device-memory", "--device cuda")
    says(run(*settings, "--device", "cuda", "--device-memory", "much", code=2), "--device-memory", "much")


@test("given an interrupt, then it ends with 130, and nothing is left behind")
def interrupt(folder):
    model = models.make(folder / "model", seed=1, layout="bf16", hidden=512, mlp=2048, heads=8, head_dim=64, layers=12)
    tokens = ids_file(folder, 2000, 300)
    process = subprocess.Popen([QSTREAM, "ppl", model, "--tokens", tokens, "--window", "256", "--stride", "128", "--device",
                                "cuda", "--per-token", folder / "out.tsv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130, process.returncode
    assert not (folder / "out.tsv").exists()


def main():
    global FULL
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    FULL = options.full
    failed = number = 0
    for name, function, full in TESTS:
        if options.only not in name or full > options.full:
            continue
        number += 1
        with tempfile.TemporaryDirectory(prefix="cuda-", dir=ROOT / "build") as folder:
            try:
                function(Path(folder))
                print("ok %d %s" % (number, name), flush=True)
            except Skip as reason:
                print("ok %d %s # SKIP %s" % (number, name, reason), flush=True)
            except Exception as problem:
                failed += 1
                print("not ok %d %s" % (number, name))
                text = str(problem) if isinstance(problem, AssertionError) and str(problem) else traceback.format_exc()
                print("# " + text.replace("\n", "\n# "), flush=True)
    print("1..%d" % number)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
