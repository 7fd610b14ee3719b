"""The architecture: allowed imports, no import cycles, small files, a fast --help."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from indexes.models.net import build_net
from indexes.models.teacher import save_teacher
from tests.support import corpora
from tests.support.tree import PACKAGES, ROOT, files

FORBIDDEN = {
    "pipeline": {"distill"},
    "distill": {"pipeline"},
    "indexes": {"pipeline", "distill"},
}
FOLDERS = sorted(
    folder for package in PACKAGES for folder in (ROOT / package).rglob("") if folder.is_dir()
    and list(folder.glob("*.py"))
)  # fmt: skip
HEAVY = {
    "torch", "torchvision", "faiss", "webdataset", "pyarrow", "open_clip", "timm", "pandas",
    "PIL", "simplejpeg", "fsspec", "safetensors", "onnx", "onnxruntime", "onnxscript",
}  # fmt: skip
COMMANDS = ["demo", "select", "generate", "search", "corpora", "distill", "targets", "evaluate",
            "train-teacher", "import-teacher", "students", "methods", "export", "inspect",
            "verify"]  # fmt: skip


def imported(tree: ast.Module, *, module_level: bool = False) -> Iterator[str]:
    """Yield the modules that a file imports, and `module.name` for each imported name."""
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_what_they_may(path: Path) -> None:
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).parts[0]
    tops = {name.split(".")[0] for name in imported(tree)}
    assert not tops & FORBIDDEN[package], f"{path} imports a forbidden package"
    if path != ROOT / "indexes" / "vectors" / "index.py":
        assert "faiss" not in tops, "only indexes/vectors/index.py imports FAISS"
    is_light = package == "indexes" and path.parent.name != "zoo"
    if is_light or path.stem.split("_")[0] == "cli":
        light = {name.split(".")[0] for name in imported(tree, module_level=True)}
        assert not light & HEAVY, "heavy imports belong in functions"
    assert ast.get_docstring(tree), "every file begins with a docstring"
    assert path.read_text().isascii()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_unpickled(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not {"pickle", "shelve", "dill", "joblib"} & set(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            name = ast.unparse(node.func)
            assert keywords.get("allow_pickle", "False") == "False"
            if name == "np.load":
                assert "allow_pickle" in keywords, "set allow_pickle=False"
            if name == "torch.load":
                assert keywords.get("weights_only") == "True"


def find_cycle(edges: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a cycle, the first one repeated at the end; empty if there is none."""
    finished: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in finished:
            for target in sorted(edges.get(node, ())):
                if cycle := visit(target, [*path, node]):
                    return cycle
            finished.add(node)
        return []

    for node in edges:
        if cycle := visit(node, []):
            return cycle
    return []


def test_no_files_import_each_other_in_a_cycle() -> None:
    """Count imports in functions and for type checkers, but not the exports of a package."""
    modules = {module_of(path): path for path in files() if path.name != "__init__.py"}
    edges = {
        module: set(imported(ast.parse(path.read_text()))) & modules.keys() - {module}
        for module, path in modules.items()
    }
    assert sum(map(len, edges.values())) > 100
    assert find_cycle(edges) == []
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_are_small(folder: Path) -> None:
    names = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(names) <= 16, "a folder has at most 16 files"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_functions_and_signatures_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            location = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            num_lines = (node.end_lineno or 0) - node.lineno + 1
            assert num_lines <= 60 or location.endswith(" train"), f"{location}: {num_lines} lines"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [argument.arg for argument in arguments if argument.arg != "self"]
            assert len(names) <= 10, f"{location}: {len(names)} parameters"


def test_a_forbidden_import_is_detected() -> None:
    tree = ast.parse("def f():\n    import pipeline.pool\n")
    assert {name.split(".")[0] for name in imported(tree)} & FORBIDDEN["distill"]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_come_from_this_repository(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file).parent == ROOT / package, (
        f"another distribution also has a package {package!r}"
    )


def run_and_list_modules(code: str) -> tuple[str, set[str]]:
    """Run `code` in a new interpreter; return its output and the loaded top-level modules."""
    report = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    printed, _, modules = result.stdout.rstrip().rpartition("\n")
    return printed, set(modules.split())


IMPORT_ALL = """
import importlib, pkgutil
package = importlib.import_module({!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_forbidden_packages_are_not_loaded_at_run_time(package: str) -> None:
    _, modules = run_and_list_modules(IMPORT_ALL.format(package))
    assert package in modules
    assert not modules & FORBIDDEN[package]


@pytest.mark.slow
def test_a_selection_does_not_load_distill(tmp_path: Path) -> None:
    """The card of the teacher uses an earlier name of its net, from the package `distill`."""
    torch.manual_seed(0)
    net = build_net("resnet8", num_classes=len(corpora.CLASSES))
    net.builder = "distill.students.cifar_resnet:resnet8"
    teacher = tmp_path / "runs" / "teachers" / "t"
    save_teacher(teacher, net, classes=corpora.CLASSES, input_size=32)
    corpora.good_tar(tmp_path / "c.tar", 12)
    printed, modules = run_and_list_modules(f"""
from pipeline import SelectConfig, select
shards = select(
    SelectConfig(corpus="{tmp_path / "c.tar"}", runs="{tmp_path / "runs"}", n=6, workers=0)
)
print(len(shards))
""")
    assert printed == "6"
    assert "pipeline" in modules
    assert "distill" not in modules


def help_of(*command: str) -> tuple[str, set[str]]:
    code = "import contextlib, winnow\nwith contextlib.suppress(SystemExit):\n    winnow.app({})"
    return run_and_list_modules(code.format([*command, "--help"]))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_fast_and_complete(command: str) -> None:
    text, modules = help_of(command)
    assert len(text) > 100
    assert not modules & HEAVY, "--help may not import a heavy package"


def test_every_command_is_listed() -> None:
    text, modules = help_of()
    assert not modules & HEAVY
    for command in COMMANDS:
        assert command in text


def test_the_packages_load_no_heavy_package() -> None:
    code = """
import time
begin = time.process_time()
import distill, indexes, pipeline
assert time.process_time() - begin < 0.5
"""
    _, modules = run_and_list_modules(code)
    assert not modules & (HEAVY | {"numpy"})


def test_the_lock_file_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--hash=sha256:" in text
