"""Accuracy and agreement on a labeled set, compared with a loop over single images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data import augment
from distill.evaluation import accuracy
from distill.evaluation.accuracy import agreement, evaluate_net, evaluate_nets, predict
from distill.evaluation.calibration import expected_calibration_error
from indexes import devices
from indexes.images.decode import load_view
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from indexes.sources.spec import Sample, SourceError
from tests.support import distillation
from tests.support.labeled import label_of, make_labeled

World = tuple[Shards, Teacher]


def predictions(net: Teacher, num: int) -> list[int]:
    predicted = []
    for number in range(num):
        pixels, _, _ = load_view(distillation.draw_image(number), net.geometry)
        pixels_1CHW = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        predicted.append(int(net(pixels_1CHW)[2].argmax()))
    return predicted


def confidence(net: Teacher, number: int) -> float:
    """Return the largest softmax probability."""
    pixels, _, _ = load_view(distillation.draw_image(number), net.geometry)
    pixels_1CHW = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    powers = [math.exp(logit) for logit in net(pixels_1CHW)[2][0].tolist()]
    return max(powers) / sum(powers)


def test_accuracy_agreement_and_drops(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, teacher = world
    # In float32, batches and single images have the same rounding.
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    student = distillation.make_teacher(tmp_path / "student", seed=9)
    make_labeled(tmp_path / "set")
    (tmp_path / "set" / "ant" / "bad.png").write_bytes(distillation.draw_image(0)[:60])
    (tmp_path / "set" / "bee" / "none.png").write_bytes(b"")
    result = evaluate_net(student, str(tmp_path / "set"), teacher=teacher)
    student_classes, teacher_classes = predictions(student, 20), predictions(teacher, 20)
    labels = [label_of(number) for number in range(20)]
    hits = [a == b for a, b in zip(student_classes, labels, strict=True)]
    assert result.num_images == 20
    assert sum(result.dropped.values()) == 2
    assert result.dropped["empty"] == 1
    assert result.top1 == pytest.approx(sum(hits) / 20)
    assert result.top5 is None
    num_equal = sum(a == b for a, b in zip(student_classes, teacher_classes, strict=True))
    assert result.agreement == pytest.approx(num_equal / 20)
    confidences = [confidence(student, number) for number in range(20)]
    expected = expected_calibration_error(np.array(confidences), np.array(hits))
    assert result.ece == pytest.approx(expected, abs=1e-5)
    for number, name in enumerate(distillation.CLASSES):
        in_class = [hit for hit, label in zip(hits, labels, strict=True) if label == number]
        assert result.per_class[name] == pytest.approx(sum(in_class) / len(in_class))
    assert len(set(student_classes)) > 1, "the student must predict several classes"


def test_unlabeled_and_undecodable_sets_are_refused(world: World, tmp_path: Path) -> None:
    _, teacher = world
    folder = tmp_path / "ant"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no image can be decoded"):
        evaluate_net(teacher, str(tmp_path))
    with pytest.raises(SourceError):
        evaluate_net(teacher, str(tmp_path / "nowhere"))


def test_a_net_with_nan_logits_is_named(world: World, tmp_path: Path) -> None:
    _, teacher = world
    broken = distillation.make_teacher(tmp_path / "broken")
    broken.head[1].fill_(torch.nan)
    make_labeled(tmp_path / "set", 4)
    with pytest.raises(ValueError, match="broken gives logits that are not finite"):
        evaluate_nets([teacher, broken], str(tmp_path / "set"))


def test_a_set_is_read_batch_by_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a set of any length, at most one batch is read ahead of the nets."""
    _, teacher = world
    read: list[int] = []

    def counted(spec: str, classes: object) -> Iterator[tuple[Sample, int]]:
        for number in range(40):
            read.append(number)
            yield Sample(str(number), "png", distillation.draw_image(number), 0, {}), number % 3

    batch_sizes: list[int] = []
    call = Teacher.__call__

    def recorded(self: Teacher, pixels: torch.Tensor) -> object:
        batch_sizes.append(len(pixels))
        assert len(read) <= sum(batch_sizes) + 8, "at most one batch is read ahead"
        return call(self, pixels)

    monkeypatch.setattr(accuracy, "open_labeled", counted)
    monkeypatch.setattr(Teacher, "__call__", recorded)
    (result,) = evaluate_nets([teacher], "anything", batch_size=8)
    assert result.num_images == 40
    assert batch_sizes == [8] * 5


def test_agreement_with_itself_is_one_and_the_mode_is_restored(world: World) -> None:
    _, teacher = world
    generator = torch.Generator().manual_seed(0)
    colors = torch.randint(0, 256, (30, 1, 1, 3), dtype=torch.uint8, generator=generator)
    stored = colors.expand(30, 32, 32, 3).contiguous()
    expected = predict(teacher.net, stored, 32)
    assert agreement(teacher.net, stored, expected, 32) == 1
    wrong = torch.where(torch.arange(30) < 12, (expected + 1) % 3, expected)
    assert agreement(teacher.net, stored, wrong, 32) == pytest.approx(0.6)
    assert not teacher.net.module.training
    pixels = augment.crop_views(stored, augment.center_view(30, 32), 32, "pad")
    assert torch.equal(expected, teacher(pixels)[2].argmax(1))
