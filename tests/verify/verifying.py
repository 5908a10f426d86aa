"""Running the tool, reading its answer, and telling the result as TAP."""

import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
QSTREAM = os.environ.get("QSTREAM", str(REPO / "build" / "qstream"))
SEED = int(os.environ.get("QSTREAM_TEST_SEED", "1"))
TIMEOUT = 300  # seconds
SHOWN = 8  # problems of one test

sys.path.insert(0, str(REPO / "tests" / "models"))


class Tap:
    def __init__(self) -> None:
        self.tests = self.failures = 0

    def test(self, name: str, problems: list[str]) -> None:
        """One line; the problems follow as comments."""
        self.tests += 1
        self.failures += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {self.tests} - {name}")
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        for problem in problems[:SHOWN] + more:
            print("\n".join(f"# {line}" for line in problem.splitlines()))
        sys.stdout.flush()

    def run(self, cases: list[tuple[str, Callable[[], list[str]]]]) -> None:
        """Cases on all processors, told in order. What they raise is a problem, too."""

        def guarded(case: Callable[[], list[str]]) -> list[str]:
            try:
                return case()
            except Exception:  # noqa: BLE001 an answer of another form than promised
                return [traceback.format_exc()]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for (name, _), problems in zip(cases, pool.map(guarded, [case for _, case in cases]), strict=True):
                self.test(name, problems)

    def end(self) -> int:
        print(f"1..{self.tests}")
        return 1 if self.failures else 0


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QSTREAM, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT, check=False)


def quantize(source: Path, output: Path, recipe: Path, rule: str = "mse", *options: str | Path) -> None:
    done = run("quantize", source, output, "--recipe", recipe, "--rule", rule, "--quiet", *options)
    if done.returncode != 0:
        raise RuntimeError(f"qstream quantize: exit {done.returncode}: {done.stderr.strip()}")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


@dataclass
class Answer:
    """What `qstream verify --json` said."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        if not self.output:
            raise RuntimeError(f"no answer, exit {self.status}: {self.errors.strip()}")
        return json.loads(self.output, parse_constant=_no_constant)

    @property
    def findings(self) -> list[dict[str, Any]]:
        return self.json["findings"]

    def problems(self) -> list[str]:
        """Whether verdict, counts, findings and exit status agree."""
        answer = self.json
        counts = Counter(finding["severity"] for finding in answer["findings"])
        problems = []
        if answer["counts"] != {severity: counts[severity] for severity in ("error", "warning", "note")}:
            problems.append(f"counts {answer['counts']}, but {dict(counts)}")
        if (answer["verdict"] == "fail", self.status) != (counts["error"] > 0, int(counts["error"] > 0)):
            problems.append(f"verdict {answer['verdict']}, exit {self.status} with {counts['error']} errors")
        return problems

    def told(self, *severities: str) -> list[str]:
        return [f"{each['severity']}: {each['id']}: {each['subject']}: {each['message']}"
                for each in self.findings if not severities or each["severity"] in severities]  # fmt: skip


def verify(source: Path, output: Path, *options: str | Path) -> Answer:
    done = run("verify", source, output, "--json", "--quiet", *options)
    return Answer(done.returncode, done.stdout, done.stderr)
