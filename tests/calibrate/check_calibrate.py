#!/usr/bin/env python3
"""`qstream quantize --calibrate` through the binary, on small random models. Prints TAP.

    check_calibrate.py QSTREAM [--quick] [--seed N]

--quick: one layout, fewer kills; for the binary with sanitizers.
"""
import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
import make_checkpoint  # noqa: E402

CONFIGS = HERE.parents[1] / "configs"
RECIPE = CONFIGS / "mistral-medium-3.5-mxfp4.json"
SHAPE = dict(hidden=160, mlp=288, layers=3, heads=4, kv_heads=2, head_dim=32, vocab=500, shards=2)
LAYOUTS = ("fp8-tensor", "bf16", "mxfp8", "ct-channel", "ct-tensor")
FULL = bool(os.environ.get("QSTREAM_TEST_FULL"))
MIB = 1 << 20


class Case:
    def __init__(self, arguments):
        self.qstream, self.quick = arguments.qstream, arguments.quick
        self.random = random.Random(arguments.seed)
        self.folder = Path(tempfile.mkdtemp(prefix="qstream-calibrate-"))
        self.ids = self.file("ids.json", json.dumps([self.random.randrange(500) for _ in range(6000)]))
        os.environ["TMPDIR"] = str(self.folder)
        self.number = self.failed = 0

    def file(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name

    def model(self, layout, **options):
        path = self.folder / f"model-{layout}-{'-'.join(f'{k}-{v}' for k, v in options.items())}"
        if not path.exists():
            make_checkpoint.make_checkpoint(path, make_checkpoint.Spec(**{"layout": layout, "arch": "mistral3", **SHAPE, **options}))
        return path

    def run(self, *words, code=0, **options):
        done = subprocess.run([self.qstream, *map(str, words)], capture_output=True, text=True, **options)
        assert done.returncode == code, f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def quantize(self, source, target, *words, code=0, ids=None, recipe=RECIPE, **options):
        shutil.rmtree(self.folder / target, ignore_errors=True)
        return self.run("quantize", source, self.folder / target, "--recipe", recipe, "--calibrate-ids", ids or self.ids,
                        *words, code=code, **options)

    def kl(self, target, source):
        done = self.run("ppl", target, "--baseline", source, "--tokens", self.ids, "--window", 500, "--stride", 500,
                        "--windows", 3, "--compute", "f32", "--json", "--quiet")
        return json.loads(done.stdout)["kl"]["mean"]

    def check(self, function, *arguments):
        self.number += 1
        name = function.__name__.replace("_", " ") + "".join(f", {argument}" for argument in arguments)
        begin = time.monotonic()
        try:
            function(self, *arguments)
            print(f"ok {self.number} - {name} in {time.monotonic() - begin:.1f} s", flush=True)
        except AssertionError as problem:
            self.failed += 1
            print(f"not ok {self.number} - {name}\n# " + str(problem).replace("\n", "\n# "), flush=True)


def digests(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def tensors(folder):
    found = {}
    for path in Path(folder).glob("*.safetensors"):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, info in json.loads(data[8:8 + length]).items():
            if name != "__metadata__":
                begin, end = info["data_offsets"]
                found[name] = (info["dtype"], info["shape"], data[8 + length + begin:8 + length + end])
    return found


def given_a_layout_then_only_codes_and_scales_differ_and_outputs_are_closer(case, layout):
    source = case.model(layout)
    case.quantize(source, "calibrated", "--quiet")
    case.run("quantize", source, case.folder / "nearest", "--recipe", RECIPE, "--quiet")
    calibrated, nearest = case.folder / "calibrated", case.folder / "nearest"
    ours, theirs = tensors(calibrated), tensors(nearest)
    assert {n: t[:2] for n, t in ours.items()} == {n: t[:2] for n, t in theirs.items()}, "other tensors"
    differ = {name for name in ours if ours[name][2] != theirs[name][2]}
    mlp = {name for name in ours if ".mlp." in name and ("weight_packed" in name or "weight_scale" in name)}
    packed = {name for name in mlp if "weight_packed" in name and "language_model" in name}
    assert packed <= differ <= mlp, f"{sorted(differ - mlp)} differ, {sorted(packed - differ)} do not"
    assert (calibrated / "config.json").read_bytes() == (nearest / "config.json").read_bytes()
    manifest = json.loads((calibrated / "qstream.json").read_text())
    assert manifest["rounding"] == "calibrated" and manifest["calibration"]["windows"] == 2, manifest
    case.run("verify", source, calibrated, "--hash", "--quiet")
    case.run("audit", calibrated, "--quiet")
    better, worse = case.kl(calibrated, source), case.kl(nearest, source)
    assert better < 0.95 * worse, f"KL {better} with, {worse} without"
    shutil.rmtree(nearest)


def given_a_correction_then_the_text_itself_comes_closer_to_the_source(case, which):
    """Of down, what is lacking is in the outputs; of gate and up in the inputs."""
    source = case.model("bf16")
    ids = case.file("ids-of-correction.json", json.dumps([case.random.randrange(500) for _ in range(1500)]))
    recipe = case.file(f"{which}.json", json.dumps({"schema": "qstream.recipe/1", "name": which, "rules": [
        {"match": f"re:.*mlp\\.({which})_proj$", "format": "mxfp4"}]}))
    words = ("--calibrate-tokens", 1500, "--quiet")
    found = {}
    for share in ("0", "25%", "1"):
        case.quantize(source, "corrected", *words, "--calibrate-correction", share, ids=ids, recipe=recipe)
        manifest = json.loads((case.folder / "corrected/qstream.json").read_text())
        assert manifest["calibration"]["correction"] == {"0": 0, "25%": 0.25, "1": 1}[share], manifest
        done = case.run("ppl", case.folder / "corrected", "--baseline", source, "--tokens", ids, "--window", 1500, "--stride", 1500,
                        "--compute", "f32", "--json", "--quiet")
        found[share] = json.loads(done.stdout)["kl"]["mean"]
    assert found["1"] < 0.97 * found["25%"] < 0.95 * found["0"], found
    for share in ("1.5", "-1", "much"):
        told = case.quantize(source, "corrected", "--calibrate-correction", share, code=2).stderr
        assert "--calibrate-correction takes a share" in told, told


def given_a_text_then_verify_tells_outputs_as_numpy_does(case):
    source = case.model("bf16")
    case.quantize(source, "outputs", "--quiet")
    ids = case.file("ids-of-outputs.json", json.dumps([case.random.randrange(500) for _ in range(300)]))
    words = ("verify", source, case.folder / "outputs", "--quiet", "--json", "--tokens", ids, "--jobs")
    told = json.loads(case.run(*words, 2).stdout)["outputs"]
    assert told["tokens"] == 300, told["tokens"]
    weights, layers = told["weights"], SHAPE["layers"]
    assert [w["name"].rsplit(".", 1)[1] for w in weights] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                                                              "down_proj"] * layers, weights
    wanted = outputs_of(tensors(source), tensors(case.folder / "outputs"), json.loads(Path(ids).read_text()),
                        json.loads((source / "config.json").read_text()))
    for weight in weights:
        if weight["layer"] == 0 and weight["name"] in wanted:
            assert abs(weight["rel_error"] - wanted[weight["name"]]) < 1e-3 * wanted[weight["name"]], (weight, wanted)
    assert json.loads(case.run(*words, 1).stdout)["outputs"] == told
    nothing = json.loads(case.run("verify", source, case.folder / "outputs", "--quiet", "--json").stdout)
    assert nothing["outputs"] is None
    table = case.run("verify", source, case.folder / "outputs", "--quiet", "--tokens", ids).stdout
    assert "relative error of outputs, on 300 tokens" in table and "layer 0" in table, table
    for code, more, told in ((2, ("--windows", 2), "--windows goes with"), (2, ("--tokens", ids, "--part", "0/2"), "--part"),
                             (2, ("--tokens", ids, "--text", ids), "one of them"), (2, ("--tokens", ids, "--memory", "1MiB"), "too small"),
                             (3, ("--text", ids), "tokenizer"), (3, ("--tokens", case.folder / "none"), "none")):
        error = case.run("verify", source, case.folder / "outputs", "--quiet", *more, code=code).stderr
        assert told in error, error


def outputs_of(source, output, ids, config):
    """Relative errors of the outputs of layer 0's q, k and v: their inputs are the normalized embeddings."""
    import numpy as np  # noqa: PLC0415

    def bf16(tensor):
        return (np.frombuffer(tensor[2], np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor[1]).astype(float)

    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    e4m3 = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0 ** -9) * np.where(codes & 128, -1, 1)
    prefix = next(name for name in source if name.endswith("layers.0.input_layernorm.weight"))[:-len("input_layernorm.weight")]
    embedding = next(name for name in source if name.endswith("embed_tokens.weight"))
    x = bf16(source[embedding])[ids]
    epsilon = config.get("text_config", config)["rms_norm_eps"]
    x = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + epsilon) * bf16(source[prefix + "input_layernorm.weight"])
    found = {}
    for which in "qkv":
        name = f"{prefix}self_attn.{which}_proj"
        w, code = bf16(source[name + ".weight"]), output[name + ".weight"]
        quantized = e4m3[np.frombuffer(code[2], np.uint8).reshape(code[1])] * bf16(output[name + ".weight_scale"])
        found[name] = float(np.sqrt(((x @ (w - quantized).T) ** 2).sum() / ((x @ w.T) ** 2).sum()))
    return found


def given_damage_of_a_calibrated_weight_then_verify_names_it(case):
    source, target = case.model("bf16"), case.folder / "damaged"
    case.quantize(source, "damaged", "--quiet")
    name = next(name for name in tensors(target) if name.endswith("1.mlp.up_proj.weight_packed"))
    path = next(path for path in target.glob("*.safetensors") if name.encode() in path.read_bytes()[:100_000])
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    info = json.loads(data[8:8 + length])[name]
    at, row = 8 + length + info["data_offsets"][0], info["shape"][1]
    whole = bytes(data)
    data[at:at + row], data[at + row:at + 2 * row] = whole[at + row:at + 2 * row], whole[at:at + row]
    for told, damage in (("row 0 is no image", data), ("is no image", whole[:at] + bytes(255 for _ in range(row * info["shape"][0]))
                                                       + whole[at + row * info["shape"][0]:])):
        path.write_bytes(damage)
        done = case.run("verify", source, target, "--quiet", code=1).stdout
        assert "error: corrupt: " in done and told in done, done
        assert name.removesuffix(".weight_packed") in done, done


def given_any_number_of_threads_and_memory_then_the_same_bytes(case):
    source = case.model("fp8-tensor")
    case.quantize(source, "one", "--jobs", 1, "--quiet")
    wanted = digests(case.folder / "one")
    refused = case.quantize(source, "two", "--jobs", 1, "--memory", "1MiB", "--quiet", code=2).stderr
    least = int(refused.split("needs at least ")[1].split("MiB")[0])
    for words in (("--jobs", 2), ("--jobs", 5), ("--jobs", 1, "--memory", f"{least}MiB")):
        case.quantize(source, "two", *words, "--quiet")
        assert digests(case.folder / "two") == wanted, f"{words}: other bytes"


def given_a_limit_of_memory_then_it_is_held(case):
    source = case.model("bf16", hidden=512, mlp=1536, layers=2)
    ids = case.file("long.json", json.dumps([case.random.randrange(500) for _ in range(30000)]))
    refused = case.quantize(source, "small", "--jobs", 2, "--memory", "1MiB", "--quiet", ids=ids, code=2).stderr
    least = int(refused.split("needs at least ")[1].split("MiB")[0])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    case.quantize(source, "small", "--jobs", 2, "--memory", f"{least}MiB", "--quiet", ids=ids)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak == before or peak * 1024 <= least * MIB, f"{peak // 1024} MiB of {least}"
    assert peak * 1024 > least * MIB // 3, f"{peak // 1024} MiB only: the plan of {least} MiB is no plan"


def given_kills_at_random_moments_then_the_same_bytes(case):
    source = case.model("ct-channel")
    began = time.monotonic()
    case.quantize(source, "whole", "--quiet")
    took, wanted = time.monotonic() - began, digests(case.folder / "whole")
    kills = 0
    for attempt in range(60):
        target = case.folder / "killed"
        shutil.rmtree(target, ignore_errors=True)
        command = [case.qstream, "quantize", source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--quiet"]
        for _ in range(3):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(case.random.uniform(0, took))
            ended = process.poll() is not None
            process.kill()
            process.wait()
            kills += not ended
            assert ended or not (target / "config.json").exists() or digests(target).items() >= wanted.items()
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert digests(target) == wanted, "other bytes"
        if kills >= (15 if FULL and not case.quick else 4):
            return
    raise AssertionError(f"only {kills} kills came in time")


def given_an_interrupt_then_130_and_it_goes_on(case):
    source = case.model("ct-channel", layers=4)
    case.quantize(source, "whole", "--quiet")
    target = case.folder / "interrupted"
    command = [case.qstream, "quantize", source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(target.glob(".qstream/calibration/hidden-states-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130 and "interrupted" in told, f"{process.returncode}: {told}"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and digests(target) == digests(case.folder / "whole"), done.stderr


def given_hidden_states_that_are_gone_or_of_another_run_then_they_are_made_again(case):
    source = case.model("ct-channel", layers=4)
    case.quantize(source, "whole", "--quiet")
    for damage, states in (("gone", "hidden"), ("cut", "hidden"), ("other", "hidden"), ("gone", "source"), ("other", "source")):
        target = case.folder / f"states-{states}-{damage}"
        command = [case.qstream, "quantize", source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--quiet"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not list(target.glob(".qstream/calibration/hidden-states-2")) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        for path in target.glob(f".qstream/calibration/{states}-states-*"):
            if damage == "gone":
                path.unlink()
            elif damage == "cut":
                os.truncate(path, path.stat().st_size // 2)
            else:
                with open(path, "r+b") as file:
                    file.seek(20)
                    file.write(b"another!")
                    file.seek(4096)
                    file.write(bytes(100_000))  # its values are others, too
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and digests(target) == digests(case.folder / "whole"), f"{states}, {damage}: {done.stderr}"


def given_work_of_other_options_then_it_is_refused(case):
    source = case.model("ct-channel", layers=4)
    target = case.folder / "mixed"
    command = [case.qstream, "quantize", source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(target.glob(".qstream/calibration/hidden-states-1")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    others = (command + ["--calibrate-tokens", "2048"], command + ["--calibrate-skip", "5"], command[:6] + ["--quiet"])
    for other in others:
        done = subprocess.run(other, capture_output=True, text=True)
        assert done.returncode == 2 and "options" in done.stderr, f"{other}: {done.returncode} {done.stderr}"
    assert subprocess.run(command).returncode == 0


def given_values_that_are_not_finite_then_their_place_is_named(case):
    """With and without the source's own pass, which meets them first."""
    for value, told in ((0x7FC0, "a NaN"), (0x7F80, "an infinite value")):
        source = case.folder / f"not-finite-{value:x}"
        shutil.copytree(case.model("bf16"), source)
        name = next(name for name in tensors(source) if name.endswith("1.mlp.up_proj.weight"))
        path = next(path for path in source.glob("*.safetensors") if name.encode() in path.read_bytes()[:100_000])
        data = bytearray(path.read_bytes())
        length = int.from_bytes(data[:8], "little")
        info = json.loads(data[8:8 + length])[name]
        at = 8 + length + info["data_offsets"][0] + 2 * (3 * info["shape"][1] + 5)
        data[at:at + 2] = value.to_bytes(2, "little")
        path.write_bytes(data)
        error = case.quantize(source, "never", "--quiet", "--calibrate-correction", 0, code=3).stderr
        assert f"tensor '{name}' holds {told}" in error and "at row 3, column 5" in error, error
        case.quantize(source, "never", "--quiet", code=3)
        assert not (case.folder / "never/config.json").exists()


def given_attention_that_sees_less_than_a_window_then_verify_refuses_to_run_it(case):
    source = case.folder / "sliding"
    shutil.copytree(case.model("bf16"), source)
    config = json.loads((source / "config.json").read_text())
    config["text_config"]["sliding_window"] = 200
    (source / "config.json").write_text(json.dumps(config))
    target = case.folder / "sliding-mxfp4"
    case.run("quantize", source, target, "--recipe", RECIPE, "--quiet")
    error = case.run("verify", source, target, "--tokens", case.ids, "--quiet", code=2).stderr
    assert "sliding_window" in error, error


def given_hard_weights_and_inputs_then_it_passes_verify(case):
    source = case.model("bf16", outliers=True, zeros=True)
    few = case.file("few.json", json.dumps([7] * 40))
    for name, ids in (("hard", case.ids), ("few", few)):
        case.quantize(source, name, "--quiet", ids=ids)
        case.run("verify", source, case.folder / name, "--quiet")


def given_what_cannot_be_then_it_is_said(case):
    source = case.model("bf16")
    short = case.file("short.json", "[1, 2, 3]")
    beyond = case.file("beyond.json", json.dumps([1] * 100 + [500] + [2] * 100))
    text = case.file("text.txt", "some words " * 100)
    keep = case.file("keep.json", json.dumps({"schema": "qstream.recipe/1", "name": "fp8", "rules": [
        {"match": "re:.*self_attn.*_proj$", "format": "fp8"}]}))
    experts = case.folder / "experts"
    make_checkpoint.make_checkpoint(experts, make_checkpoint.Spec(layout="bf16", arch="qwen3_moe"))
    target = case.folder / "never"
    for code, words, told in (
            (3, [source, target, "--recipe", RECIPE, "--calibrate-ids", short], "3 tokens are too few"),
            (3, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--calibrate-skip", 5999], "too few"),
            (3, [source, target, "--recipe", RECIPE, "--calibrate-ids", beyond], "token 500 (number 100 of the text) is not in the model's vocabulary"),
            (3, [source, target, "--recipe", RECIPE, "--calibrate-ids", text], "text.txt"),
            (3, [source, target, "--recipe", RECIPE, "--calibrate", text], "tokenizer"),
            (3, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.folder / "none"], "none"),
            (2, [source, target, "--recipe", keep, "--calibrate-ids", case.ids], "nothing to calibrate"),
            (3, [experts, target, "--recipe", CONFIGS / "qwen3-moe-mxfp4.json", "--calibrate-ids", case.ids], "qwen3_moe"),
            (2, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--part", "0/2"], "--part"),
            (2, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--finish"], "--finish"),
            (2, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--hash-source"], "--hash-source"),
            (2, ["hf://a/b", target, "--recipe", RECIPE, "--calibrate-ids", case.ids], "qstream fetch a/b"),
            (2, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--calibrate", text], "one of them"),
            (2, [source, target, "--recipe", RECIPE, "--calibrate-skip", 5], "go with --calibrate"),
            (2, [source, target, "--recipe", RECIPE, "--calibrate-ids", case.ids, "--calibrate-tokens", 0], "--calibrate-tokens")):
        error = case.run("quantize", *words, "--quiet", code=code).stderr
        assert error.startswith("qstream: ") and told in error, f"{words}: {error}"
        assert not (target / "config.json").exists()
        shutil.rmtree(target, ignore_errors=True)


def given_nowhere_for_temporary_files_then_it_is_planned_and_made(case):
    source = case.model("fp8-tensor")
    nowhere = {**os.environ, "TMPDIR": str(case.folder / "nowhere")}
    for words in (("--dry-run",), ()):  # so a run that is killed leaves nothing but its output
        case.quantize(source, "nowhere-out", *words, "--quiet", env=nowhere)
    assert not (case.folder / "nowhere").exists()


def given_the_reference_model_then_its_plan_needs_no_weight_and_little_memory(case):
    sys.path.insert(0, str(HERE.parent / "cuda"))
    import check_cuda  # noqa: PLC0415

    model = check_cuda.sparse_model(case.folder / "reference", None)
    ids = case.file("many.json", json.dumps([case.random.randrange(100_000) for _ in range(65_536)]))
    words = ("quantize", model, case.folder / "plan", "--recipe", RECIPE, "--calibrate-ids", ids, "--dry-run", "--jobs", 16,
             "--memory", "128GiB")
    plan = json.loads(case.run(*words, "--json").stdout)["calibration"]
    assert (plan["windows"], plan["window"]) == (32, 2048), plan
    least = 4 * (28_672 ** 2 / 2 + 28_672 * 12_288)  # the matrix, which becomes its factor, and what draws to the source
    assert least < plan["gram_bytes"] < 1.15 * least, plan
    assert plan["gram_bytes"] + plan["weight_bytes"] < plan["memory_bytes"] < 13e9, plan
    assert plan["disk_bytes"] == 5 * 65_536 * 12_288 * 4, plan
    tokens, mlp, attention = 65_536, 3 * 12_288 * 28_672, 2 * 12_288 * (12_288 + 1_024)
    forward = 88 * 2 * tokens * (mlp + attention)
    assert 2 * forward < plan["flops"] < 4.5 * forward, plan
    table = case.run(*words).stdout
    elsewhere = float(re.search(r"computed, not measured: ([\d.]+) hours on an EPYC 9554", table)[1])
    assert 0.99 < elsewhere * 3600 * 64 * 32 * 3.1e9 / 2 / plan["flops"] < 1.01, table
    assert not (case.folder / "plan").exists()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qstream")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("QSTREAM_TEST_SEED", "1")))
    case = Case(parser.parse_args())
    try:
        for layout in LAYOUTS if FULL and not case.quick else LAYOUTS[:1]:
            case.check(given_a_layout_then_only_codes_and_scales_differ_and_outputs_are_closer, layout)
        for which in ("down", "gate|up"):
            case.check(given_a_correction_then_the_text_itself_comes_closer_to_the_source, which)
        case.check(given_a_text_then_verify_tells_outputs_as_numpy_does)
        case.check(given_damage_of_a_calibrated_weight_then_verify_names_it)
        case.check(given_any_number_of_threads_and_memory_then_the_same_bytes)
        if not case.quick:
            case.check(given_a_limit_of_memory_then_it_is_held)
            case.check(given_the_reference_model_then_its_plan_needs_no_weight_and_little_memory)
        case.check(given_kills_at_random_moments_then_the_same_bytes)
        case.check(given_an_interrupt_then_130_and_it_goes_on)
        case.check(given_hidden_states_that_are_gone_or_of_another_run_then_they_are_made_again)
        case.check(given_work_of_other_options_then_it_is_refused)
        case.check(given_hard_weights_and_inputs_then_it_passes_verify)
        case.check(given_values_that_are_not_finite_then_their_place_is_named)
        case.check(given_attention_that_sees_less_than_a_window_then_verify_refuses_to_run_it)
        case.check(given_what_cannot_be_then_it_is_said)
        case.check(given_nowhere_for_temporary_files_then_it_is_planned_and_made)
    finally:
        shutil.rmtree(case.folder, ignore_errors=True)
    print(f"1..{case.number}")
    sys.exit(case.failed > 0)


main()
