"""A small pool, lost original and evaluation set; `winnow` runs in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import winnow
from benchmarks import contest
from tests.support import corpora


@pytest.fixture
def tiny_world(tmp_path: Path) -> Path:
    corpora.good_tar(tmp_path / "pool.tar", 60)
    corpora.good_tar(tmp_path / "lost.tar", 40, first=1000)
    corpora.small_teacher(tmp_path / "runs" / "teachers" / "t")
    labeled = [
        (f"{seed}.{ext}", data)
        for seed in range(9)
        for ext, data in (("jpg", corpora.encoded(seed)), ("cls", str(seed % 3).encode()))
    ]
    corpora.tar_of(tmp_path / "test.tar", labeled)
    return tmp_path


def tiny_words(directory: Path) -> str:
    return (
        f"--runs {directory}/runs --teacher t --corpus {directory}/pool.tar --n 30 --seeds 1 "
        f"--original {directory}/lost.tar --eval {directory}/test.tar --student resnet8 --steps 1 "
        f"--out {directory}/out.json"
    )


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the commands that the benchmark calls, in order."""
    names: list[str] = []

    def in_process(_: object, *words: object) -> str:
        names.append(str(words[0]))
        result = CliRunner().invoke(
            winnow.app, [str(word) for word in words], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    monkeypatch.setattr(contest, "winnow", in_process)
    return names
