"""The messages of errors and warnings in the source code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.tree import ROOT, files

ERROR = re.compile(r"(Error|^BadImage|^BadSetting|^UnknownName|^Damage|^DamagedPart)$")
PLACEHOLDER = re.compile(r"%[-0-9,.]*[a-z]")
HOLE = "..."


class Message(NamedTuple):
    """A message: `template` is its text, with `...` for values; `where` is the file and line."""

    template: str
    where: str


def messages() -> list[Message]:
    """Return every message of an error or a warning in the three packages and `winnow*.py`."""
    return [
        Message(template, f"{path.relative_to(ROOT)}:{line}")
        for path in source_files()
        for template, line in _templates(ast.parse(path.read_text(encoding="utf-8")))
    ]


def source_files() -> list[Path]:
    """Return the files whose messages a user can see."""
    return [*files(), *sorted(ROOT.glob("winnow*.py"))]


def _templates(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _makes_message(node.func):
            for argument in node.args:
                template = _template(argument)
                if re.search(r"[a-z]{2,} [a-z]", template):
                    yield template, node.lineno


def _makes_message(function: ast.expr) -> bool:
    """Return whether a call of `function` makes an error or logs a warning."""
    match function:
        case ast.Attribute(ast.Name("log" | "logger"), "warning" | "error"):
            return True
        case ast.Attribute(_, name) | ast.Name(name):
            return bool(ERROR.search(name))
    return False


def _template(node: ast.expr) -> str:
    match node:
        case ast.Constant(str(text)):
            return PLACEHOLDER.sub(HOLE, text)
        case ast.JoinedStr(parts):
            pieces = [part.value if isinstance(part, ast.Constant) else HOLE for part in parts]
            return "".join(str(piece) for piece in pieces)
        case ast.BinOp(left, ast.Add(), right):
            return (_template(left) or HOLE) + (_template(right) or HOLE)
    return ""
