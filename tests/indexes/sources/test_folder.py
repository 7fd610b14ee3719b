"""Folder trees as parts: their order, their splits, and missing files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexes.sources.spec import SourceError, open_parts
from tests.support.lakes import damaged, files, only, put, tar


def test_a_folder_tree_is_read_in_order(tmp_path: Path) -> None:
    for name in ("dogs/a.v1.JPG", "cats/deep/b.png", "cats/c.webp", "loose.gif", ".hidden/x.jpg",
                 "cats/notes.txt", "cats/.d.jpg"):  # fmt: skip
        put(tmp_path / "tree" / name, name.encode())
    (tmp_path / "tree" / "dogs" / "again").symlink_to(tmp_path / "tree")
    parts = open_parts(str(tmp_path / "tree") + "/")
    assert [part.name for part in parts] == ["tree", "cats", "dogs"]
    samples = [sample for part in parts for sample in part]
    assert [(s.key, s.ext, s.extras["cls"]) for s in samples][:4] == [
        ("loose", "gif", b"tree"), ("cats/c", "webp", b"cats"), ("cats/deep/b", "png", b"deep"),
        ("dogs/a_v1", "jpg", b"dogs"),
    ]  # fmt: skip
    cats = parts[1]
    assert [cats.fetch("", s.offset, len(s.data)) for s in cats] == [s.data for s in cats]
    with pytest.raises(SourceError, match="no longer"):
        cats.fetch("", 0, 10**6)


def test_large_folders_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.sources.folder.MAX_FILES", 3)
    for number in range(7):
        put(tmp_path / "cats" / f"{number}.jpg", b"x")
    parts = open_parts(str(tmp_path))
    assert [part.name for part in parts] == ["00000", "00001", "00002"]
    assert [s.key for part in parts for s in part] == [f"cats/{n}" for n in range(7)]
    before = [part.fingerprint() for part in parts]
    put(tmp_path / "cats" / "5.jpg", b"changed")
    changed = [part.fingerprint() for part in open_parts(str(tmp_path))]
    assert [a == b for a, b in zip(before, changed, strict=True)] == [True, False, True]


def test_a_missing_file_drops_only_itself(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / f"{number}.jpg", b"x")
    part = only(str(tmp_path))
    (tmp_path / "2.jpg").unlink()
    samples, message = damaged(part)
    assert [sample.key for sample in samples] == ["0", "1", "3", "4"]
    assert "1 of 5" in message


def test_fingerprints_change_when_the_file_changes(tmp_path: Path) -> None:
    path = put(tmp_path / "x.tar", tar(files(2)))
    before = only(path).fingerprint()
    assert only(path).fingerprint() == before
    os.utime(path, ns=(1, 1))
    assert only(path).fingerprint() != before
    assert str(tmp_path) not in before
