#!/usr/bin/env python3
"""Proves `qstream audit` on a catalogue of checkpoints, good ones and mutants with one mistake each. Prints TAP.

Every mutant must yield exactly the findings that mutants.py names, and the exit status that follows from them. Where a
mistake lies in quantization_config or the index, `--fix` must undo it. The reports in other formats are read back and
compared with the JSON.

    catalogue.py [--only GLOB]... [--keep FOLDER] [--list]
"""

import argparse
import shutil
import sys
import traceback
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from audits import Audit, audit
from checkpoints import GOOD, OTHER, REPO, Checkpoint, make_good
from fixes import fix_problems
from mutants import MUTANTS, Expected, Mutant
from reports import report_tests

SEVERITIES = ("note", "warning", "error")
FINDING_IDS = """
    config-missing config-invalid quantization-status format-wrong group-format-missing method-not-predicted
    module-unmatched checkpoint-names-only runtime-names-only module-ignored target-unused ignore-unused two-groups
    fused-groups-differ fused-partly-ignored target-class-name pattern-unanchored pattern-invalid plain-targeted
    vision-targeted companion-missing input-scale-missing companion-extra scale-orphan tensor-dtype scale-shape
    strategy-mismatch group-size packed-width scale-dtype bits-mismatch kernel-shape scheme-unsupported scale-nan
    scale-infinite scale-zero scale-negative scale-subnormal fused-scales-differ shard-missing shard-unreadable
    index-invalid index-wrong-shard index-dangling tensor-unindexed tensor-duplicate shard-unindexed index-missing
    index-shadowed consolidated-present total-size tied-embeddings architecture-layers architecture-hidden
    architecture-heads architecture-vocabulary architecture-mlp architecture-experts
""".split()


class Tap:
    def __init__(self) -> None:
        self.tests = self.failures = 0

    def test(self, name: str, problems: list[str]) -> bool:
        """One line; the problems follow as comments."""
        self.tests += 1
        self.failures += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {self.tests} - {name}")
        for problem in problems:
            print("\n".join(f"# {line}" for line in problem.splitlines()))
        sys.stdout.flush()
        return not problems


def fits(expected: Expected, found: dict[str, Any]) -> bool:
    return (
        expected.id == found["id"]
        and expected.severity == found["severity"]
        and expected.subject in found["subject"]
        and expected.count in (None, found["count"])
    )


def told(expected: Expected) -> str:
    count = f" x{expected.count}" if expected.count is not None else ""
    return f"{expected.severity} {expected.id}{count} {expected.subject}"


def found_line(found: dict[str, Any]) -> str:
    return f"{found['severity']} {found['id']} x{found['count']} {found['subject']}: {found['message']}"


def compare(expected: tuple[Expected, ...], findings: list[dict[str, Any]]) -> list[str]:
    left, missing = list(findings), []
    for each in expected:
        match = next((found for found in left if fits(each, found)), None)
        if match is None:
            missing.append(f"expected: {told(each)}")
        else:
            left.remove(match)
    return missing + [f"got:      {found_line(found)}" for found in left]


def mutant_problems(mutant: Mutant, folder: Path) -> list[str]:
    """What is wrong with the audit of a mutant, its exit status at every --fail-on included."""
    result = audit(folder)
    problems = result.problems() or compare(mutant.expected, result.findings)
    worst = max((SEVERITIES.index(each.severity) for each in mutant.expected), default=-1)
    for limit, severity in enumerate(SEVERITIES):
        if severity == "error" or worst < SEVERITIES.index("error"):  # an error fails under every limit
            status = audit(folder, "--fail-on", severity).status if severity != "error" else result.status
            if status != (worst >= limit):
                problems.append(f"exit {status} with --fail-on {severity}, expected {int(worst >= limit)}")
    return problems


def good_problems(result: Audit, plain: bool) -> list[str]:
    """A good checkpoint has no findings, and both loaders that are followed load all of it as it is meant."""
    problems = result.problems() or compare((), result.findings)
    if problems:
        return problems
    if result.status != 0:
        problems.append(f"exit {result.status}")
    for row in result.json["matrix"]:
        quantized = row["format"] != "plain"
        for loader in ("vllm", "transformers"):
            outcomes = {outcome: number for outcome, number in row[loader].items() if number}
            allowed = {"as_meant"} if quantized else {"as_meant", "unquantized"}
            if sum(outcomes.values()) != row["modules"] or not outcomes.keys() <= allowed:
                problems.append(f"{row['role']} {row['format']}, {row['modules']} modules: {loader} {outcomes}")
    if plain == any(row["format"] != "plain" for row in result.json["matrix"]):
        problems.append("the matrix does not show the formats")
    return problems


def chosen(name: str, only: list[str]) -> bool:
    return not only or any(fnmatchcase(name, glob) for glob in only)


def catalogue_problems() -> list[str]:
    """The catalogue itself: no name twice, no unknown id, every id tried."""
    ids = {each.id for mutant in MUTANTS for each in mutant.expected}
    twice = [name for name, number in Counter(mutant.name for mutant in MUTANTS).items() if number > 1]
    return [
        *(f"two mutants are called {name}" for name in twice),
        *(f"no mutant has {name}" for name in FINDING_IDS if name not in ids),
        *(f"{name} is no id" for name in sorted(ids - set(FINDING_IDS))),
    ]


def run(only: list[str], work: Path, keep: bool) -> int:
    tap = Tap()
    tap.test("the catalogue tries every finding", catalogue_problems())
    mutants = [mutant for mutant in MUTANTS if chosen(mutant.name, only)]
    goods: dict[str, Checkpoint] = {}
    reports = [name for name in ("exit-status", "options", "reports") if chosen(name, only)]
    wanted = {mutant.good for mutant in mutants} | {name for name in GOOD if chosen(name, only)}
    for name in GOOD | OTHER:
        if name in wanted or reports:
            goods[name] = make_good(name, work, REPO / "build" / "qstream")
        if name in GOOD and chosen(name, only):
            tap.test(f"{name} is clean", good_problems(audit(goods[name].folder, "--modules"), name == "plain"))
    for mutant in mutants:
        folder = work / f"mutant-{mutant.name}"
        checkpoint = goods[mutant.good].copy()
        for edit in mutant.edits:
            edit.apply(checkpoint)
        checkpoint.write(folder)
        passed = tap.test(f"{mutant.name} ({mutant.good})", mutant_problems(mutant, folder))
        if mutant.only_config and mutant.expected and (GOOD | OTHER)[mutant.good].fixable:
            passed &= tap.test(f"{mutant.name} is fixed", fix_problems(folder, goods[mutant.good]))
        if passed and not keep:
            shutil.rmtree(folder)
    for name in reports:
        try:
            for title, problems in report_tests(name, goods, work):
                tap.test(title, problems)
        except Exception:  # noqa: BLE001 an answer of another form than promised
            tap.test(f"{name}: the answers can be read", [traceback.format_exc()])
    print(f"1..{tap.tests}")
    return tap.failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="only mutants of these names")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the checkpoints there, and leave them")
    parser.add_argument("--list", action="store_true", help="print names and what is expected")
    options = parser.parse_args()
    if options.list:
        for mutant in MUTANTS:
            print(f"{mutant.name} ({mutant.good}): {'; '.join(map(told, mutant.expected)) or 'nothing'}")
        return
    work = options.keep or REPO / "build" / "audit-catalogue"
    if not options.keep:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    sys.exit(1 if run(options.only, work, bool(options.keep)) else 0)


if __name__ == "__main__":
    main()
