"""EIKD-style: its defaults, and every form that the paper leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.losses.kd import kd
from distill.method import weighted_mean
from distill.methods import eikd
from indexes.models.teacher import Teacher
from indexes.shards.reader import Shards
from tests.support.methods import make, make_batch
from tests.support.training import log_lines, run

World = tuple[Shards, Teacher]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_no_class_is_dropped_by_default(world: World) -> None:
    method = make(world, "eikd").eval()
    batch = make_batch(world, method)
    _, _, logits = method.student(batch.pixels)
    typed = weighted_mean(kd(logits, batch.logits, 4.0), batch.weights)
    assert torch.equal(method.losses(batch, 0.5)["class_drop"], typed)
    dropping = make(world, "eikd", keep=1).eval()
    assert not torch.equal(dropping.losses(batch, 0.5)["class_drop"], typed)


@pytest.mark.parametrize("settings", [{"keep": 0}, {"mass": 2.0}, {"keep": 3, "mass": 0.9}])
def test_settings_that_drop_no_classes_well_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"keep|mass"):
        eikd.Config(**settings)


def test_images_that_the_student_has_not_learned_are_preferred_by_default(world: World) -> None:
    method = make(world, "eikd")
    assert method.oversample(method.config) == 2
    batch = make_batch(world, method)
    gap = kd(method.eval_logits(batch.pixels), batch.logits, 1.0)
    chosen = method.select_batch(batch, 0.5)
    assert chosen.drawn is not None
    assert set(chosen.drawn.tolist()) == set(gap.topk(6).indices.tolist())


@pytest.mark.parametrize(
    "settings",
    [
        {"explicit_form": "features"},
        {"explicit_form": "map"},
        {"explicit_form": "attention"},
        {"implicit_form": "rkd"},
        {"implicit_form": "similarity"},
        {"form": "both", "keep": 2},
        {"form": "truncate", "keep": 2},
        {"mass": 0.9},
        {"prefer": "none"},
        {"prefer": "margin"},
    ],
)
def test_every_form_of_eikd_trains(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    outcome = run(world, tmp_path, "eikd", config=eikd.Config(**settings), steps=3)[0]
    terms = [line["terms"] for line in log_lines(outcome.directory) if "terms" in line][-1]
    assert terms.keys() == {"total", "class_drop", "explicit", "implicit"}
    assert all(value > 0 for value in terms.values())
