"""Cases of a check, run one after the other or some beside each other; TAP. A case's docstring is its name."""

import concurrent.futures
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

CASES: list[Callable[[], Any]] = []


class Failure(Exception):
    pass


def require(condition: object, message: object = "not so") -> None:
    if not condition:
        raise Failure(message)


def require_equal(found: Any, expected: Any, what: str = "") -> None:
    if found != expected:
        raise Failure(f"{what or 'it'} is {found!r}, not {expected!r}")


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    """Marks a case. One that returns a text was skipped, and that is why."""
    CASES.append(function)
    return function


def name(function: Callable[[], Any]) -> str:
    return " ".join((function.__doc__ or function.__name__).split())


def outcome(function: Callable[[], Any], before: Callable[[], Any]) -> tuple[str | None, str | None, float]:
    """What went wrong, why it was skipped, and the seconds it took."""
    begun, problem, skipped = time.monotonic(), None, None
    try:
        before()
        skipped = function()
    except Exception as error:  # one case that fails must not hide the others
        problem = f"{type(error).__name__}: {error}"
        if not isinstance(error, Failure):
            problem += "\n" + traceback.format_exc()
    return problem, skipped, time.monotonic() - begun


def run_cases(prefix: str = "", before: Callable[[], Any] = lambda: None, threads: int = 1) -> int:
    """All, or those whose names have one of the words of the command line; `before` is called before each. How many
    failed."""
    words = sys.argv[1:]
    chosen = [function for function in CASES if not words or any(word in name(function) for word in words)]
    print(f"1..{len(chosen)}")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        results = [pool.submit(outcome, function, before) for function in chosen]
        for number, (function, result) in enumerate(zip(chosen, results, strict=True), 1):
            problem, skipped, seconds = result.result()
            failed += problem is not None
            end = f" # SKIP {skipped}" if skipped else f" ({seconds:.1f} s)" if sys.stdout.isatty() else ""
            print(f"{'not ok' if problem else 'ok'} {number} - {prefix}{name(function)}{end}")
            if problem:
                print("".join(f"# {line}\n" for line in problem.splitlines()), end="")
            sys.stdout.flush()
    return failed
