"""Runs the stand-in Hub for a test, and what is to be run against it.

    with StandIn(model("org/tiny", folder), tls=True) as hub:
        hub.fault(do="drop", where="cdn", after=[1000, 90000], seed=7, times=3)
        done = hub.run([QSTREAM, "fetch", "org/tiny"])
        assert not any(request["authorization"] for request in hub.requests(where="cdn"))

Each has a home of its own that ends with it, and an environment in which nothing of the user's is left.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
QSTREAM = str(Path(os.environ.get("QSTREAM", REPO / "build" / "qstream")).resolve())
SECONDS = 120  # after which something hangs
# What steers clients of the Hub, or leads elsewhere.
STEERING = re.compile(r"^(HF_|HUGGING|TRANSFORMERS_OFFLINE|XDG_|SSL_CERT|CURL_CA|REQUESTS_CA)|_proxy$", re.IGNORECASE)


def model(id: str, *folders: Path | str, **settings: Any) -> dict[str, Any]:
    """A repository whose commits are these folders; settings as Store.add in repositories.py has them."""
    return {"type": "model", "id": id, "commits": [str(Path(folder).resolve()) for folder in folders], **settings}


def dataset(id: str, *folders: Path | str, **settings: Any) -> dict[str, Any]:
    return model(id, *folders, **settings) | {"type": "dataset"}


class StandIn:
    """`options` are standin.py's: page=3 for --page 3, cdn_host="localhost"."""

    def __init__(
        self, *repositories: dict[str, Any], tls: bool = False, tokens: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="qstream-hub-test-"))
        self.home = self.work / "home"
        self.home.mkdir()
        described = {"repositories": list(repositories)} | ({"tokens": tokens} if tokens is not None else {})
        self.description = self.work / "repositories.json"
        self.description.write_text(json.dumps(described))
        self.command = [sys.executable, str(HERE / "standin.py"), "--repositories", str(self.description)]
        self.command += ["--tls"] if tls else []
        for name, value in options.items():
            self.command += ["--" + name.replace("_", "-"), str(value)]

    def __enter__(self) -> "StandIn":
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("the stand-in does not start")
        self.addresses = json.loads(line)
        self.url, self.cdn, self.ca = self.addresses["hub"], self.addresses["cdn"], self.addresses.get("ca")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()
        shutil.rmtree(self.work, ignore_errors=True)

    # ---- what runs against it ----

    def environment(self, token: str | None = None, **more: str | None) -> dict[str, str]:
        """Of a process that is to take this for the Hub; None removes a variable."""
        made = {name: value for name, value in os.environ.items() if not STEERING.search(name)}
        made |= {"HOME": str(self.home), "HF_HOME": str(self.home / "huggingface"), "HF_ENDPOINT": self.url,
                 "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1",
                 "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
        if self.ca:
            made |= {"SSL_CERT_FILE": self.ca, "REQUESTS_CA_BUNDLE": self.ca}
        if token:
            made["HF_TOKEN"] = token
        for name, value in more.items():
            made.pop(name, None)
            if value is not None:
                made[name] = value
        return made

    def run(self, command: list[str | Path], token: str | None = None, timeout: float = SECONDS, cwd: Path | None = None,
            **more: str | None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        return subprocess.run([str(word) for word in command], env=self.environment(token, **more), cwd=cwd or self.work,
                              capture_output=True, text=True, timeout=timeout, check=False)  # fmt: skip

    def start(self, command: list[str | Path], token: str | None = None, **more: str | None) -> subprocess.Popen[str]:
        """Not waited for: to be killed at some moment (wait_sent, wait_hits)."""
        return subprocess.Popen([str(word) for word in command], env=self.environment(token, **more), cwd=self.work,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip

    def kill_after(self, process: subprocess.Popen[str], size: int, number: int = signal.SIGKILL) -> bool:
        """Sends a process from `start` a signal once the CDN has sent so many bytes from now on; false when it ended
        before. Waits for its end."""
        end = self.sent() + size
        while process.poll() is None:
            if self.sent() >= end:
                process.send_signal(number)
                break
            time.sleep(0.002)
        process.communicate()
        return process.returncode == -number

    @property
    def cache(self) -> Path:
        """HF_HUB_CACHE of what runs here."""
        return self.home / "huggingface" / "hub"

    def empty_home(self) -> None:
        shutil.rmtree(self.home)
        self.home.mkdir()

    # ---- what it saw, and what it does ----

    def control(self, method: str, path: str, body: Any = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.addresses["control"] + path, data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS) as reply:
                return reply.read().decode()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"stand-in: {method} {path}: {error.read().decode()}") from error

    def requests(self, path: str = "", **having: Any) -> list[dict[str, Any]]:
        """Of the log, once no request is under way: those whose path has the regular expression and whose fields are
        these (where="cdn", method="GET", status=206)."""
        entries = [json.loads(line) for line in self.control("GET", "/log").splitlines()]
        return [entry for entry in entries if re.search(path, entry.get("path", ""))
                and all(entry.get(name) == value for name, value in having.items())]  # fmt: skip

    def clear_log(self) -> None:
        self.control("POST", "/log/clear", {})

    def fault(self, **settings: Any) -> None:
        """One more; faults.py tells what there is."""
        self.control("POST", "/faults", settings)

    def no_faults(self) -> None:
        self.control("PUT", "/faults", [])

    def hits(self) -> list[int]:
        """How often each fault struck."""
        return [fault["hits"] for fault in json.loads(self.control("GET", "/faults"))]

    def wait_hits(self, hits: int) -> None:
        self.control("GET", f"/faults?hits={hits}")

    def sent(self, where: str = "cdn") -> int:
        """Bytes of bodies so far."""
        return json.loads(self.control("GET", "/sent"))[where]

    def wait_sent(self, size: int, where: str = "cdn") -> None:
        self.control("GET", f"/sent?{where}={size}")

    def add(self, repository: dict[str, Any]) -> None:
        """One more repository, or another in place of one."""
        self.control("POST", "/repositories", repository)

    def repository(self, id: str, type: str = "model") -> dict[str, Any]:
        """{"main": {"commit", "title", "files": {PATH: {"size", "oid", "sha256", "path"}}}}, as it is now."""
        return json.loads(self.control("GET", f"/repositories?type={type}&id={id}"))
