"""The checks of tests/cuda/on_gpu.sh: parity, compute-sanitizer, perplexity, streaming, generation, speed. Prints TAP and
writes a report. Whatever a program does not end by its time-out has failed."""
import argparse
import fnmatch
import itertools
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SAMPLE = ROOT / "build/models"
WORK = ROOT / "build/cuda-gpu"
WIKITEXT = SHARED / "data/wikitext-2-raw/wiki.test.raw"
GOLDEN = SHARED / "golden/smollm2_perplexity.json"
RECIPE = ROOT / "configs/mistral-medium-3.5-mxfp4.json"
sys.path.insert(0, str(ROOT / "tests/cuda"))
import check_cuda  # noqa: E402

# By which a window's mean NLL may differ: sums of BF16 products in another order; float32; static activations, whose
# rounding turns on the last bits of sums (of two orders of summing, windows differ by 0.015).
BF16, F32, STATIC = 3e-3, 2e-4, 0.03
# Tests that run every kernel; without the ones of memory that is not there and of seventy thousand windows.
SANITIZER_SUBSET = ["*unpacked*", "*operands*", "*norm*", "*products*", "*results*", "given_heads_then*", "*attention_is*",
                    "*attends_to*", "*cache_holds*", "*vocabularies*", "*cosines*", "*is_found", "*decoded_weight",
                    "*replays*", "*ring*", "*rate_of_reading*"]
SANITIZER_SCALE = "0.05"  # fewer and smaller cases: the sanitizer makes kernels a hundred times slower
WHOLE, SANITIZED, SHORT = 1200, 300, 60  # seconds that a program may take
SHARE_WANTED = 0.85  # of the bandwidth that reading alone reaches, of a model that is large enough


class Skip(Exception):
    pass


class Run:
    def __init__(self, options):
        self.options = options
        self.model = options.model
        build = ROOT / "build"
        self.qstream = os.environ.get("QSTREAM", str(build / ("cuda-model/qstream" if self.model else "qstream")))
        self.plugin = build / ("cuda-model/libqstream_cuda.so" if self.model else "libqstream_cuda.so")
        self.parity = build / "cuda-test/test_plugin"
        # the emulated device is a thousand times slower
        self.windows = ["--windows", "1", "--window", "256", "--stride", "128"] if self.model else [
            "--windows", str(options.windows)]
        self.tokens = options.tokens or (4 if self.model else 256)
        self.wide = "a narrow layer" if self.model else "four layers of the reference model's width"
        self.number = self.failed = 0
        self.report = {"schema": "qstream.cuda-report/1", "emulated": self.model, "tests": [], "figures": {}}

    # -- TAP --

    def test(self, name, function):
        self.number += 1
        started, details, status = time.time(), None, "ok"
        try:
            details = function()
        except Skip as skip:
            status, details = "skipped", str(skip)
        except (AssertionError, OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
            status, details = "failed", f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
            self.failed += 1
        seconds = round(time.time() - started, 1)
        self.report["tests"].append({"name": name, "status": status, "seconds": seconds, "details": details})
        print(f"{'not ok' if status == 'failed' else 'ok'} {self.number} - {name}" +
              (f" # SKIP {details}" if status == "skipped" else f" ({seconds} s)"), flush=True)
        if details is not None and status != "skipped":
            for line in (details if isinstance(details, str) else json.dumps(details)).splitlines():
                print("#   " + line)
        return status == "ok"

    # -- programs --

    def run(self, command, timeout=WHOLE, **more):
        command = [str(c) for c in command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, **more)
        assert done.returncode == 0, "%s: exit code %d\n%s" % (" ".join(command), done.returncode,
                                                               (done.stderr or done.stdout)[-1500:])
        return done.stdout

    def ppl(self, model, *more, device="cuda", windows=None):
        text = WIKITEXT if WIKITEXT.exists() else docs_text()
        return json.loads(self.run([self.qstream, "ppl", model, "--text", text, *(windows or self.windows), "--device", device,
                                    "--quiet", "--json", *more]))

    def generate(self, model, *more, device="cuda", tokens=None):
        return json.loads(self.run([self.qstream, "generate", model, "--prompt", "The tower is 324 metres tall, about the same",
                                    "--max-tokens", tokens or self.tokens, "--temperature", 0, "--ignore-eos",
                                    "--device", device, "--json", "--quiet", *more]))


def docs_text():
    """A text where the data set is not: this program's documentation."""
    path = WORK / "docs.txt"
    path.write_text("\n".join(p.read_text() for p in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]))
    return path


def window_nll(result):
    return [w["nll"] for w in result["windows"]]


def near(what, got, wanted, tolerance):
    worst = max(abs(g - w) for g, w in zip(got, wanted, strict=True))
    assert math.isfinite(worst) and worst <= tolerance, f"{what}: windows {got}, wanted {wanted} within {tolerance}"
    return worst


# ---- the checks ----

def card(run):
    if run.model:
        raise Skip("emulated")
    tool = shutil.which("nvidia-smi")
    assert tool, "nvidia-smi is not there: is NVIDIA's driver installed?"
    fields = "name,driver_version,memory.total,compute_cap,clocks.max.sm,clocks.max.memory,power.limit,pcie.link.gen.max," \
             "pcie.link.width.max,ecc.mode.current"
    line = run.run([tool, f"--query-gpu={fields}", "--format=csv,noheader"], timeout=SHORT).splitlines()
    run.report["card"] = [dict(zip(fields.split(","), (v.strip() for v in one.split(",")))) for one in line]
    print("# " + "; ".join(line))
    return run.report["card"]


def parity_run(run, *options, command=(), scale=None, timeout=WHOLE):
    """Status, names of the tests that passed, and what was printed."""
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="tap", **({"QSTREAM_TEST_SCALE": scale} if scale else {}))
    done = subprocess.run([*command, str(run.parity), *options, str(run.plugin)], capture_output=True, text=True,
                          timeout=timeout, cwd=ROOT, env=environment)
    return done.returncode, re.findall(r"^ok \d+ - (\w+)", done.stdout, re.M), done.stdout + done.stderr


def parity(run):
    run.run(["make", run.parity.relative_to(ROOT)])
    assert run.plugin.exists(), f"{run.plugin.relative_to(ROOT)} is missing: make {'cuda-model' if run.model else 'cuda'}"
    status, passed, text = parity_run(run, scale=SANITIZER_SCALE if run.model else None)
    (WORK / "parity.txt").write_text(text)
    # "# NAME, 9.0, 132 multiprocessors, CUDA 13.0"
    found = re.search(r"^# (.*), (\d+\.\d+), (\d+) multiprocessors, CUDA (.*)$", text, re.M)
    if found:
        run.report["device"] = dict(zip(("name", "compute_capability", "multiprocessors", "toolkit"), found.groups()))
    failed = [line for line in text.splitlines() if line.startswith("not ok")]
    assert status == 0 and passed and not failed, "\n".join(failed[:30]) + f"\nexit code {status}\n" + text[-1500:]
    return f"{found.group(0).strip('# ') if found else 'no device told'}: {len(passed)} tests passed"


def patterns(run):
    """Without the sanitizer first: each pattern names tests, and these pass at the sanitizer's scale."""
    names = set()
    for pattern in SANITIZER_SUBSET:
        status, passed, text = parity_run(run, "--only", pattern, scale=SANITIZER_SCALE, timeout=SANITIZED)
        assert status == 0 and passed, f"{pattern}: exit code {status}, {len(passed)} tests passed\n{text[-1500:]}"
        assert all(fnmatch.fnmatch(name, pattern) for name in passed), f"{pattern} ran {passed}"
        names.update(passed)
    return f"{len(names)} tests"


def sanitizer(run, tool):
    if run.model:
        raise Skip("emulated")
    program = shutil.which("compute-sanitizer") or next(
        (str(p) for p in (Path("/usr/local/cuda/bin/compute-sanitizer"),) if p.exists()), None)
    if not program:
        raise Skip("compute-sanitizer is not there; it comes with the CUDA toolkit")
    lines = []
    for pattern in SANITIZER_SUBSET:
        status, passed, text = parity_run(run, "--only", pattern, command=[program, "--tool", tool, "--error-exitcode", "9"],
                                          scale=SANITIZER_SCALE, timeout=SANITIZED)
        lines += [f"{pattern}: {line.strip('= ')}" for line in text.splitlines() if "SUMMARY" in line]
        assert status == 0 and passed, f"{tool}, {pattern}: exit code {status}\n{text[-3000:]}"
    return "\n".join(lines)


def sample(run):
    if not (SAMPLE / "smollm2-fp8/tokenizer.json").exists():
        run.run([sys.executable, "tests/models/make_sample.py", "--out", SAMPLE])
    mxfp4 = WORK / "smollm2-mxfp4"
    if not (mxfp4 / "config.json").exists():
        shutil.rmtree(mxfp4, ignore_errors=True)
        run.run([run.qstream, "quantize", SAMPLE / "smollm2-fp8", mxfp4, "--recipe", RECIPE, "--quiet"])
    for kind, source in all_models().items():
        target = WORK / f"layer-{kind}"
        if run.model and not target.exists():
            check_cuda.one_layer(source, target)


def all_models():
    return {"bf16": SAMPLE / "smollm2-bf16", "fp8": SAMPLE / "smollm2-fp8", "mxfp4": WORK / "smollm2-mxfp4"}


def models(run):
    return {kind: WORK / f"layer-{kind}" for kind in all_models()} if run.model else all_models()


def perplexity(run, kind, compute, activations, tolerance):
    settings = ["--compute", compute, "--activations", activations]
    on_card = run.ppl(models(run)[kind], *settings)
    on_cpu = run.ppl(models(run)[kind], *settings, device="cpu")
    worst = near(f"{kind}, {compute}", window_nll(on_card), window_nll(on_cpu), tolerance)
    return {"ppl": on_card["ppl"], "ppl_cpu": on_cpu["ppl"], "worst_window": worst,
            "tokens_per_second": on_card["tokens_per_second"], "tokens_per_second_cpu": on_cpu["tokens_per_second"]}


def golden(run):
    if run.model:
        raise Skip("one layer only")
    if not GOLDEN.exists() or not WIKITEXT.exists():
        raise Skip(f"{GOLDEN} or {WIKITEXT} is not there")
    checkpoints, out = json.loads(GOLDEN.read_text())["checkpoints"], {}
    for key, kind, compute, activations, tolerance in (
            ("bf16 (HF Llama layout)", "bf16", "f32", "float", F32),
            ("bf16 (HF Llama layout)", "bf16", "bf16", "float", BF16),
            ("fp8 source, activations float", "fp8", "f32", "float", F32),
            ("fp8 source, static fp8 activations on every language-model projection", "fp8", "bf16", "as-served", STATIC)):
        nll = window_nll(run.ppl(models(run)[kind], "--compute", compute, "--activations", activations))
        out[f"{key}, {compute}"] = near(key, nll, checkpoints[key]["window_nll"][:len(nll)], tolerance)
    return out


def baseline(run):
    both = [run.ppl(models(run)["mxfp4"], "--baseline", models(run)["fp8"], "--activations", "float", device=device)
            for device in ("cuda", "cpu")]
    near("nll", window_nll(both[0]), window_nll(both[1]), BF16)
    near("baseline's nll", *([w["baseline_nll"] for w in b["windows"]] for b in both), BF16)
    near("KL divergence", *([w["kl"] for w in b["windows"]] for b in both), BF16)
    return {"kl": both[0]["kl"], "top1_agreement": both[0]["top1_agreement"]}


def streamed(run):
    """Streamed weights, and the least memory that is accepted, give the figures of resident weights."""
    model = models(run)["bf16"]
    resident, usual = run.ppl(model, "--resident"), run.ppl(model)
    out, refusal = {"resident": resident["tokens_per_second"], "streamed": usual["tokens_per_second"]}, None
    assert resident["budget"]["device"]["weights"] > usual["budget"]["device"]["weights"], "--resident kept no more"
    runs = {"streamed": usual}
    for size in "64MiB", "96MiB", "128MiB", "192MiB", "256MiB", "384MiB", "512MiB", "1GiB", "2GiB":
        try:
            runs[size] = run.ppl(model, "--device-memory", size)
        except AssertionError as error:
            refusal = str(error)
            assert "too little memory" in refusal, refusal
            continue
        out[size] = runs[size]["tokens_per_second"]
        break
    else:
        raise AssertionError(refusal)
    for name, result in runs.items():
        same = result["budget"]["group"] == resident["budget"]["group"]  # else sums may be in another order
        near(f"{name} against resident", window_nll(result), window_nll(resident), 0 if same else BF16)
    return {"tokens_per_second": out}


GENERATED = ("tokens_per_second", "prompt_tokens_per_second", "weight_bytes_per_token", "weight_bytes_per_second",
             "memory_bytes_per_second", "bandwidth_share")


def generation(run, kind):
    """The tokens of the CPU, whose sums are in another order: at least the first ones."""
    path, settings = models(run)[kind], ["--kv-cache", "bf16", "--activations", "float"]
    on_card, again = run.generate(path, *settings), run.generate(path, *settings)
    on_cpu = run.generate(path, *settings, device="cpu", tokens=min(run.tokens, 16))
    out = {key: on_card[key] for key in GENERATED} | {"bandwidth_share_wanted": SHARE_WANTED}
    run.report["figures"][f"generation, {kind}"] = out
    assert again["tokens"] == on_card["tokens"], "two runs gave different tokens"
    assert len(on_card["tokens"]) == run.tokens, f"{len(on_card['tokens'])} tokens instead of {run.tokens}"
    pairs = zip(on_card["tokens"], on_cpu["tokens"])
    out["first_tokens_as_on_cpu"] = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert out["first_tokens_as_on_cpu"] >= min(4, len(on_cpu["tokens"])), \
        f"tokens {on_card['tokens'][:16]}, on the CPU {on_cpu['tokens'][:16]}"
    return out


def judged_generation(run, name, path, *more):
    result = run.generate(path, *more) if "--tokens" not in more else json.loads(run.run(
        [run.qstream, "generate", path, "--max-tokens", run.tokens, "--ignore-eos", "--device", "cuda", "--json", "--quiet",
         *more]))
    out = {key: result[key] for key in GENERATED} | {"bandwidth_share_wanted": SHARE_WANTED, "device": result["device"]}
    run.report["figures"][f"generation, {name}"] = out
    assert run.model or out["bandwidth_share"] >= SHARE_WANTED, \
        f"{json.dumps(out)}: at least {SHARE_WANTED:.0%} of the bandwidth are wanted"
    return out


# ---- speed at the reference model's widths ----

def wide(run, kind):
    """A few layers as wide as Mistral-Medium-3.5's; the file is a hole, so they are zeros, which take as long."""
    path = WORK / f"{'narrow' if run.model else 'wide'}-{kind}"
    if not (path / "prompt.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        config = json.loads((WORK / "smollm2-mxfp4/config.json").read_text())["quantization_config"]
        check_cuda.sparse_model(path, config if kind == "mxfp4" else None, **({"layers": 1, "divisor": 32} if run.model else
                                                                              {"layers": 4}))
    return path


def wide_generation(run, kind):
    path = wide(run, kind)
    try:
        return judged_generation(run, f"{run.wide}, {kind}", path, "--tokens", path / "prompt.json")
    except AssertionError as error:
        if "too little memory" in str(error):
            raise Skip("the card is too small for it") from error
        raise


def wide_ppl(run, kind, activations):
    """Products and attention: as many tokens in four windows and in one, which has four times the attention."""
    tokens = 64 if run.model else 8192
    ids, seconds, path = WORK / "ids.json", {}, wide(run, kind)
    ids.write_text(json.dumps([i * 7919 % 49152 for i in range(tokens)]))
    for windows in 4, 1:
        length = tokens // windows
        result = json.loads(run.run([run.qstream, "ppl", path, "--tokens", ids, "--window", length, "--stride", length,
                                     "--activations", activations, "--device", "cuda", "--quiet", "--json"]))
        assert math.isfinite(result["nll"]) and result["tokens_run"] == tokens
        seconds[f"{windows} x {length}"] = result["seconds"]
    run.report["figures"][f"ppl, {run.wide}, {kind}, activations {activations}"] = seconds
    return {"seconds, reading included": seconds}


def checkpoint_ppl(run):
    more = ["--baseline", run.options.baseline] if run.options.baseline else []
    result = run.ppl(run.options.checkpoint, *more, windows=["--windows", run.options.checkpoint_windows])
    out = {key: result.get(key) for key in ("ppl", "nll", "kl", "seconds", "tokens_run", "tokens_per_second", "budget")}
    run.report["figures"]["ppl, checkpoint"] = out
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", action="store_true", help="against the emulated plug-in")
    parser.add_argument("--tokens", type=int, help="tokens of each generation (default 256; 4 with --model)")
    parser.add_argument("--windows", type=int, default=2, help="windows of each perplexity (default 2)")
    parser.add_argument("--checkpoint", help="a large checkpoint to measure too")
    parser.add_argument("--baseline", help="its baseline")
    parser.add_argument("--checkpoint-windows", type=int, default=5)
    parser.add_argument("--report", default="cuda-report.json")
    run = Run(parser.parse_args())
    WORK.mkdir(parents=True, exist_ok=True)
    if not shutil.which(run.qstream):
        print(f"Bail out! {run.qstream} is missing: make" + (" cuda-model" if run.model else ""))
        return 1
    run.report["machine"] = {"system": platform.platform(), "processors": os.cpu_count()}
    run.report["qstream"] = subprocess.run([run.qstream, "--version"], capture_output=True, text=True, timeout=SHORT).stdout.strip()
    run.report["commit"] = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True,
                                          cwd=ROOT).stdout.strip()

    print("# " + ("the emulated plug-in; times mean nothing" if run.model else "on the GPU"))
    try:
        checks_run(run)
    finally:
        run.report["passed"] = run.failed == 0
        Path(run.options.report).write_text(json.dumps(run.report, indent=1) + "\n")
    print(f"1..{run.number}")
    print(f"# {run.number - run.failed} passed or skipped, {run.failed} failed; the report is {run.options.report}")
    return 1 if run.failed else 0


def checks_run(run):
    if not run.test("there is a card and a driver", lambda: card(run)) and not run.model:
        return
    run.test("every operation gives what plain sums give", lambda: parity(run))
    run.test("the tests for compute-sanitizer are there and pass without it", lambda: patterns(run))
    for tool in "memcheck", "racecheck", "initcheck", "synccheck":
        run.test(f"compute-sanitizer finds nothing: {tool}", lambda: sanitizer(run, tool))
    if not run.test("the sample model can be made", lambda: sample(run)):
        return
    for kind, compute, activations, tolerance in (
            ("bf16", "f32", "as-served", F32), ("bf16", "bf16", "as-served", BF16), ("fp8", "f32", "float", F32),
            ("fp8", "bf16", "float", BF16), ("fp8", "bf16", "as-served", STATIC), ("mxfp4", "f32", "float", F32),
            ("mxfp4", "bf16", "float", BF16)):
        run.test(f"perplexity as on the CPU: {kind}, compute {compute}, activations {activations}",
                 lambda: perplexity(run, kind, compute, activations, tolerance))
    run.test("perplexity is the golden one", lambda: golden(run))
    run.test("a baseline compares as on the CPU", lambda: baseline(run))
    run.test("streamed weights give the figures of resident ones", lambda: streamed(run))
    for kind in "bf16", "fp8", "mxfp4":
        run.test(f"generation as on the CPU: {kind}", lambda: generation(run, kind))
    wanted = "runs" if run.model else f"reaches {SHARE_WANTED:.0%} of the bandwidth"
    for kind in "fp8", "mxfp4":
        run.test(f"generation, {run.wide}, {wanted}: {kind}", lambda: wide_generation(run, kind))
    for kind, activations in ("fp8", "as-served"), ("fp8", "float"), ("mxfp4", "float"):
        run.test(f"perplexity, {run.wide}, is timed: {kind}, activations {activations}", lambda: wide_ppl(run, kind, activations))
    if run.options.checkpoint:
        run.test(f"generation of the checkpoint {wanted}",
                 lambda: judged_generation(run, "checkpoint", run.options.checkpoint))
        run.test("perplexity of the checkpoint", lambda: checkpoint_ppl(run))


if __name__ == "__main__":
    sys.exit(main())
