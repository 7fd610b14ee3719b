"""DFND: its matrix of label noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill.methods import dfnd
from distill.methods._noisy_labels import ACCURACY, LR
from indexes.models.net import build_net
from indexes.models.teacher import Teacher, load_teacher, save_teacher
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.methods import make, make_batch

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_dfnd_trains_its_matrix_with_adam_alone(world: World, tmp_path: Path) -> None:
    one = make(world, "dfnd")
    before = one.noise.theta.detach().clone()
    own = one.own_optimizer()
    torch.autograd.backward(one.losses(make_batch(world, one), 0.0)["noise"])
    own.step()
    # The first step of Adam has the size of the learning rate, for any gradient.
    moved = (one.noise.theta.detach() - before).abs()
    assert moved.max().item() == pytest.approx(LR, rel=1e-3)


def test_dfnd_uses_the_accuracy_of_the_card(world: World, tmp_path: Path) -> None:
    assert make(world, "dfnd").noise.accuracy == ACCURACY
    assert make(world, "dfnd", accuracy=0.7).noise.accuracy == 0.7
    net = build_net("resnet8", num_classes=3)
    save_teacher(tmp_path, net, classes=distillation.CLASSES, input_size=32, accuracy=0.8)
    stated = (world[0], load_teacher(tmp_path))
    assert make(stated, "dfnd").noise.accuracy == 0.8


def test_a_teacher_without_an_error_on_its_card_can_be_used(world: World, tmp_path: Path) -> None:
    net = build_net("resnet8", num_classes=3)
    save_teacher(tmp_path, net, classes=distillation.CLASSES, input_size=32, accuracy=1.0)
    one = make((world[0], load_teacher(tmp_path)), "dfnd")
    assert one.losses(make_batch(world, one), 0.0)["noise"].isfinite()


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 87.7])
def test_a_given_accuracy_must_lie_between_0_and_1(accuracy: float) -> None:
    with pytest.raises(ValueError, match="accuracy must be between 0 and 1"):
        dfnd.Config(accuracy=accuracy)
