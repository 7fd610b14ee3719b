"""Sources: every form of a corpus opens, and errors name the remedy."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.sources.spec import SourceError, open_labeled, open_parts
from tests.support.lakes import damaged, files, hub, only, put, tar


def test_archives_take_precedence_over_images_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "b" / "1.tar", tar(files(1)))
    put(tmp_path / "b" / "preview.jpg", b"x")
    put(tmp_path / "b" / "1.parquet", b"side-car")
    assert [part.name for part in open_parts(str(tmp_path / "b"))] == ["1.tar"]
    put(tmp_path / "deep" / "data" / "2.tar", tar(files(1)))
    assert [part.name for part in open_parts(str(tmp_path / "deep"))] == ["2.tar"]


def test_lists_globs_and_braces_are_expanded(tmp_path: Path) -> None:
    for name in ("a-0", "a-1", "b-0"):
        put(tmp_path / f"{name}.tar", tar(files(1)))
    root = str(tmp_path)
    for spec, expected in [
        (f"{root}/*.tar", "a-0 a-1 b-0"),
        (f"{root}/a-{{0..1}}.tar", "a-0 a-1"),
        (f"{root}/{{b,a}}-0.tar", "b-0 a-0"),
        (f"{root}/b-0.tar,{root}/a-*.tar", "b-0 a-0 a-1"),
        (f"{root}/b-0.tar {root}/a-0.tar\n{root}/b-0.tar", "b-0 a-0"),
        (f"file://{root}/b-0.tar", "b-0"),
        (root, "a-0 a-1 b-0"),
    ]:
        assert [part.name.removesuffix(".tar") for part in open_parts(spec)] == expected.split()
    odd = put(tmp_path / "with space, {0..1} [x].tar", tar(files(2)))
    assert len(list(only(odd))) == 2


@pytest.fixture
def memory() -> Iterator[str]:
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield "memory://lake"
    system.store.clear()


def test_urls_are_opened(memory: str, tmp_path: Path) -> None:
    import fsspec

    content = files(4)
    table = Path(hub(tmp_path / "t.parquet")).read_bytes()
    for name, data in {
        "s/0.tar": tar(content),
        "s/1.tar": tar(content)[:2000],
        "g.tar.gz": gzip.compress(tar(content)),
        "t.parquet": table,
        "tree/cats/a.jpg": b"cat",
        "tree/dogs/b.png": b"dog",
        "nested.tar": tar([("n.tar", tar(content))]),
    }.items():
        with fsspec.open(f"{memory}/{name}", "wb") as file:
            file.write(data)
    intact, cut = open_parts(f"{memory}/s/*.tar")
    assert [s.data for s in intact] == [data for _, data in content]
    assert not intact.random_access
    assert damaged(cut)
    assert [part.name for part in open_parts(f"{memory}/s/{{0,1}}.tar")] == ["0.tar", "1.tar"]
    assert [part.name for part in open_parts(f"{memory}/s")] == ["0.tar", "1.tar"]
    assert len(list(only(f"{memory}/g.tar.gz"))) == 4
    assert len(list(only(f"{memory}/t.parquet"))) == 5
    cats, dogs = open_parts(f"{memory}/tree")
    assert [(s.key, s.data, s.extras["cls"]) for s in dogs] == [("dogs/b", b"dog", b"dogs")]
    assert cats.fetch("x", 0, 3) == b"cat"
    with pytest.raises(SourceError, match="uncompressed"):
        list(only(f"{memory}/nested.tar"))
    assert "no such file" in damaged(only(f"{memory}/none.tar"))[1]
    before = [part.fingerprint() for part in (intact, cats)]
    for name in ("s/0.tar", "tree/cats/a.jpg"):
        with fsspec.open(f"{memory}/{name}", "wb") as file:
            file.write(b"other")
    assert all(a != part.fingerprint() for a, part in zip(before, (intact, cats), strict=True))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no image source"),
        ("pipe:cat /etc/passwd", "no shell command"),
        ("a.tar,pipe:ls", "no such file|no shell command"),
        ("{root}/shard.tar", r"Did you mean .*shards\.tar"),
        ("{root}/none/x.tar", "no folder"),
        ("{root}/*.nothing", "no file matches"),
        ("{root}/empty", "holds no tar"),
        ("{root}/x.zip", "not a supported source"),
        ("{root}/{{0..1", "range"),
        ("nosuch://a/b.tar.gz", "cannot be read"),
    ],
)
def test_a_bad_spec_is_explained(tmp_path: Path, spec: str, message: str) -> None:
    put(tmp_path / "shards.tar", tar(files(1)))
    put(tmp_path / "x.zip", b"PK")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=message):
        list(open_parts(spec.replace("{root}", str(tmp_path)).replace("{{", "{"))[0])


def test_names_are_unique_and_relative(tmp_path: Path) -> None:
    for name in ("a/x/0.tar", "b/x/0.tar", "b/1.tar"):
        put(tmp_path / name, tar(files(1)))
    names = [part.name for part in open_parts(f"{tmp_path}/**/*.tar")]
    assert names == ["a/x/0.tar", "1.tar", "b/x/0.tar"]


def test_labels_are_read(tmp_path: Path) -> None:
    classes = ("cat", "dog", "3", "owl")
    for name, value, expected in [
        ("cls", b"dog", 1),
        ("cls", b" 0\n", 0),
        ("cls", b"3", 2),
        ("json", b'{"label": 3}', 2),
        ("json", b'{"cls": "owl"}', 3),
    ]:
        spec = put(tmp_path / "x.tar", tar([("a.jpg", b"x"), (f"a.{name}", value)]))
        assert [(s.key, label) for s, label in open_labeled(spec, classes)] == [("a", expected)]
    put(tmp_path / "tree" / "owl" / "1.jpg", b"x")
    assert [label for _, label in open_labeled(str(tmp_path / "tree"), classes)] == [3]
    table = hub(tmp_path / "t.parquet", 3)
    assert [label for _, label in open_labeled(table, ("a", "b", "c"))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("a.cls", b"dgo"), "Did you mean 'dog'"),
        (("a.cls", b"2"), "neither one of the 2 class names"),
        (("a.cls", b"-1"), "neither one of the 2 class names"),
        (("a.txt", b"dog"), "has no label"),
        (("a.json", b"{"), "not valid JSON"),
        (("a.json", b"[1]"), "has no label"),
        (("b.cls", b"1"), "no label"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, extra: tuple[str, bytes], message: str) -> None:
    spec = put(tmp_path / "x.tar", tar([("a.jpg", b"x"), extra]))
    with pytest.raises(SourceError, match=message):
        list(open_labeled(spec, ("cat", "dog")))


def test_a_labeled_set_has_an_image_for_every_key(tmp_path: Path) -> None:
    spec = put(tmp_path / "x.tar", tar([("a.cls", b"1")]))
    with pytest.raises(SourceError, match="no image"):
        list(open_labeled(spec, ("cat", "dog")))


def test_a_name_of_two_classes_needs_an_index(tmp_path: Path) -> None:
    classes = ("crane", "dog", "crane")
    spec = put(tmp_path / "i.tar", tar([("a.jpg", b"x"), ("a.cls", b"2")]))
    assert [label for _, label in open_labeled(spec, classes)] == [2]
    spec = put(tmp_path / "n.tar", tar([("a.jpg", b"x"), ("a.cls", b"crane")]))
    with pytest.raises(SourceError, match="neither one of the 3 class names"):
        list(open_labeled(spec, classes))
