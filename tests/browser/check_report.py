#!/usr/bin/env python3
"""Opens what `qstream report` wrote in a headless Chromium. Prints TAP.

    check_report.py JOINED

JOINED.html was made of JOINED-inspect.json and so on, which are read here to know what has to be shown.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from check_page import WIDTHS, Page, Tap
from chromium import Browser, BrowserError
from sample_reports import MARKUP_NAME, RTL_NAME

FRAME = "document.querySelector('iframe:not([hidden])')"


def wait(page: Page, condition: str) -> None:
    """A frame is filled in its own time."""
    page.ask(f"new Promise(done => {{ const look = () => {condition} ? done() : setTimeout(look, 20); look(); }})")


def check_parts(tap: Tap, page: Page, file: Path, parts: dict[str, Any]) -> None:
    browser = page.browser
    with tap.test("report: loads, complains of nothing, asks for nothing but itself"):
        browser.open(file)
        tap.same("complaints", browser.complaints, [])
        outside = [url for url in browser.requests if not url.startswith(("data:", "about:"))]
        tap.same("requests", outside, [file.resolve().as_uri()])
    with tap.test("report: the head tells verdicts and figures"):
        tap.same("name", (page.text("h1") or "").strip(), Path(parts["inspect"]["model"]).name)
        figures = page.ask("[...document.querySelectorAll('.figure')].map(element => element.textContent)")
        ppl = parts["ppl"]
        tap.same("figures", figures[1:], [parts["verify"]["verdict"].upper(),
                                          f"{ppl['ppl']:#.5g} against {ppl['baseline']['ppl']:#.5g}"])
        tap.true("the audit", any(word in figures[0] for word in ("error", "warning", "note", "no objection")))
    shown = {"inspect": ("#audit", str(parts["inspect"]["totals"]["tensors"])),
             "verify": ("#tables", f"{len(parts['verify']['tensors'])} weight"), "ppl": ("#tables", str(parts["ppl"]["tokens_scored"]))}
    for number, (name, (selector, wanted)) in enumerate(shown.items()):
        with tap.test(f"report: the page of {name} is in its frame"):
            browser.click("[role=tab]", number)
            wait(page, f"{FRAME}.contentDocument?.querySelector({json.dumps(selector)})")
            tap.same("frame", page.ask(f"{FRAME}.id"), f"part-{name}")
            tap.true("its figures", wanted in page.ask(f"{FRAME}.contentDocument.body.textContent"))
            tap.same("complaints", browser.complaints, [])
    with tap.test(f"report: no width from {WIDTHS[0]} to {WIDTHS[-1]} scrolls sideways"):
        for width in WIDTHS:
            browser.resize(width)
            tap.true(f"at {width}", page.ask("document.documentElement.scrollWidth <= innerWidth"))
        browser.resize(1440)
    with tap.test("report: arrows go from tab to tab"):
        browser.click("[role=tab]", 0)
        browser.press("ArrowRight")
        tap.same("chosen", page.text('[role=tab][aria-selected="true"] .title'), page.ask("document.querySelectorAll('.title')[1].textContent"))


def check_hostile(tap: Tap, page: Page, file: Path, out: Path) -> None:
    """Names of strangers: in the head, and in the JSON that goes into a frame."""
    text = file.read_text(encoding="utf-8")
    begin = text.index('<script id="data" type="application/json">') + len('<script id="data" type="application/json">')
    end = text.index("</script>", begin)
    data = json.loads(text[begin:end])
    data["verify"]["folder"], data["verify"]["source"] = f"/out/{MARKUP_NAME}", f"/in/{RTL_NAME}"
    data["inspect"]["model"] = "/out/</script><b>x</b>@DATA@$&"
    hostile = out / "report-hostile.html"
    hostile.write_text(text[:begin] + json.dumps(data).replace("<", "\\u003c") + text[end:], encoding="utf-8")
    with tap.test("report: names do not become markup"):
        page.browser.open(hostile)
        wait(page, f"{FRAME}.contentDocument?.querySelector('#audit')")
        tap.same("complaints", page.browser.complaints, [])
        tap.same("elements", page.count("header b, header i, header img"), 0)
        tap.true("shown as it is", "<b>x</b>@DATA@$&" in page.ask(f"{FRAME}.contentDocument.body.textContent"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("joined")
    parser.add_argument("--out", type=Path, default=Path("build/test"))
    arguments = parser.parse_args()
    parts = {name: json.loads(Path(f"{arguments.joined}-{name}.json").read_text()) for name in ("inspect", "audit", "verify", "ppl")}
    tap = Tap()
    try:
        with Browser(arguments.out / "chromium-report.log") as browser:
            page = Page(browser)
            check_parts(tap, page, Path(f"{arguments.joined}.html"), parts)
            check_hostile(tap, page, Path(f"{arguments.joined}.html"), arguments.out)
            browser.open(Path(f"{arguments.joined}.html"))
            wait(page, f"{FRAME}.contentDocument?.querySelector('#audit')")
            browser.screenshot(arguments.out / "browser" / "report-joined.png")
    except BrowserError as error:
        print(f"Bail out! {error}")
        return 1
    print(f"1..{tap.tests}")
    return int(tap.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
