#!/usr/bin/env python3
"""Speed of 'qstream ppl' and 'qstream generate' on the sample model, beside this machine's limits and their peers.

  tests/bench/infer.py [--repeat N] [--windows N] [--generate N] [--json]

Rounds take turns: in each, everything runs once. The limits:
  products   what oneDNN alone takes for all matrix products of the run (products.c), in the same round
  read       how fast all threads, or the CUDA device, read memory and do nothing else ('qstream generate' measures it)
Rows of --device cuda are there where a device answers.
Peers run when they are there: transformers with torch in build/readers-transformers (make test-clients makes it), and
llama-cpp-python in the environment that QSTREAM_LLAMA_CPP names (a Python), on the same BF16 weights as a GGUF.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BUILD", ROOT / "build"))
HERE = ROOT / "tests/bench"
BENCH = BUILD / "bench"
QSTREAM = BUILD / "qstream"
BF16, FP8 = BUILD / "models/smollm2-bf16", BUILD / "models/smollm2-fp8"
WIKITEXT = ROOT.parent / "shared/data/wikitext-2-raw/wiki.test.raw"
WINDOW, STRIDE = 2048, 512


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def run(command, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        sys.exit("bench: %s failed:\n%s" % (" ".join(map(str, command)), done.stderr.decode(errors="replace")[-2000:]))
    return done.stdout


def has(python, module):
    return python and shutil.which(str(python)) and subprocess.run(
        [str(python), "-c", "import " + module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def has_device():
    """Whether --device cuda can be used; exit code 4 says that it cannot."""
    done = subprocess.run([str(QSTREAM), "generate", str(BF16), "--prompt", "x", "--dry-run", "--device", "cuda"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode == 0:
        return True
    say("no rows of --device cuda: " + done.stderr.decode(errors="replace").strip())
    return False


def prepare(count):
    """The tokens, the MXFP4 model, the program that measures the limit."""
    BENCH.mkdir(parents=True, exist_ok=True)
    if not BF16.exists():
        run([ROOT / "tests/models/venv.sh"])
        run([BUILD / "venv/bin/python", ROOT / "tests/models/make_sample.py", "--out", BUILD / "models"])
    text = WIKITEXT.read_bytes() if WIKITEXT.exists() else b"\n".join(p.read_bytes() for p in sorted(ROOT.glob("docs/*.md")))
    ids = json.loads(run([QSTREAM, "tokenize", BF16, "--text", "-"], input=text))
    while len(ids) < count:
        ids += ids
    tokens = BENCH / "tokens.json"
    tokens.write_text(json.dumps(ids[:count]))
    mxfp4 = BENCH / "smollm2-mxfp4"
    if not mxfp4.exists():
        run([QSTREAM, "quantize", FP8, mxfp4, "--recipe", "mistral-medium-3.5-mxfp4", "--quiet"])
    products = None
    if os.uname().machine == "x86_64":
        products = BENCH / "products"
        run([os.environ.get("CC", "gcc"), "-O2", "-std=c17", "-D_GNU_SOURCE", "-fopenmp", "-o", products, HERE / "products.c",
             "-ldnnl"])
    return tokens, mxfp4, products


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    tokens, mxfp4, products = prepare(WINDOW + STRIDE * (options.windows - 1))
    config = json.loads((BF16 / "config.json").read_text())
    shape = [config["hidden_size"], config["intermediate_size"], config["num_attention_heads"],
             config["num_key_value_heads"], config["hidden_size"] // config["num_attention_heads"], config["vocab_size"],
             config["num_hidden_layers"], WINDOW, STRIDE, options.windows]
    computes = ["bf16", "f32"] if b"avx512_bf16" in Path("/proc/cpuinfo").read_bytes() else ["f32"]
    protocol = [WINDOW, STRIDE, options.windows, options.generate]
    peers = {}
    torch = BUILD / "readers-transformers/bin/python"
    if has(torch, "torch, transformers"):
        for kind in ("transformers-bf16", "transformers-f32"):
            peers[kind] = [torch, HERE / "peer.py", kind, BF16, tokens, threads] + protocol
    llama = os.environ.get("QSTREAM_LLAMA_CPP")
    if has(llama, "llama_cpp"):
        gguf = BENCH / "smollm2-bf16.gguf"
        if not gguf.exists():
            run([BUILD / "venv/bin/python", HERE / "make_gguf.py", BF16, gguf])
        peers["llama.cpp"] = [llama, HERE / "peer.py", "llama.cpp", gguf, tokens, threads] + protocol

    devices = ["cpu", "cuda"] if has_device() else ["cpu"]
    ppl, generated = {}, {}
    for turn in range(options.repeat):
        say("round %d of %d" % (turn + 1, options.repeat))
        for compute in computes:
            limit = None
            if products:
                limit = json.loads(run([products, compute, threads] + shape))["tokens_per_second"]
            result = json.loads(run([QSTREAM, "ppl", BF16, "--tokens", tokens, "--window", WINDOW, "--stride", STRIDE,
                                     "--compute", compute, "--json", "--quiet"]))
            ppl.setdefault("qstream " + compute, []).append((result["tokens_per_second"], limit, result["nll"]))
        for compute in ["bf16", "f32"] if "cuda" in devices else []:
            result = json.loads(run([QSTREAM, "ppl", BF16, "--tokens", tokens, "--window", WINDOW, "--stride", STRIDE,
                                     "--compute", compute, "--device", "cuda", "--json", "--quiet"]))
            ppl.setdefault("qstream cuda " + compute, []).append((result["tokens_per_second"], None, result["nll"]))
        for device in devices:
            for name, model in (("bf16", BF16), ("mxfp4", mxfp4)):
                result = json.loads(run([QSTREAM, "generate", model, "--prompt", "The history of the city", "--max-tokens",
                                         options.generate, "--ignore-eos", "--device", device, "--json", "--quiet"]))
                name = "qstream " + ("cuda " if device == "cuda" else "") + name
                generated.setdefault(name, []).append((result["tokens_per_second"], result["bandwidth_share"]))
        for kind, command in peers.items():
            result = json.loads(run(command))
            ppl.setdefault(kind, []).append((result["tokens_per_second"], None, result["nll"]))
            generated.setdefault(kind, []).append((result["generated_per_second"], None))

    middle = statistics.median
    report = {"schema": "qstream.bench-infer/1", "threads": threads, "repeats": options.repeat,
              "windows": options.windows, "ppl": {}, "generate": {}}
    for name, rows in ppl.items():
        report["ppl"][name] = {"tokens_per_second": middle(row[0] for row in rows), "nll": rows[0][2]}
        if rows[0][1]:
            report["ppl"][name]["products_tokens_per_second"] = middle(row[1] for row in rows)
            report["ppl"][name]["share"] = middle(row[0] / row[1] for row in rows)
    for name, rows in generated.items():
        report["generate"][name] = {"tokens_per_second": middle(row[0] for row in rows)}
        if rows[0][1]:
            report["generate"][name]["share"] = middle(row[1] for row in rows)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print("perplexity, SmolLM2-135M BF16, %d windows of %d, %d threads; medians of %d rounds" %
          (options.windows, WINDOW, threads, options.repeat))
    print("%-20s %10s %18s %8s %9s" % ("", "tokens/s", "products alone", "share", "NLL"))
    for name, row in report["ppl"].items():
        limit = row.get("products_tokens_per_second")
        print("%-20s %10.0f %18s %8s %9.4f" % (name, row["tokens_per_second"], "%.0f" % limit if limit else "",
                                               "%.0f %%" % (100 * row["share"]) if limit else "", row["nll"]))
    print("\ngeneration, %d tokens, greedy" % options.generate)
    print("%-20s %10s %18s" % ("", "tokens/s", "share of reading"))
    for name, row in report["generate"].items():
        share = "%.0f %%" % (100 * row["share"]) if "share" in row else ""
        print("%-20s %10.1f %18s" % (name, row["tokens_per_second"], share))


main()
