"""Gates on compiled kernels: what tests/cuda/kernels.json allows them, checked in every architecture's code. Prints TAP.

    gates.py [LIBRARY] [--arch sm_90,sm_120] [--table FILE] [--json FILE] [--access ARCH] [--list]

A kernel has no local memory and no spills, and keeps to the registers and the occupancy of its entry; a hot one loads 16
bytes at a time. For kernels that stream weights, two estimates are made from the loop that does it: the share of each
machine's bandwidth at which instructions can be issued for it, and the bytes on their way at a time against those that the
machine's latency asks for. Both are bounds from the code alone: no GPU has confirmed them.

--access gates coalescing and bank conflicts as well, in the accesses that cuxray can follow (about half of them; a minute
for an architecture).
"""
import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import sass

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build"

# Multiprocessors and bandwidth: the makers' data sheets. Clock: the one at which multiprocessors * 128 lanes * 2 give the
# sheet's FP32 rate (H100 SXM 67 TFLOP/s; RTX PRO 6000 Blackwell 125 TFLOP/s; GB10 31 TFLOP/s), less a tenth for what load
# does to it. Latency: of a load from memory under load, taken on the high side; not measured here.
MACHINES = {
    "H100": {"arch": "sm_90", "multiprocessors": 132, "clock": 1.98e9 * 0.9, "bandwidth": 3.35e12, "latency": 800e-9},
    "H200": {"arch": "sm_90", "multiprocessors": 132, "clock": 1.98e9 * 0.9, "bandwidth": 4.8e12, "latency": 800e-9,
             "reported": True},  # no gate
    "GB10": {"arch": "sm_121", "multiprocessors": 48, "clock": 2.5e9 * 0.9, "bandwidth": 273e9, "latency": 900e-9},
    "RTX PRO 6000": {"arch": "sm_120", "multiprocessors": 188, "clock": 2.6e9 * 0.9, "bandwidth": 1.792e12,
                     "latency": 900e-9},
}
ACCESS_FIGURES = ("worst_bank_conflict_ways", "uncoalesced_global_accesses", "analyzed_count", "unanalyzed_count")
SCHEDULERS = 4  # of a multiprocessor, each of which issues an instruction of a warp per cycle

# Cycles of a scheduler's pipe that an instruction takes. From the throughput table of the CUDA programming guide (results
# per cycle and multiprocessor): 64 for integer, logic, shifts and dp4a; 16 for conversions and transcendental functions;
# 128 for FP32. Different pipes work at a time, so the slowest bounds.
PIPES = {
    "integer": (2, r"LOP3|SHF|IADD3|IADD|PRMT|SEL|ISETP|FSETP|FMNMX|IMNMX|VIMNMX|LEA|VIADD|IABS|PLOP3|SGXT|BFE|BMSK|I2FP|F2FP"),
    "multiply-add": (2, r"IMAD|IDP|IDP4A"),
    "float32": (1, r"FFMA|FMUL|FADD|FFMA2|FADD2|FMUL2"),
    "half": (1, r"HFMA2|HADD2|HMUL2|HSET2|HFMA2\.MMA"),
    "conversion": (8, r"I2F|F2I|F2F|MUFU|POPC|FLO|BREV"),
}
SHARED_BYTES = 128  # that a multiprocessor's shared memory delivers per cycle


def loop_cycles(loop):
    """Cycles of a multiprocessor that one warp's pass through a loop takes at least, and what bounds it."""
    bounds = {"issue": len(loop) / SCHEDULERS}
    for name, (cycles, pattern) in PIPES.items():
        bounds[name] = sum(cycles for i in loop if re.fullmatch(pattern, i.base)) / SCHEDULERS
    bounds["shared memory"] = sum(i.bytes for i in loop if i.base in ("LDS", "STS")) * sass.WARP / SHARED_BYTES
    name = max(bounds, key=bounds.get)
    return bounds[name], name


def stream_estimates(kernel, entry, warps):
    """Of the loop that loads most of the weights: per machine the share of bandwidth that it can take in."""
    matches = re.compile(entry["weight_load"])
    loops = [(sum(i.bytes for i in loop if i.global_load() and matches.search(i.opcode)), loop) for loop in kernel.loops()]
    loops = [x for x in loops if x[0]]
    if not loops:
        return None
    count, loop = max(loops, key=lambda x: x[0])
    cycles, bound = loop_cycles(loop)
    in_flight = sass.bytes_in_flight(loop, lambda i: bool(matches.search(i.opcode))) * sass.WARP * warps
    estimates = {"instructions": len(loop), "weight_bytes": count, "bound": bound,
                 "instructions_per_weight": round(len(loop) / (count * 8 / entry["bits"]), 3), "machines": {}}
    for name, machine in MACHINES.items():
        if machine["arch"] != kernel.architecture:
            continue
        rate = count * sass.WARP / cycles * machine["clock"] * machine["multiprocessors"]
        needed = machine["bandwidth"] * machine["latency"] / machine["multiprocessors"]
        estimates["machines"][name] = {"issue_share": round(rate / machine["bandwidth"], 2),
                                       "in_flight_share": round(in_flight / needed, 2)}
    return estimates


def entry_for(table, kernel):
    for entry in table["kernels"]:
        if re.search(entry["pattern"], kernel.name):
            merged = {**table["defaults"], **entry}
            merged.update(entry.get("architectures", {}).get(kernel.architecture, {}))
            return entry["pattern"], merged
    return None, None


def check_access(access, entry):
    """What is wrong with a kernel's accesses."""
    wrong = []
    ways, apart = access["worst_bank_conflict_ways"], access["uncoalesced_global_accesses"]
    if ways > entry["max_bank_conflict"]:
        wrong.append(f"bank conflicts of {ways} ways, at most {entry['max_bank_conflict']}")
    if apart > entry["max_uncoalesced"]:
        wrong.append(f"{apart} accesses that are not coalesced, at most {entry['max_uncoalesced']}")
    return wrong


def check(kernel, entry):
    """(figures, what is wrong)"""
    wrong = []
    threads = entry.get("threads") or kernel.threads
    if not threads:
        return {"name": kernel.name}, ["has no __launch_bounds__ and no \"threads\""]
    warps, share = kernel.occupancy(threads, entry["shared"])
    figures = {"name": kernel.name, "registers": kernel.registers, "stack": kernel.stack, "threads": threads,
               "shared": kernel.shared + entry["shared"], "occupancy": round(share, 1), "wide_loads": kernel.wide_loads(),
               "local": kernel.local_memory(), "instructions": len(kernel.code)}
    if figures["local"] or kernel.stack:
        if not entry["local"]:
            wrong.append(f"local memory: {figures['local']} instructions, {kernel.stack} bytes of stack")
    if kernel.registers > entry["max_registers"]:
        wrong.append(f"{kernel.registers} registers, at most {entry['max_registers']}")
    if share < entry["min_occupancy"]:
        wrong.append(f"occupancy {share:.0f} %, at least {entry['min_occupancy']} %")
    if kernel.wide_loads() < entry["wide_loads"]:
        wrong.append(f"{kernel.wide_loads()} loads of 16 bytes, at least {entry['wide_loads']}")
    if entry.get("weight_load"):
        estimates = stream_estimates(kernel, entry, warps)
        if not estimates:
            wrong.append(f"no loop with loads {entry['weight_load']}")
        else:
            figures["stream"] = estimates
            for name, shares in estimates["machines"].items():
                if MACHINES[name].get("reported"):
                    continue
                if shares["issue_share"] < entry["min_issue_share"]:
                    wrong.append(f"{name}: instructions ({estimates['bound']}) bound it at {shares['issue_share']:.0%} "
                                 f"of the bandwidth, at least {entry['min_issue_share']:.0%}")
                if shares["in_flight_share"] < entry["min_in_flight_share"]:
                    wrong.append(f"{name}: {shares['in_flight_share']:.0%} of the bytes in flight that bandwidth x latency "
                                 f"asks for, at least {entry['min_in_flight_share']:.0%}")
    return figures, wrong


def access_report(library, architecture):
    """cuxray's view of coalescing and bank conflicts: {symbol: access}"""
    environment = {**os.environ, "CUXRAY_TOOLCHAIN": str(sass.TOOLS), "CUXRAY_NO_FETCH": "1"}
    out = {}
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        sass.run("cuobjdump", "-xelf", "all", Path(library).resolve(), cwd=folder)
        for cubin in sorted(Path(folder).glob(f"*.{architecture}.cubin")):
            done = subprocess.run([str(Path(sys.executable).parent / "cuxray"), "report", "--fast", "--json", str(cubin)],
                                  capture_output=True, text=True, env=environment)
            if done.returncode:
                print(f"# cuxray on {cubin.name}: {done.stderr.strip()[:200]}")
                continue
            for unit in json.loads(done.stdout)["units"]:
                for kernel in unit["kernels"]:
                    out[kernel["name"]] = kernel.get("access") or {}
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", nargs="?", default=BUILD / "libqstream_cuda.so")
    parser.add_argument("--table", default=HERE / "kernels.json")
    parser.add_argument("--arch", help="only these, divided by commas")
    parser.add_argument("--json", help="all figures into this file")
    parser.add_argument("--access", metavar="ARCH")
    parser.add_argument("--list", action="store_true", help="figures of every kernel as TAP comments")
    options = parser.parse_args()
    if not Path(options.library).exists():
        sys.exit(f"gates.py: {options.library} is not there: make cuda")
    table = json.loads(Path(options.table).read_text())
    wanted = options.arch.split(",") if options.arch else None
    kernels = sass.read_library(options.library, wanted)
    if not kernels:
        print("1..1\nnot ok 1 - the library has kernels")
        return 1
    access = access_report(options.library, options.access) if options.access else {}

    groups, unknown, figures_all = {}, [], []
    for kernel in kernels:
        pattern, entry = entry_for(table, kernel)
        if not entry:
            unknown.append(kernel)
            continue
        figures, wrong = check(kernel, entry)
        figures["architecture"] = kernel.architecture
        if options.access == kernel.architecture:
            if access.get(kernel.symbol):
                figures["access"] = {k: access[kernel.symbol][k] for k in ACCESS_FIGURES}
                wrong += check_access(figures["access"], entry)
            else:
                wrong.append("cuxray says nothing about its accesses")
        figures_all.append(figures)
        groups.setdefault((kernel.architecture, pattern), []).append((kernel, figures, wrong))

    architectures = sorted({k.architecture for k in kernels}, key=lambda a: int(re.sub(r"\D", "", a)))
    print(f"1..{len(architectures) * (len(table['kernels']) + 1)}")
    number = failed = 0

    def say(good, what, details=()):
        nonlocal number, failed
        number += 1
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {what}")
        for line in details:
            print(f"#   {line}")

    for architecture in architectures:
        strangers = sorted({k.name for k in unknown if k.architecture == architecture})
        say(not strangers, f"{architecture}: every kernel has an entry in kernels.json", strangers)
        for entry in table["kernels"]:
            found = groups.get((architecture, entry["pattern"]), [])
            bad = [f"{k.name}: {'; '.join(wrong)}" for k, _, wrong in found if wrong]
            if not found:
                if entry.get("optional"):
                    say(True, f"{architecture}: {entry['pattern']} # SKIP no such kernel")
                else:
                    say(False, f"{architecture}: {entry['pattern']}: no such kernel")
                continue
            registers = max(f.get("registers", 0) for _, f, _ in found)
            share = min(f.get("occupancy", 0) for _, f, _ in found)
            details = bad
            for _, f, _ in found:
                if "registers" in f and (options.list or f.get("stream")):
                    details = details + [describe(f)]
                if f.get("access"):
                    a = f["access"]
                    details = details + [f"{f['name']}: of {a['analyzed_count']} accesses that cuxray follows (of "
                                         f"{a['analyzed_count'] + a['unanalyzed_count']}) {a['uncoalesced_global_accesses']}"
                                         f" not coalesced, worst bank conflict {a['worst_bank_conflict_ways']}-way"]
            say(not bad, f"{architecture}: {entry['pattern']}: {len(found)} kernels, at most {registers} registers, "
                f"occupancy at least {share:.0f} %", details)
    if options.json:
        Path(options.json).write_text(json.dumps({"kernels": figures_all, "machines": MACHINES}, indent=1) + "\n")
    print(f"# {number - failed} passed, {failed} failed")
    return 1 if failed else 0


def describe(f):
    line = (f"{f['name']}: {f['registers']} registers, {f['threads']} threads, {f['shared']} B shared, occupancy "
            f"{f['occupancy']} %, {f['wide_loads']} wide loads")
    stream = f.get("stream")
    if stream:
        line += (f"; loop of {stream['instructions']} instructions for {stream['weight_bytes']} B a thread, "
                 f"{stream['instructions_per_weight']} per weight")
        for name, shares in stream["machines"].items():
            line += (f"; {name}: can take {shares['issue_share']:.0%} of bandwidth ({stream['bound']}), "
                     f"{shares['in_flight_share']:.0%} of the bytes in flight it takes")
    return line


if __name__ == "__main__":
    sys.exit(main())
