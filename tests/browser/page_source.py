"""A report's page, filled as the program does it."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLACE = "@DATA@"


def page_with(folder: str, data: dict[str, Any]) -> str:
    """FOLDER/page.html, what all pages share in its place, with the data."""
    page = (ROOT / folder / "page.html").read_text(encoding="utf-8")
    for shared in ("common/page.css", "common/page.js"):
        page = page.replace(f"@{shared}@\n", (ROOT / shared).read_text(encoding="utf-8"))
    if page.count(PLACE) != 1:
        raise ValueError(f"{folder}/page.html must hold {PLACE} once")
    return page.replace(PLACE, json.dumps(data, allow_nan=False).replace("<", "\\u003c"))
