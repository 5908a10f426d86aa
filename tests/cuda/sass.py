"""Compiled kernels as nvdisasm and cuobjdump show them: resources, instructions, loops. Nothing here needs a GPU."""
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cuxray import archspec, occupancy

TOOLS = Path(next(p for p in sys.path if p.endswith("site-packages"))) / "nvidia/cu13/bin"

INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;")
LABEL = re.compile(r"^(\.L_\w+):")
TARGET = re.compile(r"`\((\.L_\w+)\)")
REGISTER = re.compile(r"(?<![A-Z])R(\d+)")
WARP = 32


@dataclass
class Instruction:
    address: int
    opcode: str
    operands: str

    @property
    def base(self):
        return self.opcode.split(".")[0]

    @property
    def bytes(self):
        """Bytes that one thread loads or stores."""
        for bits in (256, 128, 64, 16, 8):
            if re.search(rf"\.[US]?{bits}(\.|$)", self.opcode):
                return bits // 8
        return 4

    def global_load(self):
        return self.base in ("LDG", "LDGSTS", "LD")

    def wide_load(self):
        return self.global_load() and self.bytes >= 16


@dataclass
class Kernel:
    architecture: str
    symbol: str
    name: str = ""  # demangled, without parameters
    registers: int = 0
    stack: int = 0
    shared: int = 0
    threads: int = 0  # of __launch_bounds__; 0: none
    code: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)

    def local_memory(self):
        return sum(i.base in ("LDL", "STL") for i in self.code)

    def wide_loads(self):
        return sum(i.wide_load() for i in self.code)

    def loops(self):
        """The innermost loops, each a list of instructions."""
        spans = []
        for i in self.code:
            target = TARGET.search(i.operands)
            if i.base == "BRA" and target and target.group(1) in self.labels:
                start = self.labels[target.group(1)]
                if start < i.address:
                    spans.append((start, i.address))
        inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
        return [[i for i in self.code if start <= i.address <= end] for start, end in sorted(set(inner))]

    def occupancy(self, threads, dynamic_shared):
        """Warps in flight per multiprocessor, and the share of the most there could be, in per cent."""
        spec = archspec.lookup(self.architecture)
        result = occupancy.compute(spec, self.registers, threads, self.shared, dynamic_shared)
        return result.active_warps, result.occupancy_pct


def bytes_in_flight(loop, counts=Instruction.global_load):
    """The most bytes that a thread has asked for and not waited for, in a loop that goes round."""
    outstanding, most = [], 0
    for i in loop * 2:
        used = {int(r) for r in REGISTER.findall(i.operands.split(",", 1)[1] if i.base == "LDG" and "," in i.operands
                                                 else i.operands)}
        outstanding = [(first, count) for first, count in outstanding
                       if not used & set(range(first, first + max(1, count // 4)))]
        if i.base == "LDG" and counts(i):
            first = REGISTER.search(i.operands)
            if first:
                outstanding.append((int(first.group(1)), i.bytes))
        most = max(most, sum(count for _, count in outstanding))
    return most


def run(tool, *arguments, cwd=None):
    done = subprocess.run([str(TOOLS / tool), *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr.strip() or 'exit code %d' % done.returncode}")
    return done.stdout


def demangle(symbols):
    """Names without parameters, return types and anonymous namespaces."""
    symbols = list(symbols)
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    names = {}
    for symbol, full in zip(symbols, done.stdout.splitlines()):
        full = full.replace("(anonymous namespace)::", "")
        full = re.sub(r"\((?:\w+)\)(-?\d)", r"\1", full)  # (weight_format)5 -> 5
        names[symbol] = re.sub(r"^void ", "", full.split("(")[0]).replace(" >", ">")
    return names


def read_cubin(path, architecture):
    kernels = {}
    elf = run("cuobjdump", "-elf", path)
    usage = run("cuobjdump", "-res-usage", path)
    for symbol, registers, stack, shared in re.findall(
            r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage):
        kernels[symbol] = Kernel(architecture, symbol, registers=int(registers), stack=int(stack), shared=int(shared))
    for symbol, body in re.findall(r"^\.nv\.info\.(\S+)\n(.*?)(?=^\.\S)", elf, re.S | re.M):
        threads = re.search(r"EIATTR_MAX_THREADS.*?Value:\s*((?:0x)?[0-9a-f]+)", body, re.S)
        if threads and symbol in kernels:
            kernels[symbol].threads = int(threads.group(1), 16)
    # the system's own kilobyte of each block is not the kernel's
    for kernel in kernels.values():
        if int(architecture[3:].rstrip("af")) >= 90:
            kernel.shared = max(0, kernel.shared - 1024)

    current, waiting = None, []
    for line in run("nvdisasm", "-c", path).splitlines():
        if line.startswith(".text."):
            current = kernels.get(line[len(".text."):].rstrip(":"))
            waiting = []
            continue
        if current is None:
            continue
        label = LABEL.match(line)
        if label:
            waiting.append(label.group(1))
            continue
        found = INSTRUCTION.match(line)
        if found:
            i = Instruction(int(found.group(1), 16), found.group(2), found.group(3))
            current.code.append(i)
            for name in waiting:
                current.labels[name] = i.address
            waiting = []
    names = demangle(kernels)
    for kernel in kernels.values():
        kernel.name = names[kernel.symbol]
    return list(kernels.values())


def read_library(path, architectures=None):
    """All kernels of a shared library, object file or cubin."""
    path = Path(path).resolve()
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == ".cubin":
            cubins = [path]
        else:
            run("cuobjdump", "-xelf", "all", path, cwd=folder)
            cubins = sorted(Path(folder).glob("*.cubin"))
        kernels = []
        for cubin in cubins:
            found = re.search(r"\.(sm_\w+)\.cubin$", cubin.name)
            architecture = found.group(1) if found else "sm_90"
            if not architectures or architecture in architectures:
                kernels += read_cubin(cubin, architecture)
    return kernels
