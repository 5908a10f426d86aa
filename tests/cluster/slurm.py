"""A Slurm cluster on this machine: slurmctld, munged and a slurmd for each node, all below one folder and on loopback.

Every process of it, jobs included, is a descendant of ours, and is gone after close().
"""

import ctypes
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("n0", "n1", "n2")
CPUS = 2
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Its least value; a job that was requeued waits for as long.
CREDENTIAL_SECONDS = 5

CONFIGURATION = """\
ClusterName=qstream
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential_seconds}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
# A node that says nothing for so long is down, and what ran there is requeued.
SlurmdTimeout=10
KillWait=20
"""


def lacking():
    """Why there can be no cluster here, or None."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    return f"{', '.join(missing)} not installed (./setup test)" if missing else None


def adopt_orphans():
    """Processes whose parents end become children of ours, not of init."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def before_exec():
    adopt_orphans()  # a daemon's own become its
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(pid):
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def kill_below(pid):
    while left := descendants(pid):
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def wait_for(what, condition, seconds=120):
    """What the condition gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{seconds} s without {what}")
        time.sleep(0.05)
    return result


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    def __init__(self, folder):
        """folder: empty, with a short path (sockets lie in it)."""
        adopt_orphans()
        self.folder = Path(folder)
        self.environment = {name: value for name, value in os.environ.items() if not re.match("SLURM|SBATCH", name)}
        self.environment |= {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self.daemons = {}

    def start(self):
        for name in ("state", *NODES):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munge = {"key-file": key, "pid-file": self.folder / "munge.pid", "log-file": self.folder / "munge.log",
                 "socket": self.folder / "munge.socket", "seed-file": self.folder / "munge.seed"}  # fmt: skip
        self.daemon("munged", "--foreground", *(f"--{option}={path}" for option, path in munge.items()))
        wait_for("munged's socket", munge["socket"].exists, 20)

        host = socket.gethostname().partition(".")[0]
        ports = free_ports(1 + len(NODES))
        lines = CONFIGURATION.format(host=host, ports=ports, folder=self.folder, credential_seconds=CREDENTIAL_SECONDS,
                                     user=pwd.getpwuid(os.geteuid()).pw_name)  # fmt: skip
        for node, port in zip(NODES, ports[1:]):
            lines += f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs={CPUS} RealMemory=4000\n"
        lines += f"PartitionName=all Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(lines)
        self.daemon("slurmctld", "-D", "-c")
        for node in NODES:
            self.daemon("slurmd", "-D", "-N", node, name=node)
        wait_for("idle nodes", self.all_idle, 60)

    def daemon(self, program, *options, name=None):
        with open(self.folder / f"{name or program}.out", "wb") as out:
            command = [shutil.which(program, path=PATH), *options]
            self.daemons[name or program] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment, preexec_fn=before_exec
            )

    def all_idle(self):
        for name, daemon in self.daemons.items():
            if daemon.poll() is not None:
                raise RuntimeError(f"{name} ended: {(self.folder / f'{name}.out').read_text()[-2000:]}")
        asked = self.ask("scontrol", "--oneliner", "show", "node", check=False)
        return len(re.findall(r"\bState=IDLE ", asked)) == len(NODES)

    def ask(self, *command, check=True):
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=60)
        if check and done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def submit(self, *arguments, environment):
        """sbatch; the number of the job."""
        added = ",".join(f"{name}={value}" for name, value in environment.items())
        options = [f"--export=ALL,{added}", f"--chdir={self.folder}", f"--output={self.folder}/job-%A_%a.log"]
        return int(self.ask("sbatch", "--parsable", *options, *map(str, arguments)))

    def log(self, job, task=4294967294):
        path = self.folder / f"job-{job}_{task}.log"
        return path.read_text() if path.exists() else ""

    def show(self, job):
        """What scontrol says about a job, or about a task ('5_2')."""
        return dict(pair.partition("=")[::2] for pair in self.ask("scontrol", "--oneliner", "show", "job", str(job)).split())

    def wait_ended(self, *jobs):
        """Until none of them is in the queue."""
        wanted = ",".join(map(str, jobs))
        wait_for(f"the end of jobs {wanted}", lambda: not self.ask("squeue", "--noheader", f"--jobs={wanted}", check=False))

    def kill_node(self, node):
        """What a power cut does: the node's daemon and all that runs there are gone at once."""
        daemon = self.daemons[node]
        daemon.send_signal(signal.SIGSTOP)  # starts nothing more
        kill_below(daemon.pid)
        daemon.kill()
        daemon.wait()

    def close(self):
        kill_below(os.getpid())
        while True:  # those that were adopted
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
