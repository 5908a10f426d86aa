#!/usr/bin/env python3
"""Opens reports in a headless Chromium and uses them as a person does. Prints TAP.

Reports of made-up checkpoints are checked in detail. Files given as arguments (the program's own reports of true
checkpoints) must hold up to what is true of every report. Screenshots go to the folder of --out.
"""

import argparse
import fnmatch
import json
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chromium import Browser, BrowserError
from sample_reports import MARKUP_NAME, write_samples

ROWS = "#tensor-table tbody tr:not(.spacer)"
WIDTHS = (400, 700, 1024, 1440, 2000)


@dataclass
class Tap:
    tests: int = 0
    failures: int = 0
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def test(self, name: str) -> Iterator[None]:
        self.problems = []
        try:
            yield
        except (BrowserError, LookupError, TypeError):
            self.problems.append(traceback.format_exc())
        self.tests += 1
        self.failures += bool(self.problems)
        print(f"{'not ok' if self.problems else 'ok'} {self.tests} - {name}", flush=True)
        for problem in self.problems:
            print("".join(f"# {line}\n" for line in problem.splitlines()), end="", flush=True)

    def same(self, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            self.problems.append(f"{what}: found {found!r:.500}, wanted {wanted!r:.500}")

    def true(self, what: str, found: Any) -> None:
        if not found:
            self.problems.append(f"{what}: found {found!r:.500}")


class Page:
    """What a report shows, asked of the browser."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.ask: Callable[[str], Any] = browser.evaluate

    def text(self, selector: str) -> str:
        return self.ask(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def count(self, selector: str) -> int:
        return self.ask(f"document.querySelectorAll({json.dumps(selector)}).length")

    def column(self, number: int) -> list[str]:
        """The cells of one column in the rows that are drawn."""
        return self.ask(f"[...document.querySelectorAll('{ROWS}')].map(row => row.cells[{number}].textContent)")

    def names(self) -> list[str]:
        return self.column(0)

    def tensors(self) -> list[dict[str, Any]]:
        return self.ask("JSON.parse(document.getElementById('data').textContent).inspect?.tensors ?? []")

    def status(self) -> str:
        return self.text("#status")


def check_any_report(tap: Tap, page: Page, file: Path) -> None:
    """Loads without a complaint and without a request; fits every width; its table works."""
    browser, name = page.browser, file.stem
    with tap.test(f"{name}: loads, complains of nothing, asks for nothing but itself"):
        browser.open(file)
        tap.same("complaints", browser.complaints, [])
        tap.same(
            "requests", [url for url in browser.requests if not url.startswith("data:")], [file.resolve().as_uri()]
        )
        tap.same("heading", page.count("h1"), 1)
    with tap.test(f"{name}: no width from {WIDTHS[0]} to {WIDTHS[-1]} scrolls sideways"):
        for width in WIDTHS:
            browser.resize(width)
            tap.true(f"at {width}", page.ask("document.documentElement.scrollWidth <= innerWidth"))
        browser.resize(1440)
    tensors = page.ask("JSON.parse(document.getElementById('data').textContent).inspect?.tensors.length ?? 0")
    if not tensors:
        return
    with tap.test(f"{name}: the table holds every tensor, the last after scrolling to the end"):
        tap.true(f"{page.status()} counts {tensors}", page.status().startswith(f"{tensors:,} of {tensors:,} tensor"))
        drawn = page.count(ROWS)
        tap.true(f"{drawn} rows are drawn", 0 < drawn <= min(tensors, 100))
        tap.same("aria-rowcount", page.ask("document.querySelector('#tensor-table').ariaRowCount"), str(tensors + 1))
        page.ask("document.querySelector('#tensor-scroll').scrollTop = 1e9")
        browser.settle()
        rows = page.ask(f"[...document.querySelectorAll('{ROWS}')].map(row => +row.getAttribute('aria-rowindex'))")
        tap.same("last row", rows[-1], tensors + 1)
        tap.true(
            "the last row is in sight",
            page.ask(f"""(() => {{
            const row = [...document.querySelectorAll('{ROWS}')].at(-1).getBoundingClientRect();
            const box = document.querySelector('#tensor-scroll').getBoundingClientRect();
            return row.bottom <= box.bottom + 1 && row.top >= box.top;
        }})()"""),
        )
        page.ask("document.querySelector('#tensor-scroll').scrollTop = 0")
        browser.settle()
    with tap.test(f"{name}: a click on a row opens its details, Escape closes them"):
        browser.click(ROWS)
        tap.true("details are open", not page.ask("document.querySelector('#details').hidden"))
        tap.same("name", page.text("#details h3")[:300], page.names()[0][:300])
        browser.press("Escape")
        tap.true("details are closed", page.ask("document.querySelector('#details').hidden"))
    with tap.test(f"{name}: nothing was complained of on the way"):
        tap.same("complaints", browser.complaints, [])


def check_sorting(tap: Tap, page: Page) -> None:
    """Each column both ways, judged by the values behind the texts."""
    by_name = {tensor["name"]: tensor for tensor in page.tensors()}
    values: dict[str, Callable[[dict[str, Any]], Any]] = {
        "dtype": lambda tensor: tensor["dtype"],
        "bytes": lambda tensor: tensor["bytes"],
        "role": lambda tensor: tensor["role"],
        "format": lambda tensor: tensor["format"],
        "shard": lambda tensor: tensor["shard"],
        "offset": lambda tensor: tensor["offset"],
        "layer": lambda tensor: tensor["layer"],
        "shape": lambda tensor: -1 if not tensor["shape"] else math.prod(tensor["shape"]),
    }
    titles = page.ask("[...document.querySelectorAll('#tensor-table thead button')].map(button => button.textContent)")
    tap.same("columns", sorted(titles), sorted([*values, "name"]))
    for column, title in enumerate(titles):
        if title == "name":
            continue
        for direction in ("ascending", "descending"):
            page.browser.click("#tensor-table thead button", column)
            tap.same(
                f"aria-sort of {title}",
                page.ask(f"document.querySelectorAll('#tensor-table th')[{column}].ariaSort"),
                direction,
            )
            found = [values[title](by_name[name]) for name in page.names()]
            every = [values[title](tensor) for tensor in by_name.values()]
            known = sorted((value for value in every if value is not None), reverse=direction == "descending")
            tap.same(f"{title} {direction}", found, known[: len(found)])
    page.browser.click("#tensor-table thead button", titles.index("name"))
    layers = [by_name[name]["layer"] for name in page.names() if by_name[name]["layer"] is not None]
    tap.same("layers in the order of names", layers, sorted(layers))
    page.ask("document.querySelector('#tensor-scroll').scrollTop = 1e9")
    page.browser.settle()
    tap.same("layer of the last but one name", by_name[page.names()[-2]]["layer"], 35)


def check_search(tap: Tap, page: Page) -> None:
    names = [tensor["name"] for tensor in page.tensors()]
    searches = {
        "down_proj": [name for name in names if "down_proj" in name],
        "DOWN_proj": [name for name in names if "down_proj" in name],
        "*.layers.1?.*weight_packed": fnmatch.filter(names, "*.layers.1?.*weight_packed"),
        "*.[!a-m]_proj.weight_scale": fnmatch.filter(names, "*.[!a-m]_proj.weight_scale"),
        "*[0-24]5.*k_proj*": fnmatch.filter(names, "*[0-24]5.*k_proj*"),
        "lm_head.weight": ["lm_head.weight"],
        "*a*a*a*a*a*a*a*a*a*a*a*a*a*z": [],
        "layers?0": [],
    }
    for search, wanted in searches.items():
        page.browser.type("#search", search)
        tap.true(f"{search}: {page.status()}", page.status().startswith(f"{len(wanted)} of "))
        shown = page.names()
        tap.true(f"{search}: rows", set(shown) <= set(wanted) and bool(shown) == bool(wanted))
    page.browser.type("#search", "")
    tap.true("all are back", page.status().startswith(f"{len(names)} of "))
    for which in ("role", "format", "dtype"):
        page.ask(f"""(() => {{
            const select = document.querySelector('#filter-{which}');
            select.selectedIndex = 1;
            select.dispatchEvent(new Event('change'));
        }})()""")
        chosen = page.ask(f"document.querySelector('#filter-{which}').selectedOptions[0].textContent")
        wanted = [tensor for tensor in page.tensors() if tensor[which] == chosen]
        tap.true(f"{which} {chosen}: {page.status()}", page.status().startswith(f"{len(wanted)} of "))
        page.browser.click(".filters button")
    tap.true("all are back", page.status().startswith(f"{len(names)} of "))


def check_keyboard(tap: Tap, page: Page) -> None:
    browser = page.browser
    page.ask("document.querySelector('#tensor-table').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        browser.press(key)
    active = "document.getElementById(document.querySelector('#tensor-table').getAttribute('aria-activedescendant'))"
    tap.same("active row", page.ask(f"{active}.getAttribute('aria-rowindex')"), "3")
    browser.press("Enter")
    tap.same("its details", page.text("#details h3"), page.ask(f"{active}.cells[0].textContent"))
    browser.press("End")
    tap.same("details follow to the last row", page.text("#details h3"), page.names()[-1])
    browser.press("Escape")
    browser.press("Home")
    tap.same("first row", page.ask(f"{active}.getAttribute('aria-rowindex')"), "2")
    page.ask("document.querySelector('#heat td[tabindex=\"0\"]').focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        browser.press(key)
    label = page.ask("document.activeElement.ariaLabel")
    tap.true(f"cell of the heat map: {label}", label.startswith("layer 1, gate_proj: 2^"))
    tap.true("its tooltip", "layer 1, gate_proj" in page.text("#tip"))
    browser.press("Enter")
    tap.same("its histograms", page.text(".histograms figure h3"), "layer 1, gate_proj")


def check_details(tap: Tap, page: Page) -> None:
    browser = page.browser
    browser.type("#search", "*layers.7.*up_proj.weight_packed")
    browser.click(ROWS)
    tap.same("histograms", page.count("#details .plot"), 2)
    tap.same("bars of e2m1 values", page.ask("document.querySelectorAll('#details .plot')[1].childElementCount"), 16)
    browser.click("#details .link")
    tap.true("the companion's details", page.text("#details h3").endswith("layers.7.mlp.up_proj.weight_scale"))
    browser.click("#details .link")
    tap.true("and back", page.text("#details h3").endswith("layers.7.mlp.up_proj.weight_packed"))
    browser.press("Escape")
    browser.type("#search", "layers.7.self_attn.q_proj.weight")
    browser.click(ROWS)
    tap.true("input scale", "0.0213" in page.text("#details"))
    browser.press("Escape")
    browser.type("#search", "")


def check_audit(tap: Tap, page: Page) -> None:
    browser = page.browser
    shown = "#findings details:not([hidden])"
    tap.same("findings", page.count(shown), 4)
    tap.true(
        "verdict",
        "2 errors" in page.text("#top") and "1 warning" in page.text("#top") and "1 note" in page.text("#top"),
    )
    for outcome in ("as meant", "garbage", "143 refuses", "loads unquantized", "unknown"):
        tap.true(f"matrix tells {outcome}", outcome in page.text("#matrix"))
    for index, left in ((0, 2), (1, 1), (2, 0)):
        browser.click("#audit .choices button", index)
        tap.same("findings left", page.count(shown), left)
    for index in range(3):
        browser.click("#audit .choices button", index)
    tap.same("findings again", page.count(shown), 4)
    browser.click("#findings summary", 1)
    tap.true("loaders", "Concerns vLLM" in page.text("#findings details[open]"))
    tap.true("fix", "Fix: Set strategy" in page.text("#findings details[open]"))
    tap.true("more subjects", "and 198 more" in page.text("#findings details[open]"))
    browser.click("#findings details[open] .link", 3)
    tap.same("a subject leads to its rows", page.names(), ["lm_head.weight"])
    browser.click(".filters button")


def check_sizes(tap: Tap, page: Page) -> None:
    browser = page.browser
    heights = set()
    shards = len({tensor["shard"] for tensor in page.tensors()})
    for index, (view, wanted) in enumerate(
        {"role \u00d7 format": 5, "role": 5, "format": 3, "shard": shards, "layer": 37}.items()
    ):
        browser.click("#sizes .choices button", index)
        tap.same("view", page.text("#sizes [aria-pressed=true]"), view)
        tap.same(f"rows by {view}", page.count(".sizes tbody tr"), wanted)
        heights.add(page.ask("document.querySelector('#sizes').offsetHeight"))
        figures = page.ask(
            "[...document.querySelectorAll('.sizes tbody tr:first-child > *')].map(cell => cell.textContent)"
        )
        if view == "format":
            tap.same("first format", figures, ["mxfp4", "", "20.2 GB", "52.6 %", "4.25", "38.1 B", "216"])
        if view == "layer":
            tap.same(
                "first layer", figures, ["model.language_model.layers.0", "", "889 MB", "2.3 %", "5.14", "1.38 B", "20"]
            )
    tap.same("heights of the views", len(heights), 1)


def check_theme(tap: Tap, page: Page, out: Path) -> None:
    browser = page.browser
    background = "getComputedStyle(document.body).backgroundColor"
    browser.prefer("light")
    light = page.ask(background)
    browser.screenshot(out / "report-light.png", whole=True)
    browser.prefer("dark")
    dark = page.ask(background)
    browser.screenshot(out / "report-dark.png", whole=True)
    tap.true("dark differs from light", light != dark)
    for theme, wanted in (("light", light), ("dark", dark), ("auto", dark)):
        browser.click("#theme")
        tap.same("button", page.text("#theme"), f"Theme: {theme}")
        tap.same(f"background of {theme}", page.ask(background), wanted)
    browser.prefer("light")
    tap.same("auto follows", page.ask(background), light)


def check_hostile(tap: Tap, page: Page) -> None:
    tap.same("nothing of it ran", page.ask("typeof window.harmed"), "undefined")
    tap.same("images", page.count("img"), 0)
    names = page.names()
    for wanted in (
        MARKUP_NAME,
        "model.layers.0.\\u{202e}gnp.thgiew\\u{202c}\\u{7}\\u{1b}[31m.weight",
        "__proto__",
        "@DATA@",
        "line\\u{a}break\\u{9}tab\\u{2028}end",
    ):
        tap.true(f"{wanted} is shown", wanted in names)
    hidden = r"/[\u0000-\u0008\u000b-\u001f\u202a-\u202e\u2066-\u2069\u2028\u2029]/"
    tap.true(
        "no control character is on the page", page.ask(f"!{hidden}.test(document.querySelector('main').innerText)")
    )
    tap.true("the finding is text", MARKUP_NAME in page.text("#findings"))
    cells = page.ask("[...document.querySelectorAll('#heat tbody td')].map(cell => [cell.className, cell.textContent])")
    tap.same("heat map", cells[:2] + cells[3:4], [["broken", "NaN"], ["broken", "bad"], ["broken", "NaN"]])
    tap.same("a cell with NaN among its scales", cells[4], ["flawed", "\u22129"])


def check_policy(tap: Tap, page: Page) -> None:
    refused = page.ask("""new Promise(done => {
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        fetch("data:text/plain,x").catch(() => {});
        setTimeout(() => done("nothing"), 3000);
    })""")
    tap.same("a request of a script is refused by", refused, "connect-src")


def check_samples(tap: Tap, page: Page, folder: Path, out: Path) -> None:
    browser = page.browser
    write_samples(folder)
    for name in ("dense", "moe", "tall", "hostile", "no-stats", "empty", "audit-only"):
        check_any_report(tap, page, folder / f"{name}.html")
        if name in ("tall", "moe"):
            browser.screenshot(out / f"report-{name}.png", whole=True)
        if name == "hostile":
            with tap.test("hostile: names are text, what cannot be seen is written out"):
                check_hostile(tap, page)
            browser.screenshot(out / "report-hostile.png", whole=True)
        if name == "no-stats":
            with tap.test("no-stats: the report tells how to get what it lacks"):
                tap.true("scales", "inspect MODEL --stats" in page.text("#scales"))
                tap.true("audit", "no audit" in page.text("#audit"))
    checks = {
        "each column sorts both ways": check_sorting,
        "search and filters narrow the rows": check_search,
        "the keyboard does what the mouse does": check_keyboard,
        "details of a tensor": check_details,
        "the audit's matrix and findings": check_audit,
        "sizes by role, format, shard and layer": check_sizes,
    }
    browser.open(folder / "dense.html")
    for name, check in checks.items():
        with tap.test(f"dense: {name}"):
            check(tap, page)
    with tap.test("dense: theme"):
        check_theme(tap, page, out)
    with tap.test("dense: narrow and printed"):
        browser.resize(400, 800)
        browser.screenshot(out / "report-narrow.png", whole=True)
        browser.resize(1440)
        browser.pdf(out / "report.pdf")
        tap.true("the print is a document", (out / "report.pdf").read_bytes().startswith(b"%PDF"))
        tap.same("complaints", browser.complaints, [])
    with tap.test("dense: the policy forbids requests"):
        check_policy(tap, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="*", help="reports that the program wrote")
    parser.add_argument("--out", type=Path, default=Path("build/test"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tap = Tap()
    try:
        with Browser(arguments.out / "chromium.log") as browser:
            page = Page(browser)
            browser.resize(1440)
            check_samples(tap, page, arguments.out / "browser", arguments.out)
            for file in arguments.reports:
                check_any_report(tap, page, file)
    except BrowserError as error:
        print(f"Bail out! {error}")
        return 1
    print(f"1..{tap.tests}")
    return int(tap.failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
