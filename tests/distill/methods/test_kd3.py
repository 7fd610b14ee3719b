"""KD3: the images that pass, the log, and the stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.method import Batch, MethodError
from distill.methods import kd3
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch
from tests.support.training import log_lines, run

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_kd3_keeps_images_above_the_threshold_of_their_class(world: World) -> None:
    one = make(world, "kd3", tau=0.9, tau_floor=0.0)
    batch = make_batch(world, one, 8)
    # Six of class 0, two of class 1: b = 1 and 1 / 3, thresholds .9 and .18; at progress 0 z is
    # the teacher's logits but for a part in 150.
    sure = torch.tensor([0.99, 0.85, 0.99, 0.5, 0.95, 0.6, 0.5, 0.6])
    classes = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    rest = ((1 - sure) / 2)[:, None].expand(8, 3).clone()
    logits = rest.scatter(1, classes[:, None], sure[:, None]).log()
    chosen = one.select_batch(Batch(batch.pixels, batch.weights, logits, batch.features), 0.0)
    kept = chosen.logits[chosen.weights > 0]
    assert len(chosen.logits) == 4
    passing = torch.tensor([0, 2, 4, 6, 7])
    assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in logits[passing].tolist()}
    assert len(kept) == 4
    assert one.observed["kept_frac"].item() == pytest.approx(5 / 8)
    assert one.observed["classes"].tolist() == pytest.approx([6 / 8, 2 / 8, 0])
    assert one.class_threshold.counts_C.tolist() == [6, 2, 0]
    # As another class grows, the threshold of the first class falls with its share.
    one.class_threshold.counts_C.copy_(torch.tensor([1.0, 10_000.0, 0.0]))
    one.select_batch(Batch(batch.pixels, batch.weights, logits, batch.features), 0.0)
    assert one.observed["kept_frac"].item() == pytest.approx(6 / 8)


def test_kd3_logs_the_kept_share_and_stops_if_no_image_passes(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = run(world, tmp_path / "a", "kd3", steps=3)[0].directory
    lines = [line for line in log_lines(directory) if "terms" in line]
    assert all(0 <= line["kept_frac"] <= 1 for line in lines)
    assert all(sum(line["classes"]) == pytest.approx(1) for line in lines)
    assert "kept_frac" in caplog.text
    config = kd3.Config(tau=0.5, tau_floor=3.0, memory=1)
    assert run(world, tmp_path / "b", "kd3", config=config, steps=3)[0].state == "refused"
    assert "pass the threshold: lower it with --set tau=0.25" in caplog.text
    one = make(world, "kd3")
    one.check({})
    one.class_threshold.kept_frac.zero_()
    with pytest.raises(MethodError):
        one.check({})


@pytest.mark.parametrize("num_passing", [1, 3, 6, 8])
def test_the_batch_is_filled_by_images_that_pass(world: World, num_passing: int) -> None:
    method = make(world, "kd3", tau=0.9, oversample=1)
    batch = make_batch(world, method, 8)
    logits = torch.zeros(8, 3)
    logits[8 - num_passing :, 0] = 20.0
    torch.manual_seed(0)
    chosen = method.select_batch(replace(batch, logits=logits), 0.0)
    assert chosen.weights.tolist() == [1] * 8
    assert chosen.drawn is not None
    assert set(chosen.drawn[:num_passing].tolist()) == set(range(8 - num_passing, 8))
    assert (chosen.logits.max(1).values == 20).all()


def test_an_image_of_weight_zero_does_not_fill_the_batch(world: World) -> None:
    method = make(world, "kd3", tau=0.9, oversample=1)
    batch = make_batch(world, method, 8, weights=torch.tensor([0.0, 1, 0, 1, 1, 0, 1, 1]))
    logits = torch.zeros(8, 3)
    logits[:6, 0] = 20.0
    chosen = method.select_batch(replace(batch, logits=logits), 0.0)
    assert chosen.drawn is not None
    assert set(chosen.drawn.tolist()) == {1, 3, 4}
    assert chosen.weights.tolist() == [1] * 8


def test_a_batch_without_a_passing_image_weighs_nothing(world: World) -> None:
    method = make(world, "kd3", tau=0.9, oversample=1)
    batch = make_batch(world, method, 8)
    chosen = method.select_batch(replace(batch, logits=torch.zeros(8, 3)), 0.0)
    assert not chosen.weights.any()
    assert torch.equal(chosen.pixels, batch.pixels)


def test_the_contrast_acts_before_the_projector(world: World) -> None:
    method = make(world, "kd3", contrast=1.0)
    batch = make_batch(world, method)
    torch.autograd.backward(method.losses(batch, 0.5)["contrast"])
    assert all(p.grad is None for p in method.module.projector.parameters())
    assert any(p.grad is not None for p in method.module.encoder.parameters())
    assert method.embed.in_features == 64  # the encoder's width, not the teacher's


def test_copies_of_an_image_are_no_negatives_of_each_other(world: World) -> None:
    method = make(world, "kd3", contrast=1.0).eval()
    batch = make_batch(world, method, 6)
    copies = batch.rows(torch.tensor([0, 1, 2, 2, 2, 2]))
    torch.manual_seed(0)
    masked = method.losses(copies, 0.5)["contrast"]
    torch.manual_seed(0)
    assert masked < method.losses(replace(copies, drawn=None), 0.5)["contrast"]
