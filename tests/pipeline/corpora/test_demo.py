"""The demo corpus has the same bytes every time and in any order, correct counts and no labels."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexes.sources.spec import Sample, SourceError
from pipeline.corpora import demo
from pipeline.corpora._renderer import DRAWS, LOOKS, THINGS, render

CORRUPT = ("truncated", "empty", "garbage")


@pytest.fixture(scope="module")
def ocean() -> list[Sample]:
    return [sample for part in demo.corpus() for sample in part]


def decodes(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except OSError:
        return False
    return True


def test_the_ten_classes_have_a_fixed_order() -> None:
    assert demo.CLASSES == (
        "boat", "car", "cup", "fish", "house", "key", "mushroom", "star", "tree", "umbrella",
    )  # fmt: skip


def test_shares_sum_to_one() -> None:
    assert sum(demo.SUBJECTS.values()) == pytest.approx(1)
    assert len(demo.CLASS_SHARES) == len(demo.CLASSES)
    assert sum(demo.CLASS_SHARES) == pytest.approx(1)
    assert len(demo.LOOK_SHARES) == len(LOOKS)
    assert sum(demo.LOOK_SHARES) == pytest.approx(1)


def test_parts_have_the_stated_counts_and_keys(ocean: list[Sample]) -> None:
    parts = demo.corpus()
    assert len({part.name for part in parts}) == len(parts) == 6
    assert len({part.fingerprint() for part in parts}) == 6
    assert not any(part.random_access for part in parts)
    assert len(ocean) == 12_000
    assert [sample.key for sample in ocean] == [entry.key for entry in demo.census()]
    assert len({sample.key for sample in ocean}) == 12_000
    assert Counter(sample.ext for sample in ocean)["jpg"] > 10_000


def test_the_ocean_contains_no_labels(ocean: list[Sample]) -> None:
    assert all(sample.extras == {} for sample in ocean)
    assert not any(name in sample.key for sample in ocean[:100] for name in demo.CLASSES)


def test_a_pickled_part_gives_the_same_bytes(ocean: list[Sample]) -> None:
    part = pickle.loads(pickle.dumps(demo.corpus()[1]))
    assert list(part) == ocean[2_000:4_000]


@settings(max_examples=40, deadline=None)
@given(index=st.integers(0, 11_999))
def test_a_single_image_equals_that_of_a_full_pass(ocean: list[Sample], index: int) -> None:
    sample = ocean[index]
    part = demo.corpus()[index // 2_000]
    assert part.fetch(sample.key, sample.offset, len(sample.data)) == sample.data


def test_an_unknown_key_is_refused() -> None:
    part = demo.corpus()[0]
    with pytest.raises(SourceError, match="ocean-0 has no image"):
        part.fetch("ocean-1-0000", 0, 10)
    with pytest.raises(SourceError, match="at position 2000"):
        part.fetch("ocean-0-2000", 2_000, 10)


def test_another_seed_gives_another_ocean(ocean: list[Sample]) -> None:
    part = demo.DemoPart(0, seed=1)
    assert part.fingerprint() != demo.DemoPart(0).fingerprint()
    assert part.fetch("ocean-0-0003", 3, 0) != ocean[3].data


def test_exactly_the_planted_files_are_corrupt(ocean: list[Sample]) -> None:
    planted = [entry.key for entry in demo.census() if entry.oddity in CORRUPT]
    assert len(planted) == sum(demo.ODDITIES[name] for name in CORRUPT) == 60
    assert [sample.key for sample in ocean if not decodes(sample.data)] == planted


def test_every_other_image_has_its_stated_format(ocean: list[Sample]) -> None:
    shapes: Counter[tuple[str, str, int]] = Counter()
    for sample, entry in zip(ocean, demo.census(), strict=True):
        if entry.oddity not in CORRUPT:
            with Image.open(io.BytesIO(sample.data)) as picture:
                assert picture.format == {"jpg": "JPEG", "png": "PNG"}[sample.ext]
                shapes[entry.oddity, picture.mode, picture.width] += 1
    assert (
        shapes["gray", "L", 32] == shapes["alpha", "RGBA", 32] == shapes["palette", "P", 32] == 40
    )
    assert shapes["large", "RGB", 64] == 40
    assert sum(shapes.values()) == 12_000 - 60


def test_copies_are_byte_identical_and_echoes_are_similar(ocean: list[Sample]) -> None:
    census = demo.census()
    assert Counter(entry.oddity for entry in census) == {**demo.ODDITIES, "": 11_080}
    for sample, entry in zip(ocean, census, strict=True):
        if entry.oddity == "copy":
            assert sample.data == ocean[entry.source].data
            assert sample.ext == ocean[entry.source].ext
        elif entry.oddity == "echo":
            assert sample.data != ocean[entry.source].data
            assert (entry.thing, entry.look) == (
                census[entry.source].thing,
                census[entry.source].look,
            )
    # Two empty backgrounds of one color can be equal by chance.
    images = [
        sample.data
        for sample, entry in zip(ocean, census, strict=True)
        if entry.oddity == "" and entry.thing != "nothing"
    ]
    assert len(set(images)) == len(images)


def test_the_mixture_has_the_stated_shares() -> None:
    census = demo.census()
    subjects = Counter(entry.subject for entry in census)
    for name, share in demo.SUBJECTS.items():
        assert subjects[name] / len(census) == pytest.approx(share, abs=0.015)
    class_entries = [entry for entry in census if entry.subject == "class"]
    classes = Counter(entry.thing for entry in class_entries)
    assert set(classes) == set(demo.CLASSES)
    assert classes["tree"] > 4 * classes["key"]
    assert {entry.thing for entry in census} == set(THINGS)
    assert {entry.look for entry in class_entries} == set(LOOKS)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    picks=st.lists(
        st.tuples(st.sampled_from(sorted(THINGS)), st.sampled_from(sorted(LOOKS))),
        min_size=2,
        max_size=9,
    ),
)
def test_pixels_do_not_depend_on_other_images_of_the_batch(
    seed: int, picks: list[tuple[str, str]]
) -> None:
    draws = np.random.default_rng(seed).random((len(picks), DRAWS), np.float32)
    things, looks = zip(*picks, strict=True)
    together = render(things, looks, draws)
    backwards = render(things[::-1], looks[::-1], draws[::-1])[::-1]
    assert together.shape == (len(picks), 32, 32, 3)
    assert np.array_equal(together, backwards)
    single = render(things[:1], looks[:1], draws[:1])
    assert np.array_equal(together[0], single[0])


@pytest.mark.parametrize("thing", sorted(set(THINGS) - {"nothing"}))
def test_every_object_differs_from_its_background(thing: str) -> None:
    draws = np.random.default_rng(5).random((16, DRAWS), np.float32)
    objects = render([thing] * 16, ["sketch"] * 16, draws).astype(int)
    backgrounds = render(["nothing"] * 16, ["sketch"] * 16, draws).astype(int)
    changed = (np.abs(objects - backgrounds).max(3) > 40).mean((1, 2))
    assert changed.min() > 0.01
    assert objects.std((1, 2)).max() > 20


def members(directory: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for path in sorted(directory.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                files[member.name] = file.read()
    return files


def test_the_lost_original_is_labeled_balanced_and_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        demo.render_labeled(tmp_path / name, "train", 2_010, seed=3)
    names = ["train-00000.tar", "train-00001.tar"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    files = members(tmp_path / "one")
    labels = Counter(int(data) for name, data in files.items() if name.endswith(".cls"))
    assert labels == dict.fromkeys(range(10), 201)
    images = {name: data for name, data in files.items() if name.endswith(".jpg")}
    assert len(images) == 2_010
    assert {name.removesuffix(".jpg") + ".cls" for name in images} == set(files) - set(images)
    assert all(decodes(data) for data in images.values())


def test_no_original_is_in_the_other_split_or_in_the_ocean(
    tmp_path: Path, ocean: list[Sample]
) -> None:
    for split, seed in (("train", 0), ("test", 0), ("train", 1)):
        demo.render_labeled(tmp_path / f"{split}{seed}", split, 300, seed)  # type: ignore[arg-type]
    known_images = {sample.data for sample in ocean}
    for directory in sorted(tmp_path.iterdir()):
        images = {data for name, data in members(directory).items() if name.endswith(".jpg")}
        assert len(images) == 300
        assert not images & known_images
        known_images |= images
