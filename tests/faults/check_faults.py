#!/usr/bin/env python3
"""Every call that can fail does, one a run (fault_shim.c), in each command on the smallest models. Prints TAP.

    check_faults.py SHIM QSTREAM [--most N] [--some N] [--only WORD] [--kind KIND...] [--seed N] [--full]

A run that a fault ends says what failed, with exit code 4 and no signal; one that goes on all the same gives what it gives
without. What looks finished is: a report, and a folder with a config.json. Then the same command without a fault makes the
same bytes. With sanitizers a leak is a wrong exit code.

Of each kind of call these are chosen: of each way in which the program comes to such a call, as its callers show, the first
(at most --most, by chance), --some of each library's, the first and last ones, and --some by chance. --full: all of them.
"""

import argparse
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from errno import EACCES, EAGAIN, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
from make_checkpoint import Spec, make_checkpoint  # noqa: E402

ERRORS = {
    "open": [EMFILE, EACCES, ENFILE, EIO],
    "read": [EIO],
    "write": [ENOSPC, EIO, EDQUOT],
    "sync": [EIO, ENOSPC],
    "rename": [EIO, ENOSPC],
    "mmap": [ENOMEM],
    "malloc": [ENOMEM],
    "size": [ENOSPC, EIO],
    "make": [ENOSPC, EIO],
    "remove": [EIO, EACCES],
    "look": [EIO, EACCES],
    "thread": [EAGAIN],
    "short": [0],
}
ENDS = 2  # this many first and last calls of a kind
SECONDS = 60  # a run that takes longer hangs
IO_FAILURE = 4
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:verify_asan_link_order=0",  # the shim comes before its runtime
    "LSAN_OPTIONS": "exitcode=23",
}
RECIPE = str(HERE.parents[1] / "configs" / "llama-mxfp4.json")
SHAPE = dict(arch="llama", hidden=32, mlp=32, layers=1, heads=1, kv_heads=1, head_dim=32, vocab=32)
TOKENS = 4200


@dataclass
class Command:
    """A command line, run in a folder of its own beside the models."""

    name: str
    words: list[str]
    before: Path | None = None  # what `out` is before it
    files: list[str] = field(default_factory=list)  # reports that it writes
    kinds: tuple[str, ...] = tuple(ERRORS)
    multiplies: bool = False  # by oneDNN, which crashes sooner or later when memory stays out


@dataclass
class Run:
    code: int
    stdout: str
    stderr: str
    log: list[str]

    def failed(self) -> str | None:
        """The call that failed."""
        return next((line[7:] for line in self.log if line.startswith("failed ")), None)

    def libraries(self) -> list[str]:
        """Of the callers, the program among them, from the call outwards; libc and the shim left out."""
        paths = [line.removeprefix("at ").rsplit("+", 1)[0] for line in self.log if line.startswith("at ")]
        names = [Path(path).name for path in paths]
        return [name for name in names if name != "fault_shim.so" and not name.startswith("libc.so")]

    def ended_by_library(self) -> bool:
        """Whether a library was refused memory: that ends the process as a kill does."""
        return any(name.startswith(("libjansson", "libcrypto", "libdnnl")) for name in self.libraries())

    def excuse(self) -> str | None:
        """Why another end than exit code 4 is none of our doing."""
        caller = next(iter(self.libraries()), "")
        crashed = self.code == -signal.SIGSEGV or re.search(r"AddressSanitizer: SEGV \(\S*libdnnl", self.stderr)
        if crashed and caller.startswith(("libdnnl.so", "ld-linux")):
            return "oneDNN uses memory that it did not get"
        if self.code == 23 and caller.startswith("libclang_rt") and "qstream" not in self.libraries():
            return "the sanitizer itself has no memory for a thread"
        if self.code == 23 and "LeakSanitizer has encountered a fatal error" in self.stderr:
            return "LeakSanitizer could not look"
        if caller.startswith("libgomp.so") and self.code == 1 and "libgomp: Out of memory" in self.stderr:
            return "OpenMP's library ends the process by itself"
        if caller.startswith("ld-linux") and self.code == 127 and "memory" in self.stderr:
            return "the loader ends the process by itself"
        return None


@dataclass
class Fault:
    kind: str
    at: int
    later: bool = False

    def setting(self) -> str:
        errors = ERRORS[self.kind]
        return f"{self.kind}:{self.at}{'+' * self.later}:{errors[self.at % len(errors)]}"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def plain(text: str | bytes) -> str:
    """Without times."""
    text = text if isinstance(text, str) else text.decode()
    return re.sub(r'("(?:seconds|tokens_per_second)": ?|time=")[-+.e0-9]+', r"\1", text)


class Place:
    """Where runs are made, one at a time."""

    def __init__(self, folder: Path, program: str, shim: Path) -> None:
        self.folder, self.program, self.shim = folder, program, shim
        self.work, self.temporary, self.log = folder / "work", folder / "tmp", folder / "log"

    def prepare(self, command: Command) -> None:
        for path in (self.work, self.temporary):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        if command.before:
            shutil.copytree(command.before, self.work / "out", symlinks=True)

    def run(self, command: Command, fault: Fault | None = None, calls: bool = False) -> Run:
        environment = dict(os.environ, TMPDIR=str(self.temporary), LC_ALL="C", LD_PRELOAD=str(self.shim), **SANITIZERS)
        self.log.unlink(missing_ok=True)
        environment["FAULTS_LOG"] = str(self.log)
        if fault:
            environment["FAULTS_FAIL"] = fault.setting()
        if calls:
            environment["FAULTS_CALLS"] = "1"
        try:
            done = subprocess.run([self.program, *command.words], cwd=self.work, env=environment, capture_output=True,
                                  timeout=SECONDS, stdin=subprocess.DEVNULL)  # fmt: skip
        except subprocess.TimeoutExpired as hung:
            return Run(-1000, "", f"it hangs: {hung}", self.read_log())
        return Run(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), self.read_log())

    def read_log(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []


@dataclass
class Call:
    caller: str  # "program", or a library
    stack: str


@dataclass
class Reference:
    """What a command gives without a fault, and its calls by their kinds."""

    stdout: str
    files: dict[str, str]
    folder: dict[str, bytes]
    calls: dict[str, list[Call]]


def without_work(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the work folder, which may be left: it is inside, hidden, and the next run removes it."""
    return {name: content for name, content in files.items() if not name.startswith(".qstream/")}


def folder_of(place: Place) -> dict[str, bytes]:
    return files_of(place.work / "out")


def reports_of(place: Place, command: Command) -> dict[str, str]:
    return {name: plain((place.work / name).read_bytes()) for name in command.files if (place.work / name).exists()}


def refer(place: Place, command: Command) -> Reference:
    place.prepare(command)
    run = place.run(command, calls=True)
    if run.code != 0:
        raise SystemExit(f"Bail out! {command.name} without a fault: exit {run.code}: {run.stderr}")
    calls: dict[str, list[Call]] = {kind: [] for kind in ERRORS}
    for line in run.log:
        if line.startswith("call "):
            _, kind, caller, stack = line.split()
            calls[kind].append(Call(caller, stack))
    return Reference(plain(run.stdout), reports_of(place, command), folder_of(place), calls)


def difference(found: dict, expected: dict, what: str) -> Iterable[str]:
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            yield f"{what} lacks {name}"
        elif name not in expected:
            yield f"{what} has {name} left over"
        elif found[name] != expected[name]:
            yield f"{name} of {what} differs"


def names_something(message: str) -> bool:
    return bool(re.search(r"'[^']+'|memory|standard output|thread|oneDNN|library", message))


def problems(place: Place, command: Command, reference: Reference, fault: Fault, run: Run) -> Iterable[str]:
    """What is wrong with a run that met with a fault, and with the next one."""
    failed = run.failed()
    harmless = fault.kind == "short" or failed is None
    if run.excuse():
        pass
    elif run.code < 0 or run.code > 127:
        yield f"it ended by a signal, or hung ({run.code})"
    elif run.code not in (0, IO_FAILURE) or (harmless and run.code != 0):
        yield f"the exit code is {run.code}"
    if run.code == 0:
        if plain(run.stdout) != reference.stdout:
            yield "standard output is not what it should be"
        yield from difference(reports_of(place, command), reference.files, "a report")
        yield from difference(without_work(folder_of(place)), reference.folder, "the folder")
    elif run.code == IO_FAILURE:
        lines = [line for line in run.stderr.splitlines() if line.startswith("qstream: ")]
        if not any(map(names_something, lines)) and failed not in ("fputs descriptor 2", "vfprintf descriptor 2"):
            yield "no message that names a file or memory"
    if run.code != 0:
        if (place.work / "out" / "config.json").exists():
            yield from difference(without_work(folder_of(place)), reference.folder, "the folder that looks finished")
        for name, text in reports_of(place, command).items():
            if text != reference.files[name]:
                yield f"{name} is there, but not complete"
    expected = {"out", *command.files}
    left = [path.name for path in place.work.iterdir() if path.name not in expected] + os.listdir(place.temporary)
    excused = fault.kind == "remove" or run.ended_by_library() or run.excuse()
    if left and not excused and "folder_clean" not in resolved(place.program, run.log):  # which removes it
        yield f"{', '.join(left)} left behind"
    again = place.run(command)
    if again.code != 0:
        yield f"the next run: exit {again.code}: {again.stderr}"
        return
    if plain(again.stdout) != reference.stdout and '"complete"' not in again.stdout:
        yield "the next run's standard output differs"
    yield from difference(reports_of(place, command), reference.files, "a report of the next run")
    yield from difference(folder_of(place), reference.folder, "the next run's folder")


def choose(calls: list[Call], most: int | None, some: int, chance: random.Random) -> list[int]:
    """Numbers of calls, from 1: the first and last ones, of each way to one the first, and some others."""
    count = len(calls)
    numbers = range(1, count + 1)
    if most is None or count <= some:
        return list(numbers)
    ways: dict[str, dict[str, int]] = defaultdict(dict)
    for number, call in zip(numbers, calls, strict=True):
        ways[call.caller].setdefault(call.stack, number)
    chosen = {*numbers[:ENDS], *numbers[-ENDS:], *chance.sample(numbers, some)}
    for caller, firsts in ways.items():
        limit = most if caller == "program" else some
        chosen.update(chance.sample(list(firsts.values()), min(limit, len(firsts))))
    return sorted(chosen)


def resolved(program: str, log: list[str]) -> str:
    """The callers of the call that failed, with the program's functions by name."""
    frames = [line.removeprefix("at ").rsplit("+", 1) for line in log if line.startswith("at ") and "fault_shim" not in line]
    own = [offset for path, offset in frames if Path(path).name == Path(program).name]
    names = iter(subprocess.run(["addr2line", "-f", "-s", "-e", program, *own], capture_output=True, text=True).stdout.split("\n"))
    shown = []
    for path, offset in frames:
        if Path(path).name == Path(program).name:
            shown.append(f"{next(names, '?')} {next(names, '?')}")
        else:
            shown.append(f"{Path(path).name}+{offset}")
    return " < ".join(shown[:12])


class Check:
    def __init__(self, arguments: argparse.Namespace, root: Path) -> None:
        self.arguments, self.root = arguments, root
        self.program = str(Path(arguments.qstream).resolve())
        self.threads = len(os.sched_getaffinity(0))
        self.places: queue.Queue[Place] = queue.Queue()
        for number in range(self.threads):
            self.places.put(Place(root / f"place-{number}", self.program, Path(arguments.shim).resolve()))
        self.number = self.bad = self.total = 0
        self.excused: Counter[str] = Counter()

    def one(self, command: Command, reference: Reference, fault: Fault) -> tuple[Fault, Run, list[str]]:
        place = self.places.get()
        try:
            place.prepare(command)
            run = place.run(command, fault)
            return fault, run, list(problems(place, command, reference, fault, run))
        finally:
            self.places.put(place)

    def faults(self, command: Command, reference: Reference, faults: list[Fault], title: str) -> None:
        with ThreadPoolExecutor(self.threads) as pool:
            results = list(pool.map(lambda fault: self.one(command, reference, fault), faults))
        wrong = [result for result in results if result[2]]
        right = [run for _, run, what in results if not what]
        ended = sum(run.code == IO_FAILURE for run in right)
        unharmed = sum(run.code == 0 and run.failed() is not None for run in right)
        excused = sum(run.code not in (0, IO_FAILURE) for run in right)
        missed = sum(run.failed() is None for _, run, _ in results)  # other calls than in the reference: some, where threads race
        self.number += 1
        self.total += len(faults) - missed
        self.excused.update(run.excuse() for run in right if run.excuse())
        is_wrong = bool(wrong) or missed * 4 > len(faults)
        self.bad += is_wrong
        outcomes = {"told with exit code 4": ended, "without effect": unharmed, "excused": excused,
                    "wrong": len(wrong), "that never came": missed}  # fmt: skip
        shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items() if count)
        print(f"{'not ok' if is_wrong else 'ok'} {self.number} - {title}: {shown}", flush=True)
        for fault, run, what in wrong:
            print(f"# {fault.setting()}, {run.failed()}: {'; '.join(what)}\n#   {run.stderr.strip()[-400:]!r}\n"
                  f"#   {resolved(self.program, run.log)}", flush=True)  # fmt: skip

    def command(self, command: Command) -> None:
        place = self.places.get()
        reference = refer(place, command)
        self.places.put(place)
        chance = random.Random(f"{self.arguments.seed} {command.name}")
        for kind, calls in reference.calls.items():
            if not calls or kind not in command.kinds or (self.arguments.kind and kind not in self.arguments.kind):
                continue
            most = None if self.arguments.full else self.arguments.most
            chosen = choose(calls, most, self.arguments.some, chance)
            self.faults(command, reference, [Fault(kind, at) for at in chosen],
                        f"{command.name}, {kind}: {len(chosen)} of {len(calls)} calls failed")  # fmt: skip
        calls = reference.calls["malloc"] if "malloc" in command.kinds and not command.multiplies else []
        chosen = choose(calls, self.arguments.some, self.arguments.some, chance)
        if calls:
            self.faults(command, reference, [Fault("malloc", at, later=True) for at in chosen],
                        f"{command.name}, malloc: {len(chosen)} times one of {len(calls)} and all later ones failed")  # fmt: skip


def commands(root: Path) -> list[Command]:
    quantize = ["quantize", "--recipe", RECIPE, "--jobs", "1", "--json"]
    return [
        Command("quantize", [*quantize, "../../fp8", "out"]),
        Command("quantize --jobs 2", [*quantize, "../../fp8", "out", "--jobs", "2"], kinds=("read", "write", "sync", "thread")),
        Command("quantize, begun before", [*quantize, "../../fp8", "out"], before=root / "begun"),
        Command("quantize --finish", [*quantize, "../../fp8", "out", "--finish"], before=root / "parts"),
        Command("quantize --calibrate-ids", [*quantize, "../../bf16", "out", "--calibrate-ids", "../../ids.json"],
                multiplies=True),  # fmt: skip
        Command("verify", ["verify", "../../fp8", "../../mxfp4", "--hash", "--jobs", "1", "--json", "--html", "page.html"],
                files=["page.html"]),  # fmt: skip
        Command("inspect", ["inspect", "../../fp8", "--stats", "--jobs", "1", "--json", "--html", "page.html", "--quiet"],
                files=["page.html"]),  # fmt: skip
        Command("audit", ["audit", "../../mxfp4", "--jobs", "1", "--html", "page.html", "--sarif", "audit.sarif", "--fail-on",
                          "error", "--quiet"], files=["page.html", "audit.sarif"]),  # fmt: skip
        Command("ppl", ["ppl", "../../mxfp4", "--baseline", "../../fp8", "--tokens", "../../ids.json", "--window", "64", "--stride",
                        "32", "--windows", "2", "--jobs", "1", "--compute", "f32", "--json", "--html", "page.html"],
                files=["page.html"], multiplies=True),  # fmt: skip
    ]


def make_models(root: Path, program: str, shim: Path) -> None:
    make_checkpoint(root / "fp8", Spec(layout="fp8-tensor", shards=2, split_scales=True, **SHAPE))
    make_checkpoint(root / "bf16", Spec(layout="bf16", **SHAPE))
    for folder in ("fp8", "bf16"):
        (root / folder / "tokenizer_config.json").write_text("{}\n")
    chance = random.Random(0)
    (root / "ids.json").write_text(json.dumps([chance.randrange(SHAPE["vocab"]) for _ in range(TOKENS)]))
    quantize = [program, "quantize", root / "fp8"]
    options = ["--recipe", RECIPE, "--quiet", "--jobs", "1"]
    subprocess.run([*quantize, root / "mxfp4", *options], check=True)
    for part in ("0/2", "1/2"):
        subprocess.run([*quantize, root / "parts", *options, "--part", part], check=True)
    begun = dict(os.environ, **SANITIZERS, LD_PRELOAD=str(shim), FAULTS_FAIL=f"rename:1:{EIO}")  # all is made, nothing has its name
    subprocess.run([*quantize, root / "begun", *options], env=begun, stderr=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shim")
    parser.add_argument("qstream")
    parser.add_argument("--most", type=int, default=40, help="ways to calls of a kind (default 40)")
    parser.add_argument("--some", type=int, default=5, help="calls by chance, and of each library (default 5)")
    parser.add_argument("--only", help="commands with this word in their names")
    parser.add_argument("--kind", nargs="+", choices=ERRORS, help="only these kinds of calls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qstream-faults-") as folder:
        root = Path(folder)
        check = Check(arguments, root)
        make_models(root, check.program, Path(arguments.shim).resolve())
        for command in commands(root):
            if not arguments.only or arguments.only in command.name:
                check.command(command)
        for excuse, count in check.excused.items():
            print(f"# {count} excused: {excuse}")
        print(f"# {check.total} faults, seed {arguments.seed}\n1..{check.number}")
        return check.bad > 0


if __name__ == "__main__":
    sys.exit(main())
