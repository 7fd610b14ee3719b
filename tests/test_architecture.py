"""The house's shape: which room may import which, one door to FAISS, a light --help."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("pipeline", "indexes", "distill")
FORBIDDEN = {
    "pipeline": {"distill"},
    "distill": {"pipeline"},
    "indexes": {"pipeline", "distill"},
}
HEAVY = {
    "torch", "torchvision", "faiss", "webdataset", "pyarrow", "open_clip", "timm", "pandas",
    "PIL", "simplejpeg", "fsspec", "safetensors", "onnx", "onnxruntime", "onnxscript",
}  # fmt: skip
COMMANDS = ["demo", "select", "generate", "search", "corpora", "distill", "targets", "evaluate",
            "train-teacher", "import-teacher", "students", "methods", "export", "inspect",
            "verify"]  # fmt: skip


def files() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def imported(tree: ast.Module, *, module_level: bool = False) -> Iterator[str]:
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("path", list(files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_and_doors(path: Path) -> None:
    tree = ast.parse(path.read_text())
    room = path.relative_to(ROOT).parts[0]
    tops = {name.split(".")[0] for name in imported(tree)}
    assert not tops & FORBIDDEN[room], f"{path} imports a room that it must not know"
    if path != ROOT / "indexes" / "vectors" / "index.py":
        assert "faiss" not in tops, "FAISS has one door: indexes/vectors/index.py"
    is_light = room == "indexes" and path.parent.name != "zoo"
    if is_light or path.stem.split("_")[0] == "cli":
        light = {name.split(".")[0] for name in imported(tree, module_level=True)}
        assert not light & HEAVY, "heavy imports belong inside functions here"
    assert ast.get_docstring(tree), "a file says what it is in its first line"
    assert path.read_text().isascii()


@pytest.mark.parametrize("path", list(files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_on_disk_is_unpickled(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not {"pickle", "shelve", "dill", "joblib"} & set(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            name = ast.unparse(node.func)
            assert given.get("allow_pickle", "False") == "False"
            if name == "np.load":
                assert "allow_pickle" in given, "say allow_pickle=False"
            if name == "torch.load":
                assert given.get("weights_only") == "True"


def test_the_arrow_test_can_fail() -> None:
    tree = ast.parse("def f():\n    import pipeline.pool\n")
    assert {name.split(".")[0] for name in imported(tree)} & FORBIDDEN["distill"]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_ours(room: str) -> None:
    found = importlib.import_module(room).__file__
    assert found is not None
    assert Path(found).parent == ROOT / room, f"another distribution's {room!r} is in the way"


def loaded(code: str) -> tuple[str, set[str]]:
    """What `code` prints in a fresh interpreter, and the top-level modules there after it."""
    report = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    printed, _, modules = result.stdout.rstrip().rpartition("\n")
    return printed, set(modules.split())


def help_of(*command: str) -> tuple[str, set[str]]:
    code = "import contextlib, winnow\nwith contextlib.suppress(SystemExit):\n    winnow.app({})"
    return loaded(code.format([*command, "--help"]))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light_and_teaches(command: str) -> None:
    text, modules = help_of(command)
    assert len(text) > 100
    assert not modules & HEAVY, "heavy imports belong inside functions"


def test_every_command_is_listed() -> None:
    text, modules = help_of()
    assert not modules & HEAVY
    for command in COMMANDS:
        assert command in text


def test_the_packages_import_nothing_heavy() -> None:
    code = """
import time
begin = time.process_time()
import distill, indexes, pipeline
assert time.process_time() - begin < 0.5
"""
    _, modules = loaded(code)
    assert not modules & (HEAVY | {"numpy"})


def test_lock_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--hash=sha256:" in text
