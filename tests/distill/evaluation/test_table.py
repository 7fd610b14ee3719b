"""Tables keep their columns in Markdown and on a terminal, whatever the names contain."""

from __future__ import annotations

import re

from distill.evaluation import table
from indexes.command.console import printable
from tests.support.comparisons import make_comparison


def test_markdown_tables_keep_their_columns() -> None:
    heads, *rest = list(table.markdown(make_comparison(4)))
    rows = rest[1 : 1 + 5]
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", heads))
        assert not re.search(r"(?<!\\)<", row)
    assert "1,234" in rows[0]
    assert "3.21" in rows[0]


def test_terminal_tables_align_their_columns() -> None:
    comparison = make_comparison(4)
    lines = list(table.terminal(comparison))
    end = lines[0].index("images/s at 64") + len("images/s at 64")
    assert all(line[:end].endswith("1,234") for line in lines[1:5])
    assert printable(comparison.students[2].name) == "\\x1b[31mred"


def test_a_single_student_is_reported_in_lines() -> None:
    lines = list(table.single(make_comparison(1)))
    assert "1,000 images, top-1" in lines[0]
    assert "dropped: 3 as corrupt" in lines
    (weakest,) = [line for line in lines if line.startswith("weakest: ")]
    assert weakest.count("; ") == 2
    assert any(line.startswith("cost: 1.235 M parameters") for line in lines)
