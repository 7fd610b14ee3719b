"""The tar reader gives the same members as tarfile and never skips damage."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from tests.support.lakes import Files, damaged, files, only, put, tar

# A function-scoped tmp_path works with hypothesis here: each example overwrites its file.
property_test = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_samples_are_grouped_as_by_webdataset(tmp_path: Path) -> None:
    names = "a.jpg a.png b.txt nodot .hid.jpg c.jpg a.jpg d.e/f.jpg"
    content = [(name, b"%d" % number) for number, name in enumerate(names.split(), 1)]
    samples = list(only(put(tmp_path / "x.tar", tar(content))))
    assert [(s.key, s.ext, s.data) for s in samples] == [
        ("a", "jpg", b"1"), ("a", "png", b"2"), ("b", "", b""), ("nodot", "", b""),
        (".hid.jpg", "", b""), ("c", "jpg", b"6"),
        ("a", "jpg", b"7"), ("d.e/f", "jpg", b"8"),
    ]  # fmt: skip
    assert samples[2].extras == {"txt": b"3"}


def test_links_folders_and_devices_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for kind, name in [(tarfile.DIRTYPE, "d.jpg"), (tarfile.SYMTYPE, "s.jpg"),
                           (tarfile.LNKTYPE, "h.jpg"), (tarfile.FIFOTYPE, "f.jpg")]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd" * 20
            archive.addfile(info)
        info = tarfile.TarInfo("last.jpg")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"ok"))
    assert [sample.key for sample in only(str(path))] == ["last"]


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: name.encode() and name not in {".", ".."})


@property_test
@given(
    st.lists(
        st.tuples(
            st.builds("/".join, st.lists(names, min_size=1, max_size=2)),
            st.binary(max_size=2000),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.booleans(),
)
def test_the_walk_equals_that_of_tarfile(
    tmp_path: Path, content: Files, form: int, packed: bool
) -> None:
    content = [(f"{n}-{name}.jpg", data) for n, (name, data) in enumerate(content)]
    data = tar(content, form)
    part = only(put(tmp_path / ("x.tar.gz" if packed else "x.tar"),
                    gzip.compress(data, 1) if packed else data))  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        infos = list(archive)
        expected = [(info.name, info.offset_data, archive.extractfile(info).read())  # type: ignore[union-attr]
                for info in infos]  # fmt: skip
    keyed = []
    for name, offset, body in expected:
        folder, slash, base = name.rpartition("/")
        if base.startswith("."):  # a hidden file: a sample without an image
            keyed.append((name, offset, b""))
        else:
            keyed.append((folder + slash + base.split(".")[0], offset, body))
    assert [(s.key, s.offset, s.data) for s in part] == keyed
    assert part.random_access is not packed


@property_test
@given(st.data(), st.booleans())
def test_a_truncated_tar_gives_only_complete_samples(
    tmp_path: Path, draw: st.DataObject, packed: bool
) -> None:
    count = draw.draw(st.integers(1, 8))
    content = [(f"{n}.{kind}", bytes([n]) * draw.draw(st.integers(0, 1500)))
               for n in range(count) for kind in ("jpg", "cls")]  # fmt: skip
    data = tar(content, tarfile.GNU_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        ends = [info.offset_data + info.size for info in archive][1::2]
    cut = draw.draw(st.integers(0, ends[-1] + 512))
    if packed:
        compressed = gzip.compress(data)
        part = only(
            put(tmp_path / "x.tar.gz", compressed[: draw.draw(st.integers(0, len(compressed) - 1))])
        )
        allowed: Sequence[int] = range(count + 1)
    else:
        part = only(put(tmp_path / "x.tar", data[:cut]))
        complete = sum(end <= cut for end in ends)
        # Only the first sample can be complete without being known to be complete.
        allowed = (complete - 1, complete)
    samples, message = damaged(part)
    assert message.startswith(part.name)
    assert len(samples) in allowed
    for number, sample in enumerate(samples):
        assert (sample.key, set(sample.extras)) == (str(number), {"cls"})
        assert sample.data == content[2 * number][1]


@property_test
@given(st.integers(0, 20 * 1536 - 1), st.integers(1, 255))
def test_a_damaged_header_is_reported(tmp_path: Path, offset: int, flipped_bits: int) -> None:
    # The eight bytes of the checksum can write the same number as 012, " 12" or "12\0 ".
    assume(not 148 <= offset % 1536 < 156)
    content = files(20, size=600)
    data = bytearray(tar(content, tarfile.USTAR_FORMAT))
    data[offset] ^= flipped_bits
    part = only(put(tmp_path / "x.tar", bytes(data)))
    if offset % 1536 < 512:
        samples, message = damaged(part)
        assert "x.tar" in message
        assert len(samples) in {offset // 1536, offset // 1536 - 1}
        assert [s.data for s in samples] == [data for _, data in content[: len(samples)]]
    else:
        assert len(list(part)) == 20


def test_complete_samples_before_a_bad_header_are_yielded(tmp_path: Path) -> None:
    data = bytearray(tar(files(20), tarfile.USTAR_FORMAT))
    data[10 * 1536 + 148] ^= 1
    samples, message = damaged(only(put(tmp_path / "x.tar", bytes(data))))
    assert len(samples) == 10
    assert "damaged header at byte 15,360" in message


def test_a_block_of_zeros_is_not_the_end(tmp_path: Path) -> None:
    data = bytearray(tar(files(20), tarfile.USTAR_FORMAT))
    data[10 * 1536 : 12 * 1536] = bytes(2 * 1536)
    samples, message = damaged(only(put(tmp_path / "x.tar", bytes(data))))
    assert len(samples) == 10
    assert "after the end mark" in message


def test_a_missing_end_mark_and_empty_files_are_reported(tmp_path: Path) -> None:
    data = tar(files(3), tarfile.USTAR_FORMAT)[: 3 * 1536]
    samples, message = damaged(only(put(tmp_path / "x.tar", data)))
    assert len(samples) == 3
    assert "end mark" in message
    assert damaged(only(put(tmp_path / "y.tar", b"")))[0] == []
    assert damaged(only(put(tmp_path / "z.tar.gz", b"")))[0] == []
    assert damaged(only(put(tmp_path / "no.tar.gz", b"not gzip")))[0] == []


def test_webdataset_reads_the_same_keys(tmp_path: Path) -> None:
    names = ["d/a.b.jpg", "d.e/c.jpg", "./f.PNG", "/g.h.i.webp", "plain.gif"]
    part = only(put(tmp_path / "x.tar", tar([(name, b"1") for name in names])))
    assert [s.key for s in part] == [base_plus_ext(name)[0] for name in names]
