"""Every error and warning of the code has one entry with cause and fix; no entry is old."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.support.messages import messages

FOLDER = Path(__file__).parents[2] / "docs" / "troubleshooting"
ENTRY = re.compile(r"^### (?P<title>.+?)\n(?P<body>.*?)(?=^#{1,3} |\Z)", re.MULTILINE | re.DOTALL)
BULLET = re.compile(r"^- (?P<ticks>`+) ?(?P<text>.+?) ?(?P=ticks)$", re.MULTILINE | re.DOTALL)


def entries() -> dict[str, str]:
    """Page and title -> the entry's text."""
    return {
        f"{page.name}: {match['title']}": match["body"]
        for page in sorted(FOLDER.glob("*.md"))
        for match in ENTRY.finditer(page.read_text(encoding="utf-8"))
    }


def documented() -> Counter[str]:
    return Counter(
        one_line(match["text"]) for body in entries().values() for match in BULLET.finditer(body)
    )


def one_line(template: str) -> str:
    return " ".join(template.split())


def test_every_message_has_one_entry() -> None:
    said = {one_line(message.template): message.where for message in messages()}
    absent = [f"{where}: {template}" for template, where in said.items()
              if template not in documented()]  # fmt: skip
    assert not absent, "\n".join(absent)


def test_no_entry_is_old_or_double() -> None:
    said = {one_line(message.template) for message in messages()}
    assert [template for template in documented() if template not in said] == []
    assert [template for template, count in documented().items() if count > 1] == []


def test_an_entry_gives_a_cause_and_a_mend() -> None:
    incomplete = [
        title for title, body in entries().items()
        if "**Cause.**" not in body or "**Fix.**" not in body or not BULLET.search(body)
    ]  # fmt: skip
    assert incomplete == []
