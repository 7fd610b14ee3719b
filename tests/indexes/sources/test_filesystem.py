"""Locations are printed without secrets, listed in order, and identified by size and time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexes.sources import filesystem
from indexes.sources.sample import SourceError


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/data/a?b.tar", "/data/a?b.tar"),
        ("https://host/x.tar?signature=secret", "https://host/x.tar"),
        ("https://user:secret@host/x.tar", "https://host/x.tar"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_secrets_are_not_printed(location: str, text: str) -> None:
    assert filesystem.redacted(location) == text


def test_paths_of_locations() -> None:
    assert filesystem.path_of("https://host/a/b.tar?x=1#y") == "/a/b.tar"
    assert filesystem.path_of("s3://bucket/a.tar") == "bucket/a.tar"
    assert filesystem.local("file:///a/b") == "/a/b"
    assert filesystem.local("~/b") == os.path.expanduser("~/b")


def test_a_walk_is_sorted_and_follows_links_without_loops(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a.jpg", ".hidden/x.jpg", "b/.x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    paths = list(filesystem.walk(str(tmp_path)))
    assert paths == ["a.jpg", "b/1.jpg", "b/2.jpg", "link/1.jpg", "link/2.jpg"]


def test_the_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert filesystem.identity(str(path)) == "missing"
    path.write_bytes(b"one")
    before = filesystem.identity(str(path))
    assert before.startswith("3-")
    os.utime(path, ns=(1, 1))
    assert filesystem.identity(str(path)) == "3-1"


def test_a_missing_storage_package_is_named() -> None:
    with pytest.raises(SourceError, match="install its fsspec package"):
        filesystem.filesystem("nonesuch://bucket/x.tar")
