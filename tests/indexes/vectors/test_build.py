"""Index builds: recall, memory budget, resuming, reuse, damaged files and a full disk."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.vectors.build import (
    VectorPart,
    build_index,
    newest_index,
    random_rows,
)
from indexes.vectors.index import Vectors
from tests.support import vectors
from tests.support.vectors import clustered, nearest, parts_of, recall

ROWS = clustered(6000)
make_index = partial(vectors.make_index, exact_rows=100)
"""Build inverted lists, although the corpus is small enough for an exact index."""


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_class_order_has_the_recall_of_shuffled_order(tmp_path: Path) -> None:
    rows = clustered(6000, 32, clusters=200)
    order = np.random.default_rng(5).permutation(len(rows))
    reached = []
    for name, corpus in (("ordered", rows), ("shuffled", rows[order])):
        index = make_index(tmp_path / name, corpus)
        assert index.card["factory"].startswith("IVF310,")
        queries = rows[::12]
        reached.append(recall(index.search(queries, 10)[1], nearest(queries, corpus, 10)[1]))
    assert min(reached) > 0.93
    assert abs(reached[0] - reached[1]) < 0.03


def test_the_training_sample_comes_from_all_parts() -> None:
    blocks = [np.full((500, 2), value, np.float16) for value in (1, 2)]
    blocks[1][:, 1] = -2
    parts = [VectorPart(str(n), 500, lambda block=block: block) for n, block in enumerate(blocks)]
    rows, sample = random_rows(parts, 100, np.random.default_rng(3))
    assert len(set(rows.tolist())) == 100
    from_second_part = sample[:, 1] < 0
    np.testing.assert_array_equal(from_second_part, rows >= 500)
    assert 30 < from_second_part.sum() < 70
    assert 10 < from_second_part[:50].sum() < 40, "the sample is not in order"


def test_a_build_resumed_anywhere_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_index(tmp_path / "whole", ROWS)
    expected = files_of(tmp_path / "whole")
    real = Path.replace
    for kill_at in range(1, 11):
        count = itertools.count(1)

        def replace(
            self: Path, target: Path, count: itertools.count[int] = count, kill_at: int = kill_at
        ) -> Path:
            if next(count) == kill_at:
                raise KeyboardInterrupt
            return real(self, target)

        cut = tmp_path / f"cut{kill_at}"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                make_index(cut, ROWS)
        assert not artifact.is_done(cut)
        make_index(cut, ROWS)
        assert files_of(cut) == expected


def test_only_incomplete_parts_are_built_again(tmp_path: Path) -> None:
    make_index(tmp_path, ROWS)
    expected = files_of(tmp_path)
    files = sorted((tmp_path / "parts").iterdir())
    assert len(files) == 6
    (tmp_path / "card.json").unlink()
    files[0].write_bytes(files[0].read_bytes()[:-5])
    before = {path: path.stat().st_mtime_ns for path in files}
    make_index(tmp_path, ROWS)
    assert files_of(tmp_path) == expected
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == [files[0]]


def test_the_training_and_unchanged_parts_of_an_older_index_are_reused(tmp_path: Path) -> None:
    make_index(tmp_path / "old", ROWS)
    rows = np.concatenate([ROWS[:2000], clustered(1000, seed=9), ROWS[3000:], ROWS[:500]])
    index = make_index(tmp_path / "new", rows, previous=tmp_path / "old")
    assert index.card["trained_on"] == 6000
    inodes, old_inodes = (
        {part.name: part.stat().st_ino for part in (tmp_path / name / "parts").iterdir()}
        for name in ("new", "old")
    )
    assert len(inodes) == 7
    assert sum(old_inodes.get(name) == inode for name, inode in inodes.items()) == 5, (
        "five parts are linked"
    )
    neighbors = index.search(rows[::50], 1)[1][:, 0]
    matches = [
        np.array_equal(rows[row], rows[query])
        for row, query in zip(neighbors, range(0, 6500, 50), strict=True)
    ]
    assert np.mean(matches) > 0.95, "rows have the numbers of the new order"
    assert index.card["recall_at_10"] >= 0.95


@pytest.mark.parametrize("change", ["twice", "wider", "damaged"])
def test_an_incompatible_older_index_is_not_reused(tmp_path: Path, change: str) -> None:
    make_index(tmp_path / "old", ROWS[:3000])
    rows = {"twice": ROWS, "wider": clustered(3000, 25)}.get(change, ROWS[:3000])
    if change == "damaged":
        (tmp_path / "old" / "card.json").write_text("{")
    index = make_index(tmp_path / "new", rows, previous=tmp_path / "old")
    assert index.card["trained_on"] == len(rows)
    assert index.card["num_vectors"] == len(rows)
    old_file, new_file = (tmp_path / name / "trained.faiss" for name in ("old", "new"))
    assert old_file.stat().st_ino != new_file.stat().st_ino


def test_the_newest_index_of_a_corpus_is_found(tmp_path: Path) -> None:
    assert newest_index(tmp_path, {"corpus": "c"}) is None
    for name, corpus in (("one", "c"), ("two", "c"), ("three", "d")):
        make_index(tmp_path / name, ROWS[:200], body={"corpus": corpus})
    (tmp_path / "four").mkdir()
    (tmp_path / "four" / "card.json").write_text("{}")
    assert newest_index(tmp_path, {"corpus": "c"}) == tmp_path / "two"


def test_large_parts_are_split_to_fit_the_budget(tmp_path: Path) -> None:
    budget = 6000 * 24 * 2 * 2
    index = make_index(tmp_path / "cut", ROWS, size=6000, budget_bytes=budget)
    assert len(list((tmp_path / "cut" / "parts").iterdir())) == 6000 // 1024 + 1
    assert index.card["factory"].endswith("SQfp16")
    small = make_index(tmp_path / "small", ROWS, budget_bytes=budget // 4)
    assert small.card["factory"].endswith("SQ8")


@pytest.mark.slow
def test_a_build_ten_times_larger_stays_in_the_budget() -> None:
    script = """
import numpy as np, resource, tempfile
from indexes.vectors.build import VectorPart, build_index
from indexes.vectors.plan import IndexConfig
def part(number):
    def rows():
        return np.random.default_rng(number).normal(size=(2000, 128)).astype(np.float16)
    return VectorPart(str(number), 2000, rows)
peaks = []
for count, budget_bytes in ((2, 1 << 20), (8, 8 << 20), (80, 8 << 20)):
    with tempfile.TemporaryDirectory() as folder:
        parts = [part(n) for n in range(count)]
        config = IndexConfig(budget_bytes=budget_bytes, recall=0.1)
        build_index(folder, parts, config)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
print(*peaks)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    base, small, large = map(int, result.stdout.split())
    # The vectors take 39 MiB and the budget is 8 MiB. The base includes all that the libraries
    # allocate once.
    assert large - base < 8 + 4, f"MiB: {base} at the start, {small} small, {large} large"


def test_short_parts_raise_and_empty_parts_are_skipped(tmp_path: Path) -> None:
    part = VectorPart("short", 1000, lambda: ROWS[:900])
    with pytest.raises((ArtifactError, IndexError)):
        build_index(tmp_path / "short", [part])
    with pytest.raises(ArtifactError, match="no vectors"):
        build_index(tmp_path / "none", parts_of(ROWS[:0], 10))
    empty = VectorPart("empty", 0, lambda: ROWS[:0])
    build_index(tmp_path / "some", [empty, *parts_of(ROWS[:300], 100), empty])
    assert Vectors(tmp_path / "some").card["num_vectors"] == 300


def test_damaged_files_are_named(tmp_path: Path) -> None:
    make_index(tmp_path, ROWS)
    (tmp_path / "card.json").unlink()
    file = sorted((tmp_path / "parts").iterdir())[2]
    intact = file.read_bytes()
    file.write_bytes(b"\xff" * len(intact))
    with pytest.raises(ArtifactError, match=f"{file.name} is damaged"):
        make_index(tmp_path, ROWS)
    file.write_bytes(intact)
    (tmp_path / "trained.faiss").write_bytes(b"rubbish")
    with pytest.raises(ArtifactError, match=r"trained\.faiss is damaged"):
        make_index(tmp_path, ROWS)


def test_a_full_disk_is_an_error_and_the_next_run_resumes(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # fewer bytes than the index needs
    try:
        with pytest.raises(OSError, match="File too large"):
            make_index(tmp_path, ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list((tmp_path / "parts").iterdir())) == 6
    assert not (tmp_path / "index.faiss").exists()
    assert not artifact.is_done(tmp_path)
    assert make_index(tmp_path, ROWS).card["num_vectors"] == 6000
