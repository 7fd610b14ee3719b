"""Dedup: what was planted is found, nothing else is, the best is kept, leaks are listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexes import artifact
from indexes.images.decode import Geometry, probe_image
from indexes.shards.reader import open_shards
from pipeline.corpus import open_corpus
from pipeline.dedup import exact, near
from pipeline.dedup.run import MODES, Mode, dedup_rows
from pipeline.dedup.similarity import image_similarity, signatures
from pipeline.pool import REASONS, Pool
from tests.support import corpora, scenes
from tests.support.corpora import select, shards_of
from tests.support.pools import make_pool

Array = npt.NDArray[Any]
VIEW = Geometry(32)


def thumbs_of(images: list[bytes]) -> Array:
    return np.stack([probe_image(data, VIEW)[1] for data in images])


def pool_of(directory: Path, images: list[bytes], **more: Any) -> Pool:
    """A pool of these images, in parts of 50."""
    sides = np.array([probe_image(data, VIEW)[2] for data in images])
    total = len(images)
    blocks = (50,) * (total // 50) + ((total % 50,) if total % 50 else ())
    content = np.array([artifact.hash64(data) >> 8 for data in images])
    return make_pool(
        directory,
        label=np.zeros(total, int),
        content=content,
        blocks=blocks,
        matrices={"thumb": thumbs_of(images)},
        columns={"width": sides, "height": sides},
        **{"log_odds": np.arange(total, dtype=np.float32), **more},
    )


def run(pool: Pool, directory: Path, mode: Mode = "near", protect: str | None = None) -> Array:
    """The reasons of a pool."""
    evaluation = open_corpus(protect) if protect else None
    dedup_rows(pool, directory, mode, evaluation, VIEW, digest="d")
    reason: Array = np.load(directory / "reason.npy", allow_pickle=False)
    return reason


@pytest.mark.parametrize("side", [32, 96, 260])
def test_planted_copies_are_found_and_nothing_else(tmp_path: Path, side: int) -> None:
    originals = [scenes.scene(seed, side) for seed in range(60)]
    images = [scenes.encoded(image, 90) for image in originals]
    for kind in scenes.KINDS:
        for seed in range(20):
            images.append(scenes.copy_of(originals[seed], kind, seed))
    reason = run(pool_of(tmp_path, images), tmp_path / "d")
    assert (reason[20:60] == 0).all(), "pictures that are there once stay"
    of = np.concatenate([np.arange(60), np.tile(np.arange(20), len(scenes.KINDS))])
    kept = np.bincount(of[reason == 0], minlength=60)
    assert (kept >= 1).all(), "one of each group stays"
    planted = len(scenes.KINDS) * 20
    assert (reason == 2).sum() >= 0.97 * planted


def test_the_best_of_a_group_is_kept(tmp_path: Path) -> None:
    large, small = scenes.scene(1, 64), scenes.scene(2, 48)
    images = [
        scenes.encoded(scenes.scaled(large, 0.6)),  # smaller
        scenes.encoded(large, 80),
        scenes.encoded(large, 95),  # as large, more confident
        scenes.encoded(small, 80),
        scenes.encoded(small, 70),  # as large, as sure, the lowest key hash: rows count down
        scenes.encoded(scenes.scene(3)),
    ]
    log_odds = np.array([9, 1, 2, 5, 5, 0], np.float32)
    reason = run(pool_of(tmp_path, images, log_odds=log_odds), tmp_path / "d")
    assert reason.tolist() == [2, 2, 0, 2, 0, 0]
    table = pq.read_table(tmp_path / "d" / "pairs.parquet").to_pydict()
    found = dict(zip(table["key"], table["kept_key"], strict=True))
    assert found == {"k0": "k2", "k1": "k2", "k3": "k4"}
    assert set(table["reason"]) == {"near_duplicate"}
    assert min(table["similarity"]) > near.GROUP_THRESHOLD


def test_a_chain_is_not_one_group() -> None:
    # 0-1-2-...-9: each is like the next, and nothing else is like anything.
    pairs = np.array([(at, at + 1) for at in range(9)])

    class Columns:
        def column(self, name: str) -> Array:
            return np.zeros(10) if name == "log_odds" else np.arange(10)

    def alike(one: Array, other: Array) -> Array:
        return (np.abs(one - other) <= 1).astype(np.float32)

    pool: Any = Columns()
    groups = near.cluster(pool, pairs, alike)
    assert sorted(groups.rows.tolist()) == [0, 2, 4, 6, 8]
    assert (np.abs(groups.rows - groups.kept) == 1).all()


def test_components_are_those_of_a_walk() -> None:
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, 200, (130, 2))
    rank = draw.permutation(200)
    lowest = rank.copy()
    for _ in range(200):
        for one, other in pairs:
            lowest[one] = lowest[other] = min(lowest[one], lowest[other])
    np.testing.assert_array_equal(near.components(200, pairs, rank), lowest)


def test_more_copies_than_neighbors_are_one_group(tmp_path: Path) -> None:
    original = scenes.scene(5, 64)
    images = [scenes.copy_of(original, "reencode", seed) for seed in range(60)]
    images += [scenes.encoded(scenes.cropped(original, 0.04, seed), 70) for seed in range(60)]
    images += [scenes.encoded(scenes.scene(seed)) for seed in range(100, 140)]
    reason = run(pool_of(tmp_path, images), tmp_path / "d")
    assert (reason[:120] == 0).sum() == 1
    assert (reason[120:] == 0).all()


def test_colors_tell_pictures_apart() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[8:20, 8:20, 0] = 220
    blue = red[:, :, ::-1].copy()
    dark = (red * 0.4).astype(np.uint8)
    ring = thumbs_of([scenes.encoded(Image.fromarray(p), 95) for p in (red, blue, dark)])
    assert image_similarity(ring[[0]], ring[[0]])[0] == pytest.approx(1, abs=1e-3)
    assert image_similarity(ring[[0, 0]], ring[[1, 2]]).tolist() == [0, 0]


def test_a_mirrored_picture_has_the_same_signature() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    both = [
        np.stack([probe_image(worlds_png(one), VIEW)[1] for one in images])
        for images in (pixels, pixels[:, :, ::-1])
    ]
    one, other = (signatures(thumbs) for thumbs in both)
    np.testing.assert_allclose((one * other).sum(1), 1, atol=2e-3)
    assert image_similarity(*both).min() > 0.99
    flat = np.full((1, both[0].shape[1]), 128, np.uint8)
    assert not signatures(flat).any(), "an empty picture is like nothing"


def worlds_png(pixels: Array) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=80), st.integers(1, 50))
def test_exact_copies_are_those_of_a_dictionary(content: list[int], bucket_rows: int) -> None:
    class Columns:
        def __len__(self) -> int:
            return len(content)

        def column(self, name: str) -> Array:
            if name == "size":
                return np.array(content, np.int64) % 2
            return np.array(content, np.uint64) // np.uint64(2)

    pool: Any = Columns()
    groups = exact.find(pool, bucket_rows)
    first: dict[int, int] = {}
    naive = {row: first[c] for row, c in enumerate(content) if first.setdefault(c, row) != row}
    assert dict(zip(groups.rows.tolist(), groups.kept.tolist(), strict=True)) == naive
    assert groups.rows.tolist() == sorted(naive)


@pytest.mark.parametrize(
    ("mode", "expected"), [("off", [0, 0, 0]), ("exact", [0, 1, 0]), ("near", [0, 1, 2])]
)
def test_the_switch_does_what_it_says_and_is_recorded(
    tmp_path: Path, mode: Mode, expected: list[int]
) -> None:
    image = scenes.scene(1)
    images = [scenes.encoded(image), scenes.encoded(image), scenes.encoded(image, 60)]
    log_odds = np.array([3, 3, 1], np.float32)
    assert (
        run(pool_of(tmp_path, images, log_odds=log_odds), tmp_path / "d", mode).tolist() == expected
    )
    card = artifact.read_card(tmp_path / "d", "dedup")
    assert card["mode"] == mode
    assert card["protect"] is None
    assert card["num_candidates"] == expected.count(0)
    assert card["duplicate_rate"] == pytest.approx(1 - expected.count(0) / 3)
    assert not (tmp_path / "d" / "thumbs.npy").exists()


def test_every_planted_leak_is_listed_and_its_group_goes(tmp_path: Path) -> None:
    originals = [scenes.scene(seed) for seed in range(30)]
    tests = tmp_path / "eval"
    (tests / "cat").mkdir(parents=True)
    for seed in range(12):
        (tests / "cat" / f"t{seed}.jpg").write_bytes(scenes.encoded(originals[seed], 88))
    (tests / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    images = [scenes.encoded(scenes.scene(seed)) for seed in range(100, 140)]
    planted = [(seed, kind) for seed in range(12) for kind in scenes.KINDS]
    images += [scenes.copy_of(originals[seed], kind, seed) for seed, kind in planted]
    images += [(tests / "cat" / "t3.jpg").read_bytes()] * 2
    for mode in MODES:
        pool = pool_of(tmp_path / mode, images)
        reason = run(pool, tmp_path / mode / "d", mode, str(tests))
        assert (reason[:40] == 0).all()
        assert (reason[40:] == 3).all()
        table = pq.read_table(tmp_path / mode / "d" / "protected.parquet").to_pydict()
        seen = set(zip(table["evaluation_key"], table["key"], strict=True))
        for at, (seed, _) in enumerate(planted):
            assert any(f"t{seed}" in one for one, key in seen if key == f"k{40 + at}")
        assert {"k112", "k113"} <= {key for _, key in seen}
        card = artifact.read_card(tmp_path / mode / "d", "dedup")
        assert card["protect"]["num_images"] == card["protect"]["num_seen"] == 12
        assert card["protect"]["num_unreadable"] == 1
        assert card["dropped"] == {**dict.fromkeys(REASONS[1:], 0), "protected": 74}


def test_blocks_and_order_of_work_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = [scenes.scene(seed) for seed in range(40)]
    images = [scenes.encoded(image) for image in originals]
    images += [scenes.copy_of(originals[seed], "all", seed) for seed in range(40)]
    whole = run(pool_of(tmp_path / "a", images), tmp_path / "a" / "d")
    monkeypatch.setattr(near, "ROWS", 8)
    monkeypatch.setattr("pipeline.dedup.similarity.BATCH", 7)
    pieces = run(pool_of(tmp_path / "b", images), tmp_path / "b" / "d")
    np.testing.assert_array_equal(whole, pieces)
    assert (whole == 2).sum() == 40


def test_an_implausible_share_is_complained_of(tmp_path: Path) -> None:
    image = scenes.scene(1)
    images = [scenes.encoded(image, 50 + at) for at in range(9)]
    pool = pool_of(tmp_path, [*images, scenes.encoded(scenes.scene(2))])
    lines = dedup_rows(pool, tmp_path / "d", "near", None, VIEW, digest="d")
    assert any("warning: 80% of the images are near duplicates, 9 of k8" in line for line in lines)


def corpus_with_copies(place: Path) -> None:
    members = [(f"s{seed:02d}.jpg", scenes.encoded(scenes.scene(seed))) for seed in range(30)]
    members += [(f"c{n:02d}.jpg", scenes.copy_of(scenes.scene(n), "all", n)) for n in range(6)]
    members += [("twin.jpg", members[9][1])]
    for number in range(2):
        corpora.tar_of(place / f"{number}.tar", members[number::2])


def test_the_whole_run_counts_and_shows_it(tmp_path: Path) -> None:
    corpus_with_copies(tmp_path / "c")
    (tmp_path / "eval").mkdir()
    for seed in (20, 21):
        data = scenes.copy_of(scenes.scene(seed), "flip", seed)
        (tmp_path / "eval" / f"e{seed}.jpg").write_bytes(data)
    runs = tmp_path / "runs"
    protect = ("--protect", str(tmp_path / "eval"))
    result = select(tmp_path / "c", runs, "--method", "all", *protect)
    assert result.exit_code == 0, result.output
    assert "2 images to protect: 2 of them are seen in 2 images" in result.output
    assert "e20" in result.output
    card = open_shards(shards_of(runs)).card
    assert card["funnel"]["dropped"] == {
        "duplicate_content": 1,
        "near_duplicate": 6,
        "protected": 2,
        "not_selected": 0,
    }
    assert card["funnel"]["kept"] == 28
    assert card["dedup"]["mode"] == "near"
    assert str(tmp_path) not in json.dumps(card), "no absolute path in an artifact"
    again = select(tmp_path / "c", runs, "--method", "all", *protect)
    assert "dedup: unchanged" in again.output
    off = select(tmp_path / "c", runs, "--method", "all", "--dedup", "off")
    assert "dedup: unchanged" not in off.output
    assert len(open_shards(shards_of(runs)).keys) == 37


def test_workers_do_not_matter(tmp_path: Path) -> None:
    corpus_with_copies(tmp_path / "c")
    corpora.good_tar(tmp_path / "eval" / "0.tar", 5)
    found = []
    for workers in ("0", "1"):
        runs = tmp_path / f"runs{workers}"
        corpora.small_teacher(runs / "teachers" / "t")
        more = ("--workers", workers, "--protect", str(tmp_path / "eval"))
        assert select(tmp_path / "c", runs, "--method", "all", *more).exit_code == 0
        found.append(corpora.files_of(next((runs / "dedup").iterdir())))
    assert found[0] == found[1]


def test_a_set_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 5)
    runs = tmp_path / "runs"

    def refused(place: Path) -> str:
        result = select(tmp_path / "c.tar", runs, "--protect", str(place))
        assert result.exit_code == 1
        return str(result.output)

    assert "no such file" in refused(tmp_path / "nowhere")
    corpora.tar_of(tmp_path / "text.tar", [("a.jpg", b"no image"), ("b.jpg", b"")])
    assert "none of its 2 samples is an image" in refused(tmp_path / "text.tar")
    cut = corpora.good_tar(tmp_path / "cut.tar", 10)
    cut.write_bytes(cut.read_bytes()[: 512 * 14])
    assert "cut.tar" in refused(cut)
    assert "all of its images are in the set" in refused(tmp_path / "c.tar")
    wrong = select(tmp_path / "c.tar", runs, "--dedup", "fuzzy")
    assert "--dedup is off, exact, near" in wrong.output
