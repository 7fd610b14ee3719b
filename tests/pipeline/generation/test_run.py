"""`winnow generate` end to end: its shards are ordinary shards, and its bytes are reproducible."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from typer.testing import CliRunner

import winnow
from indexes import artifact, devices
from indexes.images.decode import load_view, to_unit
from indexes.models.teacher import load_teacher
from indexes.shards.reader import Shards, open_shards
from indexes.shards.verify import verify_shards
from tests.support.corpora import files_of
from tests.support.generators import SIDE, color_teacher, make_shards

NUM = 300  # The images fill more than two blocks.
SETTINGS = "width=2 batch=8 epochs=2 update_steps=2"


def generate(runs: Path, *more: str, n: int = NUM) -> Any:
    """Run `winnow generate` in this process."""
    arguments = ["generate", "--runs", str(runs), "--shards", str(runs / "shards" / "real")]
    arguments += ["-n", str(n), "--set", SETTINGS, "--device", "cpu"]
    return CliRunner().invoke(winnow.app, [*arguments, *more], catch_exceptions=False)


def synthetic_in(runs: Path) -> list[Path]:
    return sorted((runs / "shards").glob("real-hidfd-*"))


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs with a teacher, 24 real images and NUM synthetic images."""
    runs = tmp_path_factory.mktemp("runs")
    teacher = color_teacher(runs / "teachers" / "t")
    make_shards(runs / "shards" / "real", teacher)
    result = generate(runs)
    assert result.exit_code == 0, result.output
    return runs


@pytest.fixture
def runs(shared_runs: Path, tmp_path: Path) -> Path:
    """Copy the runs for a test that changes them."""
    shutil.copytree(shared_runs, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def synthetic(shared_runs: Path) -> Shards:
    return open_shards(synthetic_in(shared_runs)[0])


def test_synthetic_shards_have_the_columns_and_the_card_of_shards(
    shared_runs: Path, synthetic: Shards
) -> None:
    assert verify_shards(synthetic.directory) == NUM
    assert synthetic.card["funnel"] == {"in": NUM, "dropped": {"not_finite": 0}, "kept": NUM}
    assert synthetic.card["method"] == "hidfd"
    assert synthetic.card["config"]["width"] == 2
    assert synthetic.card["seed"] == 0
    assert sum(synthetic.card["class_histogram"]) == NUM
    assert list(synthetic.keys[:2]) == ["synthetic-00000000", "synthetic-00000001"]
    assert set(synthetic.sources) == {"synthetic"}
    assert (synthetic.columns["weight"] == 1).all()
    assert np.bincount(synthetic.columns["requested"]).tolist() == [NUM // 3] * 3
    assert synthetic.columns["requested"].dtype == np.int32
    agrees = synthetic.columns["label"] == synthetic.columns["requested"]
    assert synthetic.card["agreeing_frac"] == pytest.approx(agrees.mean())
    assert not (shared_runs / "last-shards.json").exists()


def test_logits_are_those_of_the_teacher_on_the_written_files(
    shared_runs: Path, synthetic: Shards
) -> None:
    teacher = load_teacher(shared_runs / "teachers" / "t")
    pixels = [load_view(synthetic.read(row), teacher.geometry)[0] for row in range(40)]
    with devices.autocast("cpu"):
        logits = teacher(to_unit(torch.from_numpy(np.stack(pixels))))[2]
    np.testing.assert_allclose(synthetic.logits[:40], logits, atol=0.1)
    assert (synthetic.columns["label"] == synthetic.logits.argmax(1)).all()
    assert Image.open(io.BytesIO(synthetic.read(0))).size == (SIDE, SIDE)


def test_webdataset_reads_synthetic_shards(synthetic: Shards) -> None:
    samples = list(wds.WebDataset(str(synthetic.tars[0]), shardshuffle=False).decode("pil"))
    assert len(samples) == NUM
    assert samples[0]["json"]["source"] == "synthetic"
    assert samples[0]["logits.npy"].shape == (3,)
    assert samples[0]["png"].size == (SIDE, SIDE)


@pytest.mark.parametrize("mixed", [False, True])
def test_students_train_on_synthetic_shards(runs: Path, mixed: bool) -> None:
    real, synthetic = str(runs / "shards" / "real"), str(synthetic_in(runs)[0])
    flags = ["--shards", real, "--mix", synthetic] if mixed else ["--shards", synthetic]
    flags += ["--runs", str(runs), "--student", "resnet8", "--steps", "2", "--batch-size", "16"]
    result = CliRunner().invoke(
        winnow.app, ["distill", *flags, "--device", "cpu"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert "resnet8: trained" in result.output


def test_the_output_explains_the_result(shared_runs: Path, runs: Path) -> None:
    text = generate(runs).output
    assert f"{NUM} in" in text
    assert f"{NUM} kept" in text
    assert "to their requested class" in text
    assert "(chance: 33.3 %)" in text
    assert "ratio of the largest to the smallest class" in text
    assert f"shards: {synthetic_in(runs)[0]}" in text
    assert text.count("unchanged") == 2


def test_repeated_and_interrupted_runs_give_the_same_bytes(shared_runs: Path, runs: Path) -> None:
    before = files_of(synthetic_in(shared_runs)[0])
    for directory in (synthetic_in(runs)[0], next((runs / "generators").iterdir())):
        shutil.rmtree(directory)
    assert generate(runs).exit_code == 0
    assert files_of(synthetic_in(runs)[0]) == before
    (synthetic_in(runs)[0] / "card.json").unlink()
    assert "generators: unchanged" in generate(runs).output
    assert files_of(synthetic_in(runs)[0]) == before


def test_results_of_other_inputs_are_refused(runs: Path) -> None:
    (generator,) = (runs / "generators").iterdir()
    card = artifact.read_json(generator / "card.json")
    artifact.write_json(generator / "card.json", {**card, "digest": "0" * 64})
    result = generate(runs)
    assert result.exit_code == 3
    assert "generators made from other inputs" in result.output
    artifact.write_json(generator / "card.json", {**card, "schema": 0})
    assert "make it again with this version" in generate(runs).output
    artifact.write_json(generator / "card.json", card)
    shutil.rmtree(synthetic_in(runs)[0])
    weights = generator / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "not the file that its card describes" in generate(runs).output


def test_other_settings_train_another_generator(runs: Path) -> None:
    assert generate(runs, "--set", "frequency=0", n=6).exit_code == 0
    assert len(list((runs / "generators").iterdir())) == 2
    assert generate(runs, "--seed", "1", n=6).exit_code == 0
    assert len(list((runs / "generators").iterdir())) == 3


def test_another_teacher_is_refused(runs: Path) -> None:
    color_teacher(runs / "teachers" / "other", seed=6)
    result = generate(runs, "--teacher", "other")
    assert result.exit_code == 3
    assert "labeled by another teacher" in result.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--generator", "hidf"], "no 'hidf' in generators. Did you mean 'hidfd'?"),
        (["--preset", "faithfull"], "no preset 'faithfull'. Did you mean 'faithful'?"),
        (["--set", "widht=4"], "no setting 'widht'. Did you mean 'width'?"),
        (["--set", "pixels=12"], "a power of two from 8 to 256"),
        (["--shards", "nowhere"], "no shards at nowhere"),
    ],
)
def test_wrong_options_are_explained(shared_runs: Path, flags: list[str], message: str) -> None:
    result = generate(shared_runs, *flags)
    assert result.exit_code == (3 if "nowhere" in flags else 1)
    assert message in " ".join(result.output.split())


def test_a_generator_can_be_a_python_file(runs: Path, tmp_path: Path) -> None:
    plug_in = tmp_path / "own.py"
    plug_in.write_text("from pipeline.generators.hidfd import *\n")
    assert generate(runs, "--generator", str(plug_in), n=6).exit_code == 0
    (directory,) = (runs / "shards").glob("real-own-*")
    assert open_shards(directory).card["method"] == "own"


def test_an_incomplete_generator_is_refused(shared_runs: Path, tmp_path: Path) -> None:
    plug_in = tmp_path / "short.py"
    plug_in.write_text("from pipeline.generators.hidfd import Config, PRESETS, VERSION\n")
    result = generate(shared_runs, "--generator", str(plug_in))
    assert "defines no side, trainer, sampler" in result.output
