"""Cached and online targets in a training, two shard sets, views of a method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.config import DistillConfig
from distill.data import augment
from distill.distributed import SINGLE
from distill.methods import odsd
from distill.recipe import Mix, Recipe
from distill.run import check_students, resolve_job
from distill.training.build import build_setup
from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.shards.reader import Shards
from tests.support import distillation
from tests.support.training import World, job, losses, run, same

pytestmark = pytest.mark.usefixtures("one_thread")


def test_cached_and_online_targets_give_the_same_losses(world: World, tmp_path: Path) -> None:
    """The views of the first epochs of seed 0 are the cached views."""
    run(world, tmp_path / "fresh", steps=6, recipe={"seed": 0})
    run(world, tmp_path / "cached", steps=6, recipe={"seed": 0, "views": 3})
    fresh, cached = (losses(tmp_path / name / "resnet8") for name in ("fresh", "cached"))
    assert cached == pytest.approx(fresh, rel=2e-3)


def test_named_targets_are_used_or_refused(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards, _ = world
    run(world, tmp_path, recipe={"views": 2})
    (directory,) = (tmp_path / "targets").iterdir()
    caplog.clear()
    run(world, tmp_path, fresh=True, recipe={"views": 2, "seed": 3}, targets=directory)
    log = caplog.text
    assert f"reading the teacher's logits of 2 views per image from {directory}" in log
    assert "teacher targets" not in log, "no target is computed again"
    other = distillation.make_teacher(tmp_path / "other", seed=9)
    other_shards = distillation.make_shards(tmp_path / "set", other)
    with pytest.raises(ArtifactError, match="other shards"):
        run((other_shards, other), tmp_path / "x", recipe={"views": 2}, targets=directory)
    same_images = Shards(shards.directory, shards.card)
    with pytest.raises(ArtifactError, match="another teacher"):
        run((same_images, other), tmp_path / "y", recipe={"views": 2}, targets=directory)
    with pytest.raises(ArtifactError, match="another view seed"):
        run(world, tmp_path / "z", recipe={"views": 2, "view_seed": 1}, targets=directory)
    with pytest.raises(ArtifactError, match="also needs its map"):
        run(world, tmp_path / "v", "kd3", recipe={"views": 2}, targets=directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "VERSION", 99)
        with pytest.raises(ArtifactError, match="another view version"):
            run(world, tmp_path / "w", recipe={"views": 2}, targets=directory)


def test_a_second_set_fills_its_share_of_each_batch(world: World, tmp_path: Path) -> None:
    _, teacher = world
    images = [distillation.draw_image(number) for number in range(200, 230)]
    other = distillation.make_shards(tmp_path / "synthetic", teacher, 30, images=images)
    run(world, tmp_path / "alone")
    run(world, tmp_path / "mixed", mix=Mix(other, 0.5))
    run(world, tmp_path / "again", mix=Mix(other, 0.5), recipe={"views": 2})
    assert not same(tmp_path / "alone" / "resnet8", tmp_path / "mixed" / "resnet8")
    with pytest.raises(ValueError, match=r"mix_frac was 0\.5, is 0\.25"):
        run(world, tmp_path / "mixed", mix=Mix(other, 0.25))
    with pytest.raises(ValueError, match="mix_digest was"):
        run(world, tmp_path / "mixed")
    with pytest.raises(ValueError, match="between 0 and 1"):
        Mix(other, 1.0)


def test_epochs_of_a_mix_repeat_the_set_that_is_small_for_its_share(
    world: World, tmp_path: Path
) -> None:
    """59 images and 10, of which a batch of 16 holds 12 and 4: five steps show all of both."""
    shards, teacher = world
    images = [distillation.draw_image(number) for number in range(200, 210)]
    other = distillation.make_shards(tmp_path / "synthetic", teacher, 10, images=images)
    config = DistillConfig(
        shards=shards, teacher=teacher, mix=other, mix_frac=0.25, epochs=2, batch_size=16
    )
    job = resolve_job(config, "cpu", SINGLE)
    assert job.recipe.steps == 10
    sampler = build_setup(job, []).loader.sampler
    seen = np.concatenate([sampler.indices(step)[0] for step in range(5)])
    assert len(np.unique(seen)) == 59 + 10


def test_two_views_per_image_need_two_fixed_views(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compares 2 views"):
        run(world, tmp_path, "odsd", config=odsd.Config(self_form="views"), recipe={"views": 1})


def test_the_optimizer_of_the_method_is_the_default(world: World, tmp_path: Path) -> None:
    def trained(name: str, method: str, optimizer: str | None) -> Path:
        return run(world, tmp_path / name, method, recipe={"optimizer": optimizer})[0].directory

    def recorded(directory: Path) -> str:
        return str(
            artifact.read_card(directory, "teacher")["record"]["inputs"]["recipe"]["optimizer"]
        )

    default, muon, sgd = (trained(str(name), "winnow", name) for name in (None, "muon", "sgd"))
    assert [recorded(student) for student in (default, muon, sgd)] == ["muon", "muon", "sgd"]
    assert same(default, muon)
    assert not same(default, sgd)
    assert recorded(trained("kd", "kd", None)) == "sgd"
    with pytest.raises(ValueError, match="there is no optimizer 'adam': choose one of sgd, muon"):
        Recipe(steps=1, optimizer="adam")  # type: ignore[arg-type]


def test_a_student_that_outgrows_its_teacher_is_named(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The teacher is a resnet8 too, so the projector alone makes the student larger."""
    check_students(job(world, tmp_path, "winnow"))
    assert "resnet8: with the modules that its method adds" in caplog.text
    assert "For a smaller one, use --set deploy=plain (0.08 M)" in caplog.text
    caplog.clear()
    check_students(job(world, tmp_path, "hidfd"))
    assert "For a smaller one, use --method kd (0.08 M)" in caplog.text
    caplog.clear()
    check_students(job(world, tmp_path, "kd"))
    assert "with the modules" not in caplog.text
    assert not list(tmp_path.iterdir())
