"""Words and phrases that no help text, message, docstring or page may contain."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = sorted(
    file
    for pattern in ("indexes/**/*.py", "pipeline/**/*.py", "distill/**/*.py", "winnow*.py",
                    "benchmarks/**/*.py", "examples/**/*.py", "docs/**/*.py", "tests/**/*.py")
    for file in ROOT.glob(pattern)
    if file != Path(__file__)
)  # fmt: skip
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WORDS = {
    r"\btold\b": "say reported",
    r"\basked along\b": "name what is computed online",
    r"\bwhichever of\b": "say which of the two",
    r"(?:^|[.!?:]\s+|\n\s*\n\s*|\n[-*|] )(?:Of|To)\s": "start with the subject",
    r"\b[Dd]istil(?:s|ler|ling)?\b(?!l)": "American: distill, distills",
    r"\b\w*(?:artefact|colour|neighbour|behaviour|favour|labell|centre[ds]?\b|grey)\w*": "American",
    r"\b\w*(?:normalis|optimis|quantis|initialis|organis|recognis|summaris|minimis|maximis)\w*":
        "American: -ize",
    r"\b(?:unlearnt|learnt|sureness|surest|likeness|standings|handful|whereabouts)\b":
        "the field's word (docs/glossary.md)",
    r"\b(?:painted|painting|paints)\b": "generated",
    r"\bwho leaves\b|\bcomes to the same\b|\bis nothing\b|\bsays nothing\b": "say it plainly",
}  # fmt: skip


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of a page, or of the strings and comments of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        if path == ROOT / "CHANGELOG.md":  # The changelog lists old names in code font.
            text = re.sub(r"`[^`\n]*`", "``", text)
        yield 1, text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_contains_a_forbidden_phrase(path: Path) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line + text[: match.start()].count(chr(10))} "
        f"{match[0].strip()!r}: {mend}"
        for line, text in prose_of(path)
        for pattern, mend in WORDS.items()
        for match in re.finditer(pattern, text)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_call_the_reconstructions_by_their_style(path: Path) -> None:
    if path.name in {"CHANGELOG.md", "LOG.md"}:
        return
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for name, style in (("`odsd`", "ODSD-style"), ("`eikd`", "EIKD-style")):
        assert not [row for row in rows if name in row and style not in row]
