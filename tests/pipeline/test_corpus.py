"""A corpus is a name, a Python file or a path; errors list the choices and the remedy."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from indexes.plugins import UnknownName, names
from indexes.sources.spec import SourceError
from pipeline.corpora import imagenet21k
from pipeline.corpus import Corpus, open_corpus, slug


def shard(path: Path, key: str = "a") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(f"{key}.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"jpg"))
    return str(path)


def keys(corpus: Corpus) -> list[str]:
    return [sample.key for part in corpus.parts for sample in part]


def test_a_path_is_a_corpus(tmp_path: Path) -> None:
    shard(tmp_path / "lake" / "0.tar", "x")
    shard(tmp_path / "lake" / "1.tar", "y")
    spec = f"{tmp_path}/lake/*.tar"
    corpus = open_corpus(spec)
    assert (corpus.name, corpus.spec) == ("lake", spec)
    assert keys(corpus) == ["x", "y"]


@pytest.mark.parametrize(
    "returned", ["SHARD", "[SHARD]", "[SHARD, SHARD]", "open_parts(SHARD)", "(s for s in [SHARD])"]
)
def test_a_python_file_is_a_corpus(tmp_path: Path, returned: str) -> None:
    tar = shard(tmp_path / "0.tar")
    file = tmp_path / "my_lake.py"
    file.write_text(
        f"from indexes.sources.spec import open_parts\nSHARD = {tar!r}\ndef corpus():\n"
        f"    return {returned}\n"
    )
    corpus = open_corpus(str(file))
    assert corpus.name == "my-lake"
    assert keys(corpus) == ["a"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1", "defines no function"),
        ("def corpus(): return []", "returns an empty list"),
        ("def corpus(): return ['a.tar', 1]", "a mix of"),
        ("def corpus(): return 'nowhere.tar'", "no such file"),
    ],
)
def test_a_faulty_python_file_is_explained(tmp_path: Path, body: str, message: str) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(body)
    with pytest.raises(SourceError, match=message):
        open_corpus(str(file))


def test_a_similar_folder_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownName, match=r"'photoz'\. Did you mean 'photos'\?.*imagenet21k"):
        open_corpus("photoz")


def test_unknown_names_list_the_corpora() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'imagenet21k'\?.*imagenet21k"):
        open_corpus("imagenet21")
    with pytest.raises(SourceError, match="imagenet21k"):
        open_corpus(" ")
    with pytest.raises(SourceError, match="no such file"):
        open_corpus("./imagenet21.tar")
    with pytest.raises(ValueError, match="no file"):
        open_corpus("nowhere/my.py")


@pytest.mark.parametrize("name", names("pipeline.corpora"))
def test_every_corpus_file_has_a_function(name: str) -> None:
    from indexes.plugins import find

    assert callable(find("pipeline.corpora", name).corpus)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("/data/lake/{00000..00012}.tar", "lake"),
        ("/data/cc12m-train-{000..999}.tar", "cc12m-train-000-999"),
        ("/data/fall11_whole.tar", "fall11-whole"),
        ("s3://bucket/laion/*.tar.gz", "laion"),
        ("https://host/a/b.tar?token=secret", "b"),
        ("./x/my_lake.py", "my-lake"),
        ("demo", "demo"),
        ("/", "corpus"),
        ("/Data/Bilder Meer/", "bilder-meer"),
        ("/" + "x" * 300, "x" * 48),
    ],
)
def test_specs_become_short_names(spec: str, name: str) -> None:
    assert slug(spec) == name
    assert re.fullmatch(r"[a-z0-9-]{1,48}", name)


def test_imagenet21k_opens_a_folder_or_a_tar_of_tars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGENET21K", raising=False)
    with pytest.raises(SourceError, match=r"(?s)IMAGENET21K is not set.*1\.31 TB"):
        open_corpus("imagenet21k")
    monkeypatch.setenv("IMAGENET21K", str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"(?s)no such file.*image-net\.org"):
        imagenet21k.corpus()
    for number, name in enumerate(["n01440764", "n01443537"]):
        shard(tmp_path / "in21k" / f"{name}.tar", f"{name}_{number}")
    monkeypatch.setenv("IMAGENET21K", str(tmp_path / "in21k"))
    corpus = open_corpus("imagenet21k")
    assert [part.name for part in corpus.parts] == ["n01440764.tar", "n01443537.tar"]
    assert (corpus.name, keys(corpus)) == ("imagenet21k", ["n01440764_0", "n01443537_1"])
    outer = tmp_path / "fall11_whole.tar"
    with tarfile.open(outer, "w") as archive:
        for part in sorted((tmp_path / "in21k").iterdir()):
            archive.add(part, part.name)
    monkeypatch.setenv("IMAGENET21K", str(outer))
    assert keys(open_corpus("imagenet21k")) == ["n01440764_0", "n01443537_1"]
