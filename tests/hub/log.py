"""What the stand-in Hub was asked.

Each request is a JSON object in the log (and a line of --log FILE): number, begin and end (seconds), where (hub or cdn),
method, path, query, range, authorization (true: some came), user, user_agent, protocol (HTTP/2.0 behind nginx),
connection, active (requests under way at this host when it began), status, length (of the body that was meant), sent (of
the body), received, faults.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Log:
    def __init__(self, file: Path | None) -> None:
        self.entries: list[dict[str, Any]] = []
        self.file = file.open("a", buffering=1) if file else None
        self.changed = threading.Condition()
        self.active = {"hub": 0, "cdn": 0}
        self.begun = time.monotonic()
        self.numbers = itertools.count(1)
        self.sent = {"hub": 0, "cdn": 0}

    def now(self) -> float:
        return round(time.monotonic() - self.begun, 6)

    def begin(self, where: str) -> dict[str, Any]:
        with self.changed:
            self.active[where] += 1
            return {"number": next(self.numbers), "begin": self.now(), "where": where, "active": self.active[where]}

    def end(self, entry: dict[str, Any]) -> None:
        with self.changed:
            entry["end"] = self.now()
            self.active[entry["where"]] -= 1
            self.entries.append(entry)
            if self.file:
                self.file.write(json.dumps(entry) + "\n")
            self.changed.notify_all()

    def add_sent(self, where: str, size: int) -> None:
        with self.changed:
            self.sent[where] += size
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise ValueError(f"not within {seconds} s")

    def quiet(self, seconds: float) -> list[dict[str, Any]]:
        """The entries, once nothing is under way."""
        with self.changed:
            self.wait(lambda: not any(self.active.values()), seconds)
            return list(self.entries)

    def clear(self) -> None:
        with self.changed:
            self.entries.clear()
