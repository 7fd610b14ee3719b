"""Answers asked online and kept on disk: the same numbers, asked once, never for other views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill import data, targets
from distill.order import Order
from distill.targets import NOTE, Cached, Online
from indexes.artefact import ArtefactError

NUM, PER_STEP, VIEWS, CLASSES, WIDTH = 10, 4, 2, 3, 5


class Counting:
    """A teacher that counts the views it is asked about."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += len(pixels)
        flat = pixels.flatten(1)
        return flat[:, :CLASSES] * 100_000, flat[:, -WIDTH:] / 3


def make_feed(num_views: int, per_image: int = 1, order_seed: int = 0) -> data.Feed:
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (NUM, 32, 32, 3), dtype=torch.uint8, generator=generator)
    order = Order(NUM, PER_STEP, order_seed)
    hashes = np.arange(NUM, dtype=np.uint64)
    return data.Feed(
        data.Resident(stored, order),
        order,
        hashes,
        size=32,
        per_image=per_image,
        num_views=num_views,
        seed=0,
    )


def make_cached(place: Path, ask: Any, **key: Any) -> Cached:
    return Cached(ask, place, {"views": VIEWS, **key}, (NUM, VIEWS, CLASSES), (WIDTH,))


def run(answering: Any, feed: data.Feed, start: int, stop: int) -> list[tuple[Tensor, Tensor]]:
    found = []
    for seen in feed.steps(start, stop):
        answers = answering.answer(seen)
        found.append((answers.logits_BC, answers.features))
    return found


@pytest.mark.parametrize("per_image", [1, 2])
def test_cached_is_online_in_float16_and_asked_once(tmp_path: Path, per_image: int) -> None:
    teacher, feed = Counting(), make_feed(VIEWS, per_image)
    cached = run(make_cached(tmp_path, teacher), feed, 0, 12)
    online = run(Online(Counting()), feed, 0, 12)
    assert teacher.asked == NUM * VIEWS
    for ours, theirs in zip(cached, online, strict=True):
        assert torch.equal(ours[0], theirs[0].clamp(-65504, 65504).half().float())
        assert torch.equal(ours[1], theirs[1].half().float())


def test_resumed_reads_what_was_flushed_and_asks_the_rest_again(tmp_path: Path) -> None:
    feed = make_feed(VIEWS)
    unbroken = run(make_cached(tmp_path / "a", Counting()), feed, 0, 12)
    first = make_cached(tmp_path / "b", Counting())
    run(first, feed, 0, 2)
    first.flush()
    run(first, feed, 2, 4)  # then killed: not flushed
    teacher = Counting()
    second = make_cached(tmp_path / "b", teacher)
    for ours, theirs in zip(run(second, feed, 2, 12), unbroken[2:], strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert teacher.asked == NUM * VIEWS - 2 * PER_STEP


@pytest.mark.parametrize("lose", [lambda place: (place / "logits").unlink(),
                                  lambda place: (place / NOTE).unlink()])  # fmt: skip
def test_a_lost_file_is_made_again(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    feed = make_feed(VIEWS)
    first = make_cached(tmp_path, Counting())
    unbroken = run(first, feed, 0, 12)
    first.flush()
    lose(tmp_path)
    second = make_cached(tmp_path, Counting())
    for ours, theirs in zip(run(second, feed, 8, 12), unbroken[8:], strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_a_second_student_asks_nothing(tmp_path: Path) -> None:
    feed = make_feed(VIEWS)
    first = make_cached(tmp_path, Counting())
    unbroken = run(first, feed, 0, 12)
    first.flush()
    teacher = Counting()
    again = run(make_cached(tmp_path, teacher), feed, 0, 12)
    assert teacher.asked == 0
    assert all(torch.equal(a[0], b[0]) for a, b in zip(again, unbroken, strict=True))


def test_another_order_of_the_same_views_asks_only_what_is_new(tmp_path: Path) -> None:
    first = make_cached(tmp_path, Counting())
    run(first, make_feed(VIEWS), 0, 3)
    first.flush()
    teacher, feed = Counting(), make_feed(VIEWS, order_seed=1)
    found = run(make_cached(tmp_path, teacher), feed, 0, 12)
    assert teacher.asked == NUM * VIEWS - 3 * PER_STEP
    online = run(Online(Counting()), feed, 0, 12)
    for ours, theirs in zip(found, online, strict=True):
        assert torch.equal(ours[1], theirs[1].half().float())


def test_answers_to_other_views_are_refused(tmp_path: Path) -> None:
    make_cached(tmp_path, Counting())
    with pytest.raises(ArtefactError, match="other views or of another teacher"):
        make_cached(tmp_path, Counting(), views=3)


def test_answers_that_do_not_fit_are_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets.shutil, "disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"need 0\.00 GB.*--views 0"):
        make_cached(tmp_path, Counting())


def test_maps_are_kept_as_they_are_shaped(tmp_path: Path) -> None:
    class Mapping(Counting):
        def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            logits, _ = super().__call__(pixels)
            return logits, pixels[:, :2, :3, :3]

    shape = (NUM, VIEWS, CLASSES)
    cached = Cached(Mapping(), tmp_path, {"views": VIEWS}, shape, (2, 3, 3))
    for seen in make_feed(VIEWS).steps(0, 8):
        found = cached.answer(seen).features
        assert found is not None
        assert torch.equal(found, seen.pixels[:, :2, :3, :3].half().float())
