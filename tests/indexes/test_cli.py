"""inspect, verify and query on real artifacts, and how errors reach a person."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import typer

from indexes.cli import user_errors
from tests.support import corpora
from tests.support.corpora import invoke, select, shards_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("world")
    corpora.good_tar(place / "c.tar", 30)
    assert select(place / "c.tar", place / "runs", "-n", "10").exit_code == 0
    return place / "runs"


def test_inspect_prints_the_funnel(runs: Path) -> None:
    code, text = invoke("inspect", shards_of(runs))
    assert code == 0
    assert "30 in" in text
    assert "10 kept" in text
    assert "kind: shards" in text
    code, text = invoke("inspect", runs / "teachers" / "t")
    assert code == 0
    assert "builder: indexes.zoo.cifar_resnet:resnet8" in text
    code, text = invoke("inspect", runs)
    assert code == 2
    assert "no whole artifact" in text


def test_verify_says_yes_and_no(runs: Path, tmp_path: Path) -> None:
    code, text = invoke("verify", shards_of(runs))
    assert code == 0
    assert "10 samples" in text
    code, text = invoke("verify", tmp_path)
    assert code == 2


def test_query_finds_the_image_itself(runs: Path, tmp_path: Path) -> None:
    image = tmp_path / "mine.jpg"
    image.write_bytes(corpora.encoded(17))
    code, text = invoke("query", image, "--runs", runs, "-k", 3)
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == str(image)
    similarity, key, part = lines[1].split()
    assert (key, part) == ("im00017", "(c.tar)")
    assert float(similarity) > 0.995
    assert len(lines) == 4
    image.write_bytes(b"rubbish")
    code, text = invoke("query", image, "--runs", runs)
    assert code == 2
    assert "mine.jpg" in text
    code, text = invoke("query", image, "--runs", tmp_path)
    assert code == 2
    assert "winnow select makes one" in text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a bad thing"), "error: a bad thing"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "the disk is full"),
        (FileNotFoundError(2, "No such file", "x.tar"), "x.tar"),
        (KeyboardInterrupt(), "run the same command again"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, user_errors():
        raise error
    assert caught.value.exit_code == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenPipeError), user_errors():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert not capsys.readouterr().err


def test_programming_errors_are_not_hidden() -> None:
    with pytest.raises(KeyError), user_errors():
        raise KeyError("ours")
