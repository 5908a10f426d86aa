#!/usr/bin/env python3
"""Proves cluster/quantize.slurm on a Slurm cluster of this machine, and cluster/quantize-job.yaml against Kubernetes' schema.

Prints TAP. QSTREAM names another binary.
"""

import filecmp
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import kubernetes_validate
import yaml

from slurm import CPUS, Cluster, descendants, lacking, wait_for

ROOT = Path(__file__).resolve().parents[2]
QSTREAM = Path(os.environ.get("QSTREAM", ROOT / "build/qstream")).resolve()
SCRIPT, JOBS = ROOT / "cluster/quantize.slurm", ROOT / "cluster/quantize-job.yaml"
PARTS, HELD_PART = 4, 1
RECIPE = "llama-mxfp4"
MODEL = {"arch": "llama", "layout": "fp8-tensor", "hidden": 256, "mlp": 512, "layers": 8, "shards": 8}
KUBERNETES = ("1.29", "1.37")  # the first with all that the file uses, and the last that the package knows
USAGE = 2
JOURNAL_HEADER = 112  # bytes; records come after it
# With the shim: a clock that runs a thousand times too fast, so that the journal is written every few milliseconds, and
# writes that take some.
SLOW = {"SHIM_HASTE": "1", "SHIM_SLOW": "3000"}

# What the jobs run as qstream. It lets one part, when it is first tried, meet with an accident, and counts what it does later.
STAND_IN = """\
#!/bin/sh
case " $* " in
*" --part {part}/{parts} "*)
    export SHIM_SOURCE="$2" SHIM_OUTPUT="$3" {slow}
    if [ -e "{place}/go.held" ]; then export SHIM_COUNT="{place}/count"; else export SHIM_HOLD={hold}:"{place}/go"; fi
    LD_PRELOAD="{shim}" exec "{qstream}" "$@" ;;
*) exec "{qstream}" "$@" ;;
esac
"""


def require(condition, message):
    if not condition:
        raise AssertionError(message)


def same_folders(one, other):
    compared = filecmp.dircmp(one, other, ignore=[])
    files = sorted(path.name for path in Path(one).iterdir())
    different = filecmp.cmpfiles(one, other, files, shallow=False)
    require(not compared.left_only and not compared.right_only, f"{compared.left_only} {compared.right_only} are in one only")
    require(different[0] == files, f"{different[1:]} differ")


class Work:
    """A model, what one machine makes of it, and the shim."""

    def __init__(self, folder):
        self.folder = folder
        self.source, self.reference, self.shim = folder / "source", folder / "reference", folder / "shim.so"
        options = [f"--{name.replace('_', '-')}={value}" for name, value in MODEL.items()]
        maker = [sys.executable, ROOT / "tests/models/make_checkpoint.py", "--out", self.source, *options]
        subprocess.run(maker, check=True, stdout=sys.stderr)
        compiler = [os.environ.get("CC", "gcc"), "-shared", "-fPIC", "-O1", "-o", self.shim, ROOT / "tests/cli/crash_shim.c"]
        subprocess.run([*compiler, "-ldl", "-pthread"], check=True)
        self.quantize(self.reference)
        self.operations, self.writes = self.count()

    def quantize(self, out, *options, **environment):
        command = [QSTREAM, "quantize", self.source, out, "--recipe", RECIPE, "--quiet", *options]
        return subprocess.run(command, env=os.environ | environment, check=True)

    def count(self):
        """How much the part that is to be held does when nothing holds it."""
        out, counted = self.folder / "counted", self.folder / "counted.txt"
        shim = {"LD_PRELOAD": str(self.shim), "SHIM_SOURCE": str(self.source), "SHIM_OUTPUT": str(out)}
        self.quantize(out, f"--part={HELD_PART}/{PARTS}", f"--jobs={CPUS}", SHIM_COUNT=str(counted), **shim, **SLOW)
        shutil.rmtree(out)
        return read_count(counted)


def read_count(path):
    counts = dict(line.split() for line in path.read_text().splitlines())
    return int(counts["operations"]), int(counts["pwrite"])


class Run:
    """A DST, and how its jobs are submitted."""

    def __init__(self, work, cluster, name):
        self.work, self.cluster = work, cluster
        self.place = work.folder / name
        self.place.mkdir()
        self.out = self.place / "out"
        self.journal = self.out / f".qstream/part-{HELD_PART:05}-of-{PARTS:05}"
        self.go = self.place / "go"
        self.stand_in = self.place / "qstream"
        self.stand_in.write_text(
            STAND_IN.format(part=HELD_PART, parts=PARTS, place=self.place, hold=work.operations // 2, shim=work.shim,
                            qstream=QSTREAM, slow=" ".join(f"{name}={value}" for name, value in SLOW.items()))
        )  # fmt: skip
        self.stand_in.chmod(0o755)

    def what(self):
        return [SCRIPT, PARTS, self.work.source, self.out, "--recipe", RECIPE]

    def submit(self, tasks=f"0-{PARTS - 1}", program=QSTREAM):
        """The two commands of the script's header: the jobs of the parts and of the finish."""
        environment = {"QSTREAM": program}
        parts = self.cluster.submit(f"--array={tasks}", f"--cpus-per-task={CPUS}", *self.what(), environment=environment)
        finish = self.cluster.submit(
            f"--dependency=afterany:{parts}", "--cpus-per-task=1", *self.what(), environment=environment
        )
        return parts, finish

    def wait_held(self):
        """Until the held part has begun, and stands still amid its work."""
        wait_for("a part amid its work", Path(f"{self.go}.held").exists)
        require(self.journal.stat().st_size > JOURNAL_HEADER, "the part has not recorded anything yet")

    def finished(self, parts, finish, tasks=range(PARTS)):
        for task in tasks:
            log = self.cluster.log(parts, task)
            require("complete" in log, f"task {task} says {log!r}")
        require(self.cluster.show(finish)["ExitCode"] == "0:0", f"the finish says {self.cluster.log(finish)!r}")
        same_folders(self.work.reference, self.out)


# ---- Slurm ----


def missing_part(work, cluster):
    """given a part that was not submitted, then the finish job is refused and says so, and the same commands again mend it"""
    run = Run(work, cluster, "missing")
    parts, finish = run.submit(tasks="0,2-3")
    cluster.wait_ended(parts, finish)
    require(cluster.show(finish)["ExitCode"] == f"{USAGE}:0", f"the finish ended with {cluster.show(finish)['ExitCode']}")
    require("2 of 8 shards are not complete" in cluster.log(finish), f"the finish says {cluster.log(finish)!r}")
    require(not (run.out / "config.json").exists(), "the folder looks finished")
    parts, finish = run.submit()
    cluster.wait_ended(parts, finish)
    run.finished(parts, finish)


def cancelled(work, cluster):
    """given scancel amid a part, then qstream ends in order, and the same commands again go on from there"""
    run = Run(work, cluster, "cancelled")
    parts, finish = run.submit(program=run.stand_in)
    run.wait_held()
    [process] = [pid for pid in descendants(os.getpid()) if is_held(pid)]
    cluster.ask("scancel", str(parts), str(finish))
    wait_for("SIGTERM to qstream", lambda: not catches(process, signal.SIGTERM))  # its handler is for the first one only
    recorded = run.journal.stat().st_size
    run.go.touch()
    cluster.wait_ended(parts, finish)
    log = cluster.log(parts, HELD_PART)
    require("interrupted" in log, f"the task says {log!r}")
    require(run.journal.stat().st_size > recorded, "what was done was not recorded")
    require(not (run.out / "config.json").exists(), "the folder looks finished")
    parts, finish = run.submit(program=run.stand_in)
    cluster.wait_ended(parts, finish)
    run.finished(parts, finish)
    went_on(work, run)


def node_dies(work, cluster):
    """given a node that dies amid a part, then Slurm starts it elsewhere, it goes on, and the folder is that of one machine"""
    run = Run(work, cluster, "died")
    parts, finish = run.submit(program=run.stand_in)
    run.wait_held()
    node = cluster.show(f"{parts}_{HELD_PART}")["NodeList"]
    cluster.kill_node(node)
    recorded = run.journal.read_bytes()
    require(cluster.show(finish)["Reason"] == "Dependency", "the finish does not wait for the part")
    require(not (run.out / "config.json").exists(), "the folder looks finished")
    wait_for("the part to be requeued", lambda: cluster.show(f"{parts}_{HELD_PART}")["Restarts"] == "1")
    require(run.journal.read_bytes()[: len(recorded)] == recorded, "the journal was begun anew")
    cluster.wait_ended(parts, finish)
    run.finished(parts, finish)
    nodes = re.findall(r"on (\w+), restarts: (\d)", cluster.log(parts, HELD_PART))
    require(len(nodes) == 2 and nodes[0] == (node, "0") and nodes[1][1] == "1", f"the part ran on {nodes}")
    require(nodes[1][0] != node, "the part ran on the dead node again")
    went_on(work, run)


def went_on(work, run):
    writes = read_count(run.place / "count")[1]
    require(0 < writes < work.writes, f"the second try wrote {writes} times, a whole part does {work.writes} times")


def is_held(pid):
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return Path(f"/proc/{pid}/exe").resolve() == QSTREAM and f"{HELD_PART}/{PARTS}" in command
    except OSError:
        return False  # it has just ended


def catches(pid, number):
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1]
    return int(caught, 16) >> (number - 1) & 1


# ---- the script without Slurm ----


def lost_lock(work, _):
    """given a lock that a lost node still holds, when its part is started anew, then it waits and goes on; at first it is refused"""
    run = Run(work, None, "locked")
    command = [str(argument) for argument in run.what()]
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(HELD_PART), "SLURM_CPUS_PER_TASK": str(CPUS)}
    held = environment | {"QSTREAM": str(run.stand_in)}
    lost = subprocess.Popen(command, env=held, stdout=sys.stderr, start_new_session=True)
    try:
        run.wait_held()
        environment["QSTREAM"] = str(QSTREAM)
        first = subprocess.run(command, env=environment, capture_output=True, text=True)
        require(first.returncode == USAGE and "another qstream" in first.stderr, f"{first}")
        # instead of a minute: the moment at which the lock is let go
        sleep = run.place / "bin/sleep"
        sleep.parent.mkdir()
        sleep.write_text(f'#!/bin/sh\necho "sleep $1" >>{run.place}/slept\nkill -9 -{lost.pid}\n')
        sleep.chmod(0o755)
        environment |= {"SLURM_RESTART_COUNT": "1", "PATH": f"{sleep.parent}:{os.environ['PATH']}"}
        again = subprocess.run(command, env=environment, capture_output=True, text=True)
        require(again.returncode == 0 and "complete" in again.stdout + again.stderr, f"{again}")
        require(again.stderr.count("another qstream") >= 1 and (run.place / "slept").exists(), "it did not wait")
    finally:
        try:
            os.killpg(lost.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        lost.wait()


def wrong_use(work, _):
    """given a mistake in the arguments, then the script ends with 2 at once, also as a finish"""
    for arguments in ([], ["4", "SRC"], ["4", work.source, work.folder / "none", "--recipe", RECIPE]):
        done = subprocess.run([SCRIPT, *arguments], env=os.environ | {"QSTREAM": str(QSTREAM)}, capture_output=True, text=True)
        require(done.returncode == USAGE and done.stderr, f"{arguments}: {done}")


# ---- Kubernetes ----


def manifests():
    return list(yaml.safe_load_all(JOBS.read_text()))


def kubernetes_schema(work, _):
    """the Kubernetes jobs are as its schema has them, and nothing is in them that it does not know"""
    for version in KUBERNETES:
        for manifest in manifests():
            kubernetes_validate.validate(manifest, version, strict=True)
        wrong = manifests()[0]
        wrong["spec"]["backoffLimitPerIndexes"] = 1
        try:
            kubernetes_validate.validate(wrong, version, strict=True)
        except kubernetes_validate.ValidationError:
            continue
        raise AssertionError("a wrong key is not found")


def kubernetes_commands(work, _):
    """the commands of the Kubernetes jobs, run for each index, make the folder of one machine"""
    parts, finish = manifests()
    count = parts["spec"]["completions"]
    models = work.folder / "models"
    models.mkdir()
    (models / "SRC").symlink_to(work.source)

    def run(manifest, **environment):
        [container] = manifest["spec"]["template"]["spec"]["containers"]
        environment |= {one["name"]: one["value"] for one in container.get("env", [])}
        [mount] = container["volumeMounts"]
        words = [*container["command"], *container["args"]]
        words = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], word) for word in words]
        words = [word.replace(mount["mountPath"], str(models)) for word in words]
        words = [re.sub("^--recipe=.*", f"--recipe={RECIPE}", word) for word in words]
        require(words[:2] == ["qstream", "quantize"], f"another program: {words}")
        return subprocess.run([QSTREAM, *words[1:]], capture_output=True, text=True)

    require(parts["spec"]["parallelism"] <= count, "more pods than parts")
    for index in reversed(range(count)):
        done = run(parts, JOB_COMPLETION_INDEX=str(index))
        require(done.returncode == 0 and f"part {index} of {count}" in done.stdout + done.stderr, f"{done}")
    done = run(finish)
    require(done.returncode == 0, f"{done}")
    reference = work.folder / "of-the-link"  # the source's name stands in the model card
    work.source, own = models / "SRC", work.source
    work.quantize(reference)
    work.source = own
    same_folders(reference, models / "DST")
    both = [job["spec"]["template"]["spec"] for job in (parts, finish)]
    for key in ("image", "volumeMounts"):
        require(both[0]["containers"][0][key] == both[1]["containers"][0][key], f"the jobs differ in {key}")
    require(both[0]["volumes"] == both[1]["volumes"], "the jobs differ in volumes")


WITHOUT_SLURM = (wrong_use, lost_lock, kubernetes_schema, kubernetes_commands)
ON_SLURM = (missing_part, cancelled, node_dies)  # the last takes a node away


def start(cluster):
    """Why it does not start, or None."""
    try:
        cluster.start()
    except (OSError, RuntimeError, TimeoutError) as error:
        traceback.print_exc()
        return "Slurm does not start here: " + " ".join(str(error).split())[-300:]
    return None


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    reason, failed = lacking(), 0
    # below /tmp whatever TMPDIR says: paths of sockets have to be short
    with tempfile.TemporaryDirectory(prefix="qscluster", dir="/tmp") as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        (folder / "slurm").mkdir()
        cluster = Cluster(folder / "slurm")
        try:
            work = Work(folder)
            reason = reason or start(cluster)
            for number, case in enumerate([*WITHOUT_SLURM, *ON_SLURM], 1):
                if reason and case in ON_SLURM:
                    print(f"ok {number} - {case.__doc__} # SKIP {reason}", flush=True)
                    continue
                try:
                    case(work, cluster)
                    print(f"ok {number} - {case.__doc__}", flush=True)
                except Exception:
                    failed += 1
                    print(f"not ok {number} - {case.__doc__}", *traceback.format_exc().splitlines(), sep="\n# ", flush=True)
            if failed:
                for log in sorted((folder / "slurm").glob("*.log")):
                    print(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        finally:
            cluster.close()
    print(f"1..{len(WITHOUT_SLURM) + len(ON_SLURM)}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
