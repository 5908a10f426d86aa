"""The checks of tests/cuda/on_gpu.sh: parity, compute-sanitizer, perplexity, streaming, generation, speed. Prints TAP and
writes a report."""
import argparse
import json
import math
import os
import platform
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

# By which a window's mean NLL may differ: sums of BF16 products in another order; float32; static activations, whose
# rounding turns on the last bits of sums (of two orders of summing, windows differ by 0.015).
BF16, F32, STATIC = 3e-3, 2e-4, 0.03
SANITIZER_SUBSET = ["*operand*", "*matvec*", "*step_attention*", "*attention*", "*head*", "*finish*"]
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
        self.windows = ["--windows", "1", "--window", "64", "--stride", "32"] if self.model else [
            "--windows", str(options.windows)]
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

    def run(self, command, timeout=3600, **more):
        command = [str(c) for c in command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, **more)
        assert done.returncode == 0, "%s: exit code %d\n%s" % (" ".join(command), done.returncode,
                                                               (done.stderr or done.stdout)[-1500:])
        return done.stdout

    def ppl(self, model, *more, device="cuda"):
        text = WIKITEXT if WIKITEXT.exists() else docs_text()
        return json.loads(self.run([self.qstream, "ppl", model, "--text", text, *self.windows, "--device", device, "--quiet",
                                    "--json", *more]))

    def generate(self, model, *more, device="cuda", tokens=None):
        return json.loads(self.run([self.qstream, "generate", model, "--prompt", "The tower is 324 metres tall, about the same",
                                    "--max-tokens", tokens or (4 if self.model else 256), "--temperature", 0, "--ignore-eos",
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
    line = run.run([tool, f"--query-gpu={fields}", "--format=csv,noheader"], timeout=60).splitlines()
    run.report["card"] = [dict(zip(fields.split(","), (v.strip() for v in one.split(",")))) for one in line]
    print("# " + "; ".join(line))
    return run.report["card"]


def parity(run):
    for path in run.parity, run.plugin:
        assert path.exists(), f"{path.relative_to(ROOT)} is missing: make {path.relative_to(ROOT)}"
    done = subprocess.run([str(run.parity), str(run.plugin)], capture_output=True, text=True, timeout=3600, cwd=ROOT)
    text = done.stdout + done.stderr
    (WORK / "parity.txt").write_text(text)
    failed = [line for line in text.splitlines() if "FAILED" in line or line.startswith("not ok")]
    assert done.returncode == 0, "\n".join(failed[:30]) + "\n" + text[-1500:]
    return [line for line in text.splitlines() if "PASSED" in line][-1:] or text[-200:]


def sanitizer(run, tool):
    if run.model:
        raise Skip("emulated")
    program = shutil.which("compute-sanitizer") or next(
        (str(p) for p in (Path("/usr/local/cuda/bin/compute-sanitizer"),) if p.exists()), None)
    if not program:
        raise Skip("compute-sanitizer is not there; it comes with the CUDA toolkit")
    lines = []
    for pattern in SANITIZER_SUBSET:
        done = subprocess.run([program, "--tool", tool, "--error-exitcode", "9", str(run.parity), "--only", pattern,
                               str(run.plugin)], capture_output=True, text=True, timeout=1800, cwd=ROOT)
        summary = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR SUMMARY" in line]
        lines += [f"{pattern}: {s.strip('= ')}" for s in summary]
        assert done.returncode == 0, f"{tool}, {pattern}:\n" + (done.stdout + done.stderr)[-3000:]
    return "\n".join(lines)


def sample(run):
    if not (SAMPLE / "smollm2-fp8/tokenizer.json").exists():
        run.run([sys.executable, "tests/models/make_sample.py", "--out", SAMPLE])
    mxfp4 = WORK / "smollm2-mxfp4"
    if not (mxfp4 / "config.json").exists():
        shutil.rmtree(mxfp4, ignore_errors=True)
        run.run([run.qstream, "quantize", SAMPLE / "smollm2-fp8", mxfp4, "--recipe", RECIPE, "--quiet"])


def models(run):
    return {"bf16": SAMPLE / "smollm2-bf16", "fp8": SAMPLE / "smollm2-fp8", "mxfp4": WORK / "smollm2-mxfp4"}


def perplexity(run, kind, compute, activations, tolerance):
    settings = ["--compute", compute, "--activations", activations]
    on_card = run.ppl(models(run)[kind], *settings)
    on_cpu = run.ppl(models(run)[kind], *settings, device="cpu")
    worst = near(f"{kind}, {compute}", window_nll(on_card), window_nll(on_cpu), tolerance)
    return {"ppl": on_card["ppl"], "ppl_cpu": on_cpu["ppl"], "worst_window": worst,
            "tokens_per_second": on_card["tokens_per_second"], "tokens_per_second_cpu": on_cpu["tokens_per_second"]}


def golden(run):
    if run.model or not GOLDEN.exists() or not WIKITEXT.exists():
        raise Skip("no golden figures")
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
    """In the least memory that is accepted, the figures are those with all weights on the device."""
    resident = run.ppl(models(run)["bf16"])
    for size in "64M", "128M", "192M", "256M", "384M", "512M", "1G":
        try:
            little = run.ppl(models(run)["bf16"], "--device-memory", size)
        except AssertionError as error:
            refusal = str(error)
            continue
        assert window_nll(little) == window_nll(resident), f"{size}: {window_nll(little)}, resident {window_nll(resident)}"
        return {"device_memory": size, "tokens_per_second": little["tokens_per_second"],
                "tokens_per_second_resident": resident["tokens_per_second"]}
    raise AssertionError(refusal)


def generation(run, kind, path=None, judged=False):
    path = path or models(run)[kind]
    on_card = run.generate(path)
    out = {key: on_card.get(key) for key in ("tokens_per_second", "prompt_tokens_per_second", "weight_bytes_per_token",
                                             "weight_bytes_per_second", "memory_bytes_per_second", "bandwidth_share")}
    run.report["figures"][f"generation, {kind}"] = out
    again = run.generate(path)
    assert again["tokens"] == on_card["tokens"], "two runs gave different tokens"
    if not judged:
        on_cpu = run.generate(path, device="cpu", tokens=4 if run.model else 16)
        same = sum(1 for _ in __import__("itertools").takewhile(lambda p: p[0] == p[1], zip(on_card["tokens"], on_cpu["tokens"])))
        out["first_tokens_as_on_cpu"] = same
        assert same >= min(4, len(on_cpu["tokens"])), f"tokens {on_card['tokens'][:16]}, on the CPU {on_cpu['tokens'][:16]}"
    elif not run.model:
        assert out["bandwidth_share"] >= SHARE_WANTED, f"{out}: at least {SHARE_WANTED:.0%} of the bandwidth are wanted"
    return out


def checkpoint_ppl(run):
    windows, run.windows = run.windows, ["--windows", str(run.options.checkpoint_windows)]
    try:
        more = ["--baseline", run.options.baseline] if run.options.baseline else []
        result = run.ppl(run.options.checkpoint, *more)
    finally:
        run.windows = windows
    out = {key: result.get(key) for key in ("ppl", "nll", "kl", "seconds", "tokens_run", "tokens_per_second", "budget")}
    run.report["figures"]["ppl, checkpoint"] = out
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", action="store_true", help="against the emulated plug-in")
    parser.add_argument("--windows", type=int, default=2, help="windows of each perplexity (default 2)")
    parser.add_argument("--checkpoint", help="a large checkpoint to measure too")
    parser.add_argument("--baseline", help="its baseline")
    parser.add_argument("--checkpoint-windows", type=int, default=5)
    parser.add_argument("--report", default="cuda-report.json")
    run = Run(parser.parse_args())
    WORK.mkdir(parents=True, exist_ok=True)
    run.report["machine"] = {"system": platform.platform(), "processors": os.cpu_count()}
    run.report["qstream"] = subprocess.run([run.qstream, "--version"], capture_output=True, text=True).stdout.strip()
    run.report["commit"] = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True,
                                          cwd=ROOT).stdout.strip()

    print("# " + ("the emulated plug-in; times mean nothing" if run.model else "on the GPU"))
    there = run.test("there is a card and a driver", lambda: card(run)) or run.model
    if there:
        run.test("every operation gives what plain sums give", lambda: parity(run))
        for tool in "memcheck", "racecheck", "initcheck", "synccheck":
            run.test(f"compute-sanitizer finds nothing: {tool}", lambda: sanitizer(run, tool))
        run.test("the sample model can be made", lambda: sample(run))
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
            run.test(f"generation: {kind}", lambda: generation(run, kind))
        if run.options.checkpoint:
            run.test(f"generation of the checkpoint reaches {SHARE_WANTED:.0%} of the bandwidth",
                     lambda: generation(run, "checkpoint", run.options.checkpoint, judged=True))
            run.test("perplexity of the checkpoint", lambda: checkpoint_ppl(run))
    print(f"1..{run.number}")
    Path(run.options.report).write_text(json.dumps(run.report, indent=1) + "\n")
    print(f"# {run.number - run.failed} passed, {run.failed} failed; the report is {run.options.report}")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
