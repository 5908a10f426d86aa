#!/usr/bin/env python3
"""Opens reports of `qstream verify` in a headless Chromium. Prints TAP.

Made-up reports are checked in detail; files given as arguments are the program's own. Screenshots go to --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from check_page import WIDTHS, Page, Tap
from chromium import Browser, BrowserError
from sample_verify import sample_verifications, write_verifications

CELLS = "#map tbody td:not(.none)"
WEIGHTS = "#weights tbody tr"


def report_of(page: Page) -> dict[str, Any]:
    return page.ask("JSON.parse(document.getElementById('data').textContent).verify")


def check_any(tap: Tap, page: Page, file: Path) -> dict[str, Any]:
    browser, name = page.browser, file.stem
    browser.resize(1440)
    with tap.test(f"{name}: loads, complains of nothing, asks for nothing but itself"):
        browser.open(file)
        tap.same("complaints", browser.complaints, [])
        tap.same(
            "requests", [url for url in browser.requests if not url.startswith("data:")], [file.resolve().as_uri()]
        )
    report = report_of(page)
    with tap.test(f"{name}: shows the verdict, every finding and every weight"):
        tap.same("verdict", page.text("#verdict"), report["verdict"].upper())
        tap.same("findings", page.count("#findings dt"), len(report["findings"]))
        weights = page.text("#tables [role=status]")
        count = len(report["tensors"])
        tap.same("weights", weights, f"{count:,} weight{'' if count == 1 else 's'}" if count else None)
        tap.same("drawn", page.count(WEIGHTS), min(count, 200))
        tap.same("no word of a missing value", page.ask("/NaN|undefined|Infinity|\\[object/.test(document.body.innerText)"), False)
    with tap.test(f"{name}: no width from {WIDTHS[0]} to {WIDTHS[-1]} scrolls sideways"):
        for width in WIDTHS:
            browser.resize(width)
            tap.true(f"at {width}", page.ask("document.documentElement.scrollWidth <= innerWidth"))
        browser.resize(1440)
    return report


def check_map(tap: Tap, page: Page, name: str, report: dict[str, Any]) -> None:
    wanted = {(t["layer"], t["projection"]) for t in report["tensors"] if t["layer"] is not None}
    with tap.test(f"{name}: the heat map has a cell for each layer and projection, for each figure"):
        outputs = ("output error",) if report["outputs"] else ()
        for number, figure in enumerate(("SQNR", "excess error", *outputs, "not nearest")):
            page.browser.click("#map .choices button", number)
            pressed = page.text('#map .choices button[aria-pressed="true"]')
            tap.same("pressed", pressed, figure)
            tap.same("cells", page.count("#map tbody td[data-tip]"), len(wanted))
        page.browser.click("#map .choices button", 0)
        bad = {f["subject"] for f in report["findings"] if f["severity"] == "error"}
        bad |= {subject.rpartition(".")[0] for subject in bad}
        failing = {(t["layer"], t["projection"]) for t in report["tensors"]
                   if t["layer"] is not None and t["module"] in bad}
        tap.same("outlined", page.count("#map td.failing"), len(failing))


def check_outputs(tap: Tap, page: Page, name: str, report: dict[str, Any]) -> None:
    with tap.test(f"{name}: errors of outputs are told in the map and in the table of weights"):
        page.browser.click("#map .choices button", 2)
        shown = page.ask("[...document.querySelectorAll('#map tbody td[data-tip]')].map(cell => cell.textContent)")
        wanted = [f"{100 * weight['rel_error']:.1f} %" for weight in report["outputs"]["weights"]]
        tap.same("cells", shown, wanted)
        page.browser.click("#map .choices button", 0)
        heads = page.ask("[...document.querySelectorAll('#weights thead th')].map(head => head.textContent)")
        column = heads.index("output error") + 1 if "output error" in heads else 0
        values = page.ask(f"[...document.querySelectorAll('{WEIGHTS} td:nth-child({column})')].map(cell => Number(cell.textContent))")
        tap.same("column", sorted(values), sorted(weight["rel_error"] for weight in report["outputs"]["weights"]))


def check_tables(tap: Tap, page: Page, name: str, report: dict[str, Any]) -> None:
    with tap.test(f"{name}: weights are sorted by a click and filtered by a name"):
        first = page.text(f"{WEIGHTS} td")
        page.browser.click("#weights thead button", 0)
        names = sorted((t["module"] for t in report["tensors"]),
                       key=lambda n: json.dumps([int(p) if p.isdigit() else p for p in n.split(".")]))
        tap.true("another order", page.text(f"{WEIGHTS} td") in names)
        tap.same("sort", page.ask("document.querySelector('#weights thead th').ariaSort"), "ascending")
        part = report["tensors"][-1]["module"]
        page.browser.type("#tables input", part)
        hits = sum(part in t["module"] for t in report["tensors"])
        tap.same("rows", page.count(WEIGHTS), min(hits, 200))
        tap.true("the worst was first", first is not None)


def check_blocks(tap: Tap, page: Page, name: str, report: dict[str, Any]) -> None:
    with tap.test(f"{name}: the worst block is drawn as many points as it has values"):
        worst = [t for t in report["tensors"] if t["worst_block"]]
        tap.same("weights to choose from", page.count("#blocks option"), min(len(worst), 10))
        rows = page.count("#blocks tbody tr")
        tap.same("points", page.count("#blocks svg .point"), rows)
        tap.true("a histogram has bars", page.count("#histograms svg .bar") > 0)


def check_verify(tap: Tap, page: Page, samples: Path, reports: list[Path]) -> None:
    write_verifications(samples)
    for name, _ in sample_verifications():
        report = check_any(tap, page, samples / f"{name}.html")
        if name in ("verify-pass", "verify-fail", "verify-tall", "verify-moe"):
            check_map(tap, page, name, report)
            check_tables(tap, page, name, report)
        if name == "verify-pass":
            page.browser.open(samples / f"{name}.html")
            check_outputs(tap, page, name, report)
        if name == "verify-hostile":
            with tap.test("verify-hostile: names do not become markup"):
                tap.same("elements", page.count("main b:not(.legend b):not(summary b), main i:not(.ramp i), main img"), 0)
                tap.same("scripts", page.count("script"), 2)
        if name == "verify-sampled":
            with tap.test("verify-sampled: says that not all was read"):
                tap.true("a notice", "sample" in (page.text(".notice") or ""))
    for file in reports:
        report = check_any(tap, page, file)
        check_map(tap, page, file.stem, report)
        check_tables(tap, page, file.stem, report)
        check_blocks(tap, page, file.stem, report)
    for scheme in ("light", "dark"):
        page.browser.prefer(scheme)
        for file in (samples / "verify-tall.html", *reports[:1]):
            page.browser.open(file)
            page.browser.screenshot(samples / f"{file.stem}-{scheme}.png", whole=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="*", help="reports that the program wrote")
    parser.add_argument("--out", type=Path, default=Path("build/test"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tap = Tap()
    try:
        with Browser(arguments.out / "chromium-verify.log") as browser:
            check_verify(tap, Page(browser), arguments.out / "browser", arguments.reports)
    except BrowserError as error:
        print(f"Bail out! {error}")
        return 1
    print(f"1..{tap.tests}")
    return int(tap.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
