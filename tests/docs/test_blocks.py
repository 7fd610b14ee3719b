"""Every command and every program in the README and the pages runs, in order, on small data."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from distill.evaluation import cost
from tests.support.pages import MAIN_JOB, Block, Page, blocks_of, draw_world, pages
from tests.support.tree import ROOT

FRESH = ("README.md", "docs/quickstart.md")
"""Pages that start from nothing but the data; the others start after the main job."""
PAGES = [page for page in pages() if page.exists() and blocks_of(page.read_text("utf-8"))]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Whether the main job has been done -> a folder to start from."""
    fresh, done = tmp_path_factory.mktemp("fresh"), tmp_path_factory.mktemp("done")
    for folder in (fresh, done):
        draw_world(folder)
    with contextlib.chdir(done):
        assert not Page(done).run(Block("sh", MAIN_JOB, 1, None))
    return {False: fresh, True: done}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(
    page: Path, worlds: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "RUN_SECONDS", 0.001)
    folder = tmp_path / "world"
    done = str(page.relative_to(ROOT)) not in FRESH
    shutil.copytree(worlds[done], folder)
    monkeypatch.chdir(folder)
    reader = Page(folder)
    for block in blocks_of(page.read_text(encoding="utf-8")):
        failure = reader.run(block) if block.reason is None else ""
        assert not failure


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    reasons = [block.reason for block in blocks_of(text) if block.reason is not None]
    assert all(len(reason.split()) > 1 for reason in reasons)
    assert text.count("<!-- not run: ") == len(reasons)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/extend").glob("[!i]*.md")), ids=lambda p: p.stem
)
def test_a_kind_of_plug_in_is_explained_in_forty_lines(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 40


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
