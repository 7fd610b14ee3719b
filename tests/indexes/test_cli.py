"""The commands `inspect`, `verify` and `search` work on real artifacts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import winnow
from indexes.command.describe import inspect
from tests.support import corpora
from tests.support.corpora import invoke, select, shards_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    corpora.good_tar(folder / "c.tar", 30)
    assert select(folder / "c.tar", folder / "runs", "-n", "10").exit_code == 0
    return folder / "runs"


def test_the_version_is_printed() -> None:
    assert invoke("--version") == (0, f"winnow {winnow.__version__}\n")


def test_inspect_prints_the_funnel(runs: Path) -> None:
    code, text = invoke("inspect", shards_of(runs))
    assert code == 0
    assert "30 in" in text
    assert "10 kept" in text
    assert text.startswith("kind ")
    code, text = invoke("inspect", runs / "teachers" / "t")
    assert code == 0
    assert "indexes.zoo.cifar_resnet:resnet8\n" in text
    code, text = invoke("inspect", runs)
    assert code == 3
    assert "not a finished artifact" in text


def test_verify_accepts_intact_and_reports_damaged_shards(runs: Path, tmp_path: Path) -> None:
    code, text = invoke("verify", shards_of(runs))
    assert code == 0
    assert "10 samples" in text
    code, text = invoke("verify", tmp_path)
    assert code == 3


def test_inspect_json_prints_the_card(runs: Path) -> None:
    code, text = invoke("inspect", shards_of(runs), "--json")
    assert code == 0
    assert json.loads(text) == inspect(shards_of(runs))
    code, text = invoke("verify", shards_of(runs), "--json")
    assert json.loads(text)["whole"] is True


def test_search_by_an_image_finds_that_image(runs: Path, tmp_path: Path) -> None:
    image = tmp_path / "mine.jpg"
    image.write_bytes(corpora.encoded(17))
    code, text = invoke("search", image, "--runs", runs, "-k", 3)
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == str(image)
    similarity, key, part = lines[1].split()
    assert (key, part) == ("im00017", "(c.tar)")
    assert float(similarity) > 0.995
    assert len(lines) == 4
    code, text = invoke("search", image, "--runs", runs, "-k", 3, "--json")
    assert json.loads(text)[str(image)][0]["key"] == "im00017"
    image.write_bytes(b"rubbish")
    code, text = invoke("search", image, "--runs", runs)
    assert code == 1
    assert "mine.jpg" in text
    code, text = invoke("search", image, "--runs", tmp_path)
    assert code == 3
    assert "winnow select makes one" in text
