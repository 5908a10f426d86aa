#!/usr/bin/env python3
"""Opens reports of `qstream ppl` in a headless Chromium. Prints TAP.

Made-up reports are checked in detail; files given as arguments are the program's own. Screenshots go to --out.
"""

import argparse
from pathlib import Path
from typing import Any

from check_page import WIDTHS, Page, Tap
from chromium import Browser, BrowserError
from sample_ppl import sample_measurements, write_measurements

ROWS = "#window-table tbody tr"


def report_of(page: Page) -> dict[str, Any]:
    return page.ask("JSON.parse(document.getElementById('data').textContent).ppl")


def verdict_of(report: dict[str, Any]) -> str:
    if report["state"] == "planned":
        return "PLAN"
    return {"pass": "PASS", "fail": "FAIL"}[report["expectation"]["verdict"]] if report["expectation"] else "MEASURED"


def check_any(tap: Tap, page: Page, file: Path) -> dict[str, Any]:
    browser, name = page.browser, file.stem
    browser.resize(1440)
    with tap.test(f"{name}: loads, complains of nothing, asks for nothing but itself"):
        browser.open(file)
        tap.same("complaints", browser.complaints, [])
        tap.same("requests", [url for url in browser.requests if not url.startswith("data:")], [file.resolve().as_uri()])
        tap.same("heading", page.count("h1"), 1)
    report = report_of(page)
    with tap.test(f"{name}: shows the verdict, every expected figure and every window"):
        tap.same("verdict", page.text("#verdict"), verdict_of(report))
        checks = report["expectation"]["checks"] if report["expectation"] else []
        tap.same("expected figures", page.count("#expected tbody tr"), len(checks))
        tap.same("missed figures", page.count("#expected tr.failing"), sum(check["verdict"] == "fail" for check in checks))
        tap.same("windows", page.count(ROWS), min(len(report["windows"]), 200))
        tap.same("no word of a missing value", page.ask("/NaN|undefined|Infinity|\\[object/.test(document.body.innerText)"), False)
        tap.same("no number of SVG is missing", page.ask("/NaN|Infinity|undefined/.test([...document.querySelectorAll('svg')].map(svg => svg.outerHTML).join(''))"), False)  # fmt: skip
    with tap.test(f"{name}: shows the device and its memory where there is one"):
        device = (report["budget"] or {}).get("device")
        tap.same("figures", page.count("#device tr"), 5 if device else 0)
        tap.same("name", page.ask("document.querySelector('#budget h3')?.textContent ?? ''") != "", bool(device))
    with tap.test(f"{name}: no width from {WIDTHS[0]} to {WIDTHS[-1]} scrolls sideways"):
        for width in WIDTHS:
            browser.resize(width)
            tap.true(f"at {width}", page.ask("document.documentElement.scrollWidth <= innerWidth"))
        browser.resize(1440)
    return report


def check_curves(tap: Tap, page: Page, name: str, report: dict[str, Any]) -> None:
    with tap.test(f"{name}: curves are there for what was measured, with a tooltip at each point"):
        compared = report["baseline"] is not None
        tap.same("curves of windows", page.count("#curves path.curve.model"), 2)
        tap.same("curves of the baseline", page.count("#curves path.curve.baseline"), 2 if compared else 0)
        tap.same("curves of layers", page.count("#layers path.curve"), 2 if compared else 0)
        tap.same("divergence", page.count("#divergence figure"), 3 if compared else 0)
        if len(report["windows"]) <= 1000:
            tap.same("points", page.count("#curves figure:first-child rect.strip"), len(report["windows"]))
        tap.true("points of many windows share one", page.count("#curves figure:first-child rect.strip") <= 1000)
        tip = page.ask("document.querySelector('#curves rect.strip').tip().join(' ')")
        tap.true(f"a tooltip has figures: {tip}", "NLL" in tip and "undefined" not in tip)
    with tap.test(f"{name}: the table of windows is sorted by a click on a head"):
        before = [window["nll"] for window in report["windows"]]
        page.browser.click("#window-table thead button", 4)
        tap.same("sort", page.ask("document.querySelectorAll('#window-table thead th')[4].ariaSort"), "ascending")
        tap.same("least first", page.text(f"{ROWS} td:nth-child(5)"), f"{min(before):.5f}")
        page.browser.click("#window-table thead button", 4)
        tap.same("most first", page.text(f"{ROWS} td:nth-child(5)"), f"{max(before):.5f}")


def check_ppl(tap: Tap, page: Page, samples: Path, reports: list[Path]) -> None:
    write_measurements(samples)
    for name, _ in sample_measurements():
        report = check_any(tap, page, samples / f"{name}.html")
        if name in ("ppl-baseline", "ppl-device", "ppl-plain", "ppl-fail", "ppl-many", "ppl-server"):
            check_curves(tap, page, name, report)
        if name == "ppl-hostile":
            with tap.test("ppl-hostile: names do not become markup"):
                tap.same("elements", page.count("main b, main i, main img, main script, header img"), 0)
                tap.same("scripts", page.count("script"), 2)
    for file in reports:
        report = check_any(tap, page, file)
        if report["state"] == "measured":
            check_curves(tap, page, file.stem, report)
    for scheme in ("light", "dark"):
        page.browser.prefer(scheme)
        for file in (samples / "ppl-baseline.html", samples / "ppl-device.html", samples / "ppl-fail.html", *reports[:1]):
            page.browser.resize(1440)
            page.browser.open(file)
            page.browser.screenshot(samples / f"{file.stem}-{scheme}.png", whole=True)
    page.browser.resize(400)
    page.browser.open(samples / "ppl-baseline.html")
    page.browser.screenshot(samples / "ppl-baseline-narrow.png", whole=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="*", help="reports that the program wrote")
    parser.add_argument("--out", type=Path, default=Path("build/test"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tap = Tap()
    try:
        with Browser(arguments.out / "chromium-ppl.log") as browser:
            check_ppl(tap, Page(browser), arguments.out / "browser", arguments.reports)
    except BrowserError as error:
        print(f"Bail out! {error}")
        return 1
    print(f"1..{tap.tests}")
    return int(tap.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
