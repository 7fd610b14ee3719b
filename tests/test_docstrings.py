"""Docstrings give shapes, errors, a source and an example, and their examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import distill
import indexes
import pipeline
from tests.support.tree import PACKAGES, ROOT, files

ARRAY = re.compile(r"\b(Tensor|NDArray|ndarray)\b")
SHAPE = re.compile(r"\[[A-Z0-9][\w ,.*+/-]*\]|\bscalar\b", re.IGNORECASE)
SOURCE = re.compile(r"\b(SOURCE|DERIVED|REC|OURS)\b|arXiv")
FORMULAS = (
    "distill/losses", "distill/methods", "pipeline/methods", "pipeline/scores",
    "pipeline/weighting", "pipeline/generators",
)  # fmt: skip
DOOR = {
    f"{package.__name__}.{name}" for package in (indexes, pipeline, distill)
    for name in package.__all__
}  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Yield the public functions of a file and the public methods of its public classes."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            members = [(f"{node.name}.{m.name}", m) for m in node.body if isinstance(m, Function)]
        else:
            members = [(node.name, node)] if isinstance(node, Function) else []
        for name, function in members:
            if not function.name.startswith("_") and not is_overload(function):
                yield name, function


def is_overload(function: Function) -> bool:
    return any("overload" in ast.unparse(mark) for mark in function.decorator_list)


def takes_arrays(function: Function) -> bool:
    arguments = function.args
    annotated = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    hints = [a.annotation for a in annotated if a.annotation] + [function.returns]
    return any(ARRAY.search(ast.unparse(hint)) for hint in hints if hint)


def raised(function: Function) -> set[str]:
    """Return the errors that a function raises itself, without NotImplementedError."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if name[0].isupper() and name != "NotImplementedError":
                names.add(name)
    return names


def lacks(path: Path, name: str, function: Function) -> list[str]:
    text = ast.get_docstring(function)
    if text is None:
        return ["a docstring"]
    missing = []
    if takes_arrays(function) and not SHAPE.search(text):
        missing.append("a shape such as [B, C]")
    missing += [f"Raises {error}" for error in sorted(raised(function)) if error not in text]
    formula = any(str(path.relative_to(ROOT)).startswith(folder) for folder in FORMULAS)
    if formula and takes_arrays(function) and not SOURCE.search(text):
        missing.append("a source (SOURCE, DERIVED, REC, OURS or arXiv)")
    door = f"{path.relative_to(ROOT).parts[0]}.{name}"
    if door in DOOR and "Example" not in text:
        missing.append("an Example")
    return missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_documents_shapes_errors_and_source(package: str) -> None:
    gaps = [
        f"{path.relative_to(ROOT)}:{function.lineno} {name} lacks {', '.join(missing)}"
        for path in files(package)
        for name, function in functions(path)
        if (missing := lacks(path, name, function))
    ]
    assert not gaps, "\n".join(gaps)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_examples_in_docstrings_run(package: str) -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for path in files(package):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
            for case in finder.find(module):
                runner.run(case)
    assert runner.tries > 0
    assert runner.failures == 0
