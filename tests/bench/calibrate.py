#!/usr/bin/env python3
"""Speed of the parts of calibrated rounding (calibrate.c), as a share of what oneDNN reaches alone in the same round.

  tests/bench/calibrate.py [--repeat N] [--columns N,N] [--json]

Columns: 12,288 and 28,672 are the inputs of the reference model's layers; 28,672 take 2 GB and a minute a round on two cores.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BUILD", ROOT / "build"))
HERE = ROOT / "tests/bench"
BENCH = BUILD / "bench"
PARTS = {"add": "tokens added to the Gram matrix", "factor": "Cholesky", "round": "rows rounded"}


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("bench: %s failed:\n%s" % (" ".join(map(str, command)), done.stderr.decode(errors="replace")[-2000:]))
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--columns", default="1536,4096,12288")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if os.uname().machine != "x86_64":
        sys.exit("bench: products are OpenBLAS's here: there is no oneDNN to compare with")
    BENCH.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "gcc").split()
    run(*compiler, "-O2", "-std=c17", "-D_GNU_SOURCE", "-I", ROOT, "-o", BENCH / "calibrate", HERE / "calibrate.c",
        BUILD / "libqstream.a", "-ljansson", "-lcrypto", "-lpcre2-8", "-lz", "-lm", "-ldl", "-pthread")
    run(*compiler, "-O2", "-std=c17", "-D_GNU_SOURCE", "-fopenmp", "-o", BENCH / "products", HERE / "products.c", "-ldnnl")
    threads = len(os.sched_getaffinity(0))
    columns = [int(number) for number in arguments.columns.split(",")]
    rates = {(number, part): [] for number in columns for part in PARTS}
    peers = []
    for _ in range(arguments.repeat):
        shapes = json.loads(run(BENCH / "products", "f32", threads, 4096, 8192, 1, 1, 128, 4096, 1, 2048, 512, 1))["shapes"]
        peer = next(shape["gflops"] for shape in shapes if shape["name"] == "gate, up")
        peers.append(peer)
        for number in columns:
            told = json.loads(run(BENCH / "calibrate", "f32", threads, number, 2048, 128 * threads * 2))
            for part in PARTS:
                rates[number, part].append((told[part]["gflops"], told[part]["gflops"] / peer))
    rows = [{"columns": number, "part": part, "gflops": statistics.median(rate for rate, _ in found),
             "share": statistics.median(share for _, share in found), "least": min(share for _, share in found),
             "most": max(share for _, share in found)} for (number, part), found in rates.items()]
    if arguments.json:
        print(json.dumps({"threads": threads, "onednn_gflops": statistics.median(peers), "rows": rows}))
        return
    print(f"oneDNN, 2048 x 8192 x 4096, float32, {threads} threads: {statistics.median(peers):.0f} GFLOP/s")
    print(f"{'columns':>8}  {'part':32} {'GFLOP/s':>8}  share of oneDNN")
    for row in rows:
        print(f"{row['columns']:8}  {PARTS[row['part']]:32} {row['gflops']:8.0f}  {row['share']:4.0%} ({row['least']:.0%} to {row['most']:.0%})")


main()
