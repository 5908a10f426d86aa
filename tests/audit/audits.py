"""Runs `qstream audit`, and checks what must hold for every answer of it."""

import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints import REPO

QSTREAM = os.environ.get("QSTREAM", str(REPO / "build" / "qstream"))
TIMEOUT = 30  # seconds; an audit of these takes milliseconds
MORE_SUBJECTS = 20


@dataclass
class Audit:
    """An answer to `qstream audit --json`."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def findings(self) -> list[dict[str, Any]]:
        """An audit that did not answer counts as a finding of its own."""
        try:
            return self.json["findings"]
        except (ValueError, KeyError, TypeError):
            said = {"id": "no-answer", "severity": "error", "subject": f"exit {self.status}", "count": 1}
            return [said | {"message": (self.errors or self.output).strip()[:200], "fix": "none"}]

    def problems(self) -> list[str]:
        """Whether the answer keeps the promises of its format."""
        if self.status not in (0, 1):
            return [f"exit {self.status}: {self.errors.strip() or self.output.strip()[:300]}"]
        try:
            answer = self.json
        except ValueError as error:
            return [f"no JSON: {error}", self.output[:300], self.errors]
        problems = []
        keys = {"schema", "model", "clean", "counts", "loaders", "matrix", "findings"}
        if missing := keys - answer.keys():
            return [f"keys are missing: {sorted(missing)}"]
        if answer["schema"] != "qstream.audit/1":
            problems.append(f"schema {answer['schema']}")
        severities = Counter(finding["severity"] for finding in answer["findings"])
        if answer["counts"] != {severity: severities[severity] for severity in ("error", "warning", "note")}:
            problems.append(f"counts {answer['counts']}, but {dict(severities)}")
        if answer["clean"] != (not answer["findings"]):
            problems.append(f"clean {answer['clean']} with {len(answer['findings'])} findings")
        for finding in answer["findings"]:
            problems += finding_problems(finding)
        return problems + ([f"standard error: {self.errors}"] if self.errors else [])


def finding_problems(finding: dict[str, Any]) -> list[str]:
    name = finding.get("id")
    texts = [key for key in ("id", "subject", "message", "fix") if not str(finding.get(key) or "").strip()]
    problems = [f"{name} has no {key}" for key in texts]
    more = finding.get("subjects", [])
    if len(more) > MORE_SUBJECTS or finding["count"] < 1 + len(more) or len(set(more)) < len(more):
        problems.append(f"{name} counts {finding['count']} and names {len(more)} more")
    return problems


def audit(folder: Path, *options: str | Path, json_output: bool = True) -> Audit:
    command = [QSTREAM, "audit", str(folder), *(["--json"] if json_output else []), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return Audit(done.returncode, done.stdout, done.stderr)
