"""sources: every form of a corpus opens; errors say what to do."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.sources.sample import plain_key, unique_names
from indexes.sources.spec import SourceError, open_parts
from tests.support.lakes import damaged, files, hub, only, put, tar


def test_a_folder_tree(tmp_path: Path) -> None:
    for name in ("dogs/a.v1.JPG", "cats/deep/b.png", "cats/c.webp", "loose.gif", ".hidden/x.jpg",
                 "cats/notes.txt", "cats/.d.jpg"):  # fmt: skip
        put(tmp_path / "tree" / name, name.encode())
    (tmp_path / "tree" / "dogs" / "again").symlink_to(tmp_path / "tree")
    found = open_parts(str(tmp_path / "tree") + "/")
    assert [part.name for part in found] == ["tree", "cats", "dogs"]
    samples = [sample for part in found for sample in part]
    assert [(s.key, s.ext, s.extras["cls"]) for s in samples][:4] == [
        ("loose", "gif", b"tree"), ("cats/c", "webp", b"cats"), ("cats/deep/b", "png", b"deep"),
        ("dogs/a_v1", "jpg", b"dogs"),
    ]  # fmt: skip
    cats = found[1]
    assert [cats.fetch("", s.offset, len(s.data)) for s in cats] == [s.data for s in cats]
    with pytest.raises(SourceError, match="any more"):
        cats.fetch("", 0, 10**6)


def test_large_folders_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.sources.folder.MAX_FILES", 3)
    for number in range(7):
        put(tmp_path / "cats" / f"{number}.jpg", b"x")
    found = open_parts(str(tmp_path))
    assert [part.name for part in found] == ["00000", "00001", "00002"]
    assert [s.key for part in found for s in part] == [f"cats/{n}" for n in range(7)]
    before = [part.fingerprint() for part in found]
    put(tmp_path / "cats" / "5.jpg", b"changed")
    changed = [part.fingerprint() for part in open_parts(str(tmp_path))]
    assert [a == b for a, b in zip(before, changed, strict=True)] == [True, False, True]


def test_a_file_gone_from_a_folder_costs_only_itself(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / f"{number}.jpg", b"x")
    part = only(str(tmp_path))
    (tmp_path / "2.jpg").unlink()
    found, message = damaged(part)
    assert [sample.key for sample in found] == ["0", "1", "3", "4"]
    assert "1 of 5" in message


def test_archives_win_over_images_beside_them(tmp_path: Path) -> None:
    put(tmp_path / "b" / "1.tar", tar(files(1)))
    put(tmp_path / "b" / "preview.jpg", b"x")
    put(tmp_path / "b" / "1.parquet", b"side-car")
    assert [part.name for part in open_parts(str(tmp_path / "b"))] == ["1.tar"]
    put(tmp_path / "deep" / "data" / "2.tar", tar(files(1)))
    assert [part.name for part in open_parts(str(tmp_path / "deep"))] == ["2.tar"]


def test_lists_globs_and_braces(tmp_path: Path) -> None:
    for name in ("a-0", "a-1", "b-0"):
        put(tmp_path / f"{name}.tar", tar(files(1)))
    root = str(tmp_path)
    for spec, want in [
        (f"{root}/*.tar", "a-0 a-1 b-0"),
        (f"{root}/a-{{0..1}}.tar", "a-0 a-1"),
        (f"{root}/{{b,a}}-0.tar", "b-0 a-0"),
        (f"{root}/b-0.tar,{root}/a-*.tar", "b-0 a-0 a-1"),
        (f"{root}/b-0.tar {root}/a-0.tar\n{root}/b-0.tar", "b-0 a-0"),
        (f"file://{root}/b-0.tar", "b-0"),
        (root, "a-0 a-1 b-0"),
    ]:
        assert [part.name.removesuffix(".tar") for part in open_parts(spec)] == want.split()
    odd = put(tmp_path / "with space, {0..1} [x].tar", tar(files(2)))
    assert len(list(only(odd))) == 2


@pytest.fixture
def memory() -> Iterator[str]:
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield "memory://lake"
    system.store.clear()


def test_urls(memory: str, tmp_path: Path) -> None:
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
    whole, cut = open_parts(f"{memory}/s/*.tar")
    assert [s.data for s in whole] == [data for _, data in content]
    assert not whole.random_access
    assert damaged(cut)
    assert [part.name for part in open_parts(f"{memory}/s/{{0,1}}.tar")] == ["0.tar", "1.tar"]
    assert [part.name for part in open_parts(f"{memory}/s")] == ["0.tar", "1.tar"]
    assert len(list(only(f"{memory}/g.tar.gz"))) == 4
    assert len(list(only(f"{memory}/t.parquet"))) == 5
    cats, dogs = open_parts(f"{memory}/tree")
    assert [(s.key, s.data, s.extras["cls"]) for s in dogs] == [("dogs/b", b"dog", b"dogs")]
    assert cats.fetch("x", 0, 3) == b"cat"
    with pytest.raises(SourceError, match="unpacked"):
        list(only(f"{memory}/nested.tar"))
    assert "no such file" in damaged(only(f"{memory}/none.tar"))[1]
    before = [part.fingerprint() for part in (whole, cats)]
    for name in ("s/0.tar", "tree/cats/a.jpg"):
        with fsspec.open(f"{memory}/{name}", "wb") as file:
            file.write(b"other")
    assert all(a != part.fingerprint() for a, part in zip(before, (whole, cats), strict=True))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no source"),
        ("pipe:cat /etc/passwd", "no command"),
        ("a.tar,pipe:ls", "no such file|no command"),
        ("{root}/shard.tar", r"Did you mean .*shards\.tar"),
        ("{root}/none/x.tar", "no folder"),
        ("{root}/*.nothing", "matches nothing"),
        ("{root}/empty", "holds no tar"),
        ("{root}/x.zip", "neither a folder"),
        ("{root}/{{0..1", "range"),
        ("nosuch://a/b.tar.gz", "cannot be read"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, spec: str, message: str) -> None:
    put(tmp_path / "shards.tar", tar(files(1)))
    put(tmp_path / "x.zip", b"PK")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=message):
        list(open_parts(spec.replace("{root}", str(tmp_path)).replace("{{", "{"))[0])


def test_names_are_unique_and_relative(tmp_path: Path) -> None:
    for name in ("a/x/0.tar", "b/x/0.tar", "b/1.tar"):
        put(tmp_path / name, tar(files(1)))
    found = [part.name for part in open_parts(f"{tmp_path}/**/*.tar")]
    assert found == ["a/x/0.tar", "1.tar", "b/x/0.tar"]


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True)
)
def test_unique_names(places: list[str]) -> None:
    found = unique_names(places)
    assert len(set(found)) == len(places)
    assert all(place.endswith(name) for place, name in zip(places, found, strict=True))


@given(st.text(st.sampled_from("ab./"), max_size=12))
def test_plain_keys_stay_inside_and_have_no_dots(path: str) -> None:
    key = plain_key(path)
    assert not key.startswith("/")
    assert ".." not in key.split("/")
    assert "." not in key.rpartition("/")[2]


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    path = put(tmp_path / "x.tar", tar(files(2)))
    before = only(path).fingerprint()
    assert only(path).fingerprint() == before
    os.utime(path, ns=(1, 1))
    assert only(path).fingerprint() != before
    assert str(tmp_path) not in before
