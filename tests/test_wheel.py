"""The wheel runs outside the repository, unpacked to another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import corpora

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "winnow.py", "winnow_demo.py")
PACKAGES = ("pipeline", "indexes", "distill")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel into a folder, as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, cwd: Path, *arguments: str) -> str:
    """Run a command of the unpacked wheel and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True, text=True, check=False, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "100"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_wheel_runs_outside_the_repository(site: Path, tmp_path: Path) -> None:
    files = run(site, tmp_path, "-c", "import distill, winnow; print(distill.__file__)")
    assert files.startswith(str(site))
    assert {(site / package / "py.typed").is_file() for package in PACKAGES} == {True}
    assert "Students to train per cell" in run(site, tmp_path, "-m", "winnow", "demo", "--help")
    assert "imagenet21k" in run(site, tmp_path, "-m", "winnow", "corpora")
    assert "--preset" in run(site, tmp_path, "-m", "winnow", "methods", "kd3")
    corpora.good_tar(tmp_path / "c.tar", 12)
    corpora.small_teacher(tmp_path / "runs" / "teachers" / "t")
    text = run(
        site, tmp_path, "-m", "winnow", "select", "--corpus", "c.tar", "-n", "6", "--workers", "0"
    )
    assert "6 images" in text
