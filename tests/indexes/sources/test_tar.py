"""Tars are read as by tarfile; damage is reported and never skipped."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from indexes.sources.spec import SourceError, open_parts
from tests.support.lakes import damaged, fetch_all, files, only, put, tar


def test_a_plain_tar_is_read(tmp_path: Path) -> None:
    content = [("a/x.1.JPEG", b"one"), ("a/x.CLS", b"7"), ("a/x.seg.txt", b"s"), ("b.png", b"two")]
    part = only(put(tmp_path / "shard-0.tar", tar(content)))
    assert part.name == "shard-0.tar"
    assert part.random_access
    first, second = part
    assert (first.key, first.ext, first.data) == ("a/x", "jpeg", b"one")
    assert first.extras == {"cls": b"7", "seg.txt": b"s"}
    assert (second.key, second.ext, second.data, second.extras) == ("b", "png", b"two", {})
    for sample in (first, second):
        assert part.fetch(sample.key, sample.offset, len(sample.data)) == sample.data
    with pytest.raises(SourceError, match="ends before"):
        part.fetch("b", second.offset, 10**6)


def test_a_truncated_gzip_gives_all_samples_before_the_cut(tmp_path: Path) -> None:
    content = files(50, size=20_000)
    data = gzip.compress(tar(content))
    samples, message = damaged(only(put(tmp_path / "x.tar.gz", data[: len(data) // 2])))
    assert 22 <= len(samples) <= 25
    assert "EOFError" in message
    flipped = data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]
    samples, message = damaged(only(put(tmp_path / "y.tar.gz", flipped)))
    assert len(samples) == 50
    assert "CRC" in message


def test_a_missing_tar_of_a_range_is_a_damaged_part(tmp_path: Path) -> None:
    for number in (0, 2):
        put(tmp_path / f"s-{number}.tar", tar(files(3, 10 * number)))
    parts = open_parts(f"{tmp_path}/s-{{0..2}}.tar")
    assert [part.name for part in parts] == ["s-0.tar", "s-1.tar", "s-2.tar"]
    assert "no such file" in damaged(parts[1])[1]
    assert parts[1].fingerprint() == "missing"
    assert len(list(parts[2])) == 3


def test_a_tar_of_tars_is_read(tmp_path: Path) -> None:
    inner = {f"n{n}.tar": tar(files(4, 100 * n)) for n in range(3)}
    outer = put(tmp_path / "whole.tar", tar([*inner.items(), ("README", b"x")], tarfile.GNU_FORMAT))
    parts = open_parts(outer)
    assert [part.name for part in parts] == ["n0.tar", "n1.tar", "n2.tar"]
    for number, part in enumerate(parts):
        samples = list(part)
        assert [s.data for s in samples] == [data for _, data in files(4, 100 * number)]
        last = samples[-1]
        assert part.random_access
        assert part.fetch(last.key, last.offset, len(last.data)) == last.data
    assert len({part.fingerprint() for part in parts}) == 3


def test_a_damaged_tar_of_tars_is_reported(tmp_path: Path) -> None:
    data = tar([(f"n{n}.tar", tar(files(4, 100 * n), tarfile.USTAR_FORMAT)) for n in range(3)])
    parts = open_parts(put(tmp_path / "cut.tar", data[: len(data) * 3 // 4]))
    assert len(list(parts[0])) == 4
    assert damaged(parts[-1])
    assert len(parts) == 4
    step = 512 + len(tar(files(4), tarfile.USTAR_FORMAT))
    broken = bytearray(data)
    broken[step + 5] ^= 1
    parts = open_parts(put(tmp_path / "broken.tar", bytes(broken)))
    assert len(list(parts[0])) == 4
    assert damaged(parts[1])[0] == []


def test_gzipped_tars_of_tars_are_refused_with_a_remedy(tmp_path: Path) -> None:
    inner = tar(files(2))
    for name, data in (
        ("a.tar.gz", gzip.compress(tar([("n.tar", inner)]))),
        ("b.tar", tar([("n.tar.gz", gzip.compress(inner))])),
    ):
        with pytest.raises(SourceError, match="unpack it first"):
            open_parts(put(tmp_path / name, data))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_parts_can_be_pickled(tmp_path: Path, start_method: str) -> None:
    content = files(5)
    part = only(put(tmp_path / "x.tar", tar(content)))
    locations = [(s.key, s.offset, len(s.data)) for s in part]
    expected = [data for _, data in content]
    assert fetch_all(part, locations) == expected
    assert fetch_all(pickle.loads(pickle.dumps(part)), locations) == expected
    with multiprocessing.get_context(start_method).Pool(1) as pool:
        assert pool.apply(fetch_all, (part, locations)) == expected


def test_the_number_of_open_tars_is_limited(tmp_path: Path) -> None:
    for number in range(150):
        put(tmp_path / f"{number:03d}.tar", tar(files(1, number, 20), tarfile.USTAR_FORMAT))
    parts = open_parts(str(tmp_path))
    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    samples = [next(iter(part)) for part in parts]
    for part, s in zip(parts, samples, strict=True):
        assert part.fetch(s.key, s.offset, len(s.data)) == s.data
    if opened:
        assert len(os.listdir("/proc/self/fd")) <= opened + 130
