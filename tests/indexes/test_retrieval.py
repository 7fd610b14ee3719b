"""Search by image and by text: the matches, their contact sheet, and refused queries."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import winnow
from indexes import artifact
from indexes.images.decode import load_view
from indexes.retrieval import EmbeddedCorpus, latest_index
from indexes.sources import locations
from indexes.sources.sample import SourceError
from indexes.sources.spec import open_parts
from tests.support import corpora
from tests.support.clip import TINY_CLIP, make_clip
from tests.support.corpora import select


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(
        winnow.app, [str(argument) for argument in arguments], catch_exceptions=False
    )
    return result.exit_code, result.output


def folder_of_images(directory: Path, numbers: range) -> None:
    directory.mkdir(parents=True)
    for number in numbers:
        (directory / f"im{number}.jpg").write_bytes(corpora.encoded(number))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed a tar, a gzipped tar and folders with a teacher and a tower of random weights."""
    directory = tmp_path_factory.mktemp("world")
    make_clip(directory)
    corpora.good_tar(directory / "a.tar", 12)
    corpora.good_tar(directory / "b.tar.gz", 12, first=100)
    folder_of_images(directory / "tree" / "one", range(200, 206))
    folder_of_images(directory / "tree" / "two", range(300, 306))
    result = select(
        f"{directory / 'a.tar'} {directory / 'b.tar.gz'} {directory / 'tree'}", directory / "runs",
        "-n", "6", "--method", "all", "--tower", f"{TINY_CLIP}:{directory / 'clip.safetensors'}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return directory


@pytest.mark.parametrize("number", [3, 105, 203, 304])
def test_a_sheet_shows_the_images_themselves(world: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "mine.jpg").write_bytes(corpora.encoded(number))
    sheet = tmp_path / "out.png"
    code, text = invoke(
        "search", tmp_path / "mine.jpg", "--runs", world / "runs", "-k", 12, "--sheet", sheet
    )
    assert code == 0, text
    assert f"im{number:05d} " in text or f"im{number} " in text
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 * 198 + 8, 11 * 168 + 8, 3), (
        "two rows of ten images next to the query"
    )
    query, result = pixels[8:168, 8:168], pixels[8:168, 176:336]
    np.testing.assert_array_equal(query, result)
    expected = load_view(corpora.encoded(number), _geometry())[0]
    np.testing.assert_array_equal(result, expected)


def _geometry() -> object:
    from indexes.images.decode import Geometry

    return Geometry(160, 1.0, "bicubic")


def test_text_queries_use_the_tower(world: Path, tmp_path: Path) -> None:
    import open_clip

    sheet = tmp_path / "out.jpg"
    code, text = invoke(
        "search", "--text", "a red thing", "--text", "caf\u00e9", "--runs", world / "runs",
        "-k", 4, "--sheet", sheet,
    )  # fmt: skip
    assert code == 0, text
    lines = text.splitlines()
    assert lines[0] == "a red thing"
    assert len(lines) == 11
    corpus = EmbeddedCorpus(latest_index(world / "runs", "tower"), world / "runs")
    model = open_clip.create_model(TINY_CLIP, pretrained=str(world / "clip.safetensors")).eval()
    tokens = open_clip.get_tokenizer(TINY_CLIP)(["a red thing"])
    query = model.encode_text(tokens, normalize=True).detach().numpy()[0]
    tower = np.concatenate([b.matrix("tower") for b in corpus.embedded.blocks]).astype(np.float32)
    best = np.sort(tower @ query / np.linalg.norm(tower, axis=1))[::-1]
    similarities = [float(line.split()[0]) for line in lines[1:5]]
    np.testing.assert_allclose(similarities, best[:4], atol=2e-3)
    with Image.open(sheet) as image:
        assert image.format == "JPEG"


def test_impossible_queries_are_refused(world: Path, tmp_path: Path) -> None:
    runs = world / "runs"
    image = tmp_path / "mine.jpg"
    image.write_bytes(corpora.encoded(3))
    for arguments, message in [
        ([], "and not both"),
        ([image, "--text", "x"], "and not both"),
        ([image, "--sheet", "x.gif"], ".jpg, .jpeg, .png"),
        ([image, "--index", latest_index(runs, "tower")], "--text"),
        (["--text", "x", "--index", latest_index(runs, "features")], "with an image"),
    ]:
        code, text = invoke("search", *arguments, "--runs", runs)
        assert (code, message in text) == (1, True), text
    corpora.good_tar(tmp_path / "c.tar", 8)
    assert select(tmp_path / "c.tar", tmp_path / "runs", "-n", "4").exit_code == 0
    code, text = invoke("search", "--text", "x", "--runs", tmp_path / "runs")
    assert code == 3
    assert "winnow select with --tower makes one" in text


def test_a_changed_or_missing_corpus_is_named(world: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(world / "runs", runs)
    copy = tmp_path / "a.tar"
    shutil.copy(world / "a.tar", copy)
    shutil.copytree(world / "tree", tmp_path / "tree")
    corpus = EmbeddedCorpus(latest_index(runs, "features"), runs)
    name = corpus.embedded.directory.name
    parts = open_parts(f"{copy} {world / 'b.tar.gz'} {tmp_path / 'tree'}")
    locations.save(runs, name, parts, None)
    rows = list(range(len(corpus.embedded)))
    assert {artifact.hash64(data) for data in corpus.originals(rows).values()} == {
        artifact.hash64(corpora.encoded(n))
        for n in (*range(12), *range(100, 112), *range(200, 206), *range(300, 306))
    }
    corpora.good_tar(copy, 12, first=50)
    with pytest.raises(SourceError, match="has changed since it was embedded"):
        corpus.originals([0])
    (tmp_path / "tree" / "one" / "im200.jpg").unlink()
    with pytest.raises(SourceError, match="have changed since the embedding"):
        corpus.originals([24])
    with pytest.raises(SourceError, match="the tower of"):
        locations.open_tower(runs, name)
    (runs / "locations" / f"{name}.json").unlink()
    with pytest.raises(SourceError, match="is missing"):
        corpus.originals([0])


def test_a_query_needs_the_tower_of_the_embedding(world: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(world / "runs", runs)
    replacement = tmp_path / "clip.safetensors"
    replacement.write_bytes(gzip.compress((world / "clip.safetensors").read_bytes()))
    corpus = EmbeddedCorpus(latest_index(runs, "tower"), runs)
    locations.save(runs, corpus.embedded.directory.name, [], f"{TINY_CLIP}:{replacement}")
    code, text = invoke("search", "--text", "x", "--runs", runs)
    assert code == 1
    assert "is not the CLIP tower" in text
