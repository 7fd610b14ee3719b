"""The bare training loops do the same work as winnow: the same views, loss and logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import bare, ours
from benchmarks.bare import Variant, Views
from benchmarks.pair import Pair, kd
from distill.losses.kd import kd as our_kd
from tests.support.distillation import make_shards, make_teacher


@pytest.fixture
def small(tmp_path: Path) -> Pair:
    make_teacher(tmp_path / "t")
    pixels = torch.randint(256, (12, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    return Pair(
        images_NRR3=pixels.to(torch.uint8),
        directory=tmp_path / "t",
        student="resnet8",
        batch_size=4,
        device="cpu",
    )


def test_views_are_crops_and_flips(small: Pair) -> None:
    views = Views(small)
    index = torch.tensor([3, 7, 3, 11])
    normal = F.pad(small.normalized(), (4, 4, 4, 4), value=torch.nan)
    for row, view in zip(index.tolist(), views.batch(index), strict=True):
        assert view.shape == (3, 32, 32)
        crops = normal[row].unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
        inside = ~crops.isnan()
        off = torch.where(inside, crops - view, 0).abs().amax((2, 3, 4))
        flipped = torch.where(inside, crops - view.flip(2), 0).abs().amax((2, 3, 4))
        assert min(off.min().item(), flipped.min().item()) < 1e-5


def test_every_image_comes_once_per_epoch(small: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    monkeypatch.setattr(Views, "batch", lambda _, index: rows.extend(index.tolist()))
    batches = iter(Views(small))
    for _ in range(6):
        next(batches)
    assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12))
    assert rows[:12] != rows[12:]


def test_the_loss_equals_the_kd_of_winnow() -> None:
    student, teacher = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kd(student, teacher), our_kd(student, teacher, 4.0).mean())


@pytest.mark.parametrize("teacher", ["plain", "folded"])
def test_a_folded_teacher_gives_the_same_logits(small: Pair, teacher: str) -> None:
    module = bare._teacher(small, Variant(teacher=teacher))  # type: ignore[arg-type]
    pixels = small.normalized()[:4]
    torch.testing.assert_close(module(pixels), small.teacher().net.module(pixels))


@pytest.mark.parametrize("variant", [v for v in bare.VARIANTS if v.teacher != "compiled"])
def test_the_loops_change_every_parameter(
    small: Pair, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = small.student_net()
    before = {name: value.clone() for name, value in net.named_parameters()}
    monkeypatch.setattr(Pair, "student_net", lambda _: net)
    bare.best(small, variant)(2)
    assert all(not torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_every_run_trains_from_random_weights(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "t")
    make_shards(tmp_path / "shards", teacher)
    job = ours.Job(
        shards=tmp_path / "shards",
        teacher=tmp_path / "t",
        students=("resnet8", ours.TRIVIAL),
        batch_size=8,
        device="cpu",
        scratch=tmp_path / "scratch",
        views=1,
    )
    for _ in range(2):
        logs = [ours.log_of(directory) for directory in ours.run(job, 3)]
        assert [log[-1]["step"] for log in logs] == [3, 3]
