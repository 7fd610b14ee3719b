"""The model card: unknown facts are left out, and its code samples run."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from distill.exporters import formats, model_card
from distill.exporters.quantize import Gain
from distill.exporters.run import Export, lines
from distill.provenance import Origin
from indexes.images.decode import load_view
from indexes.models.teacher import Teacher
from tests.support.exporting import logits_of, save_wide

pytestmark = pytest.mark.usefixtures("one_thread")


def facts_of(teacher: Teacher, record: Mapping[str, Any] | None = None) -> model_card.CardFacts:
    return model_card.CardFacts(
        name="wide",
        card=teacher.card,
        num_parameters=1234,
        record=record or {},
        origins=[],
        evaluation=None,
        bytes_of={"model.onnx": 1000, "model.pt2": 1000},
        parity={"model.onnx": 1e-6, "model.pt2": 0.0},
        parity_images="64 images",
        gain=None,
    )


def test_names_are_escaped_and_unknown_facts_are_left_out(tmp_path: Path) -> None:
    text = model_card.write(facts_of(save_wide(tmp_path / "wide")))
    assert "50.00 %" in text
    assert "a \\| b; \\*bee\\*; cat \\# d" in text
    assert "## Training\n" not in text
    assert "no human label" not in text
    assert "Unknown: the exported directory has no record" in text


def test_a_net_trained_on_labels_is_not_called_a_student(tmp_path: Path) -> None:
    record = {"inputs": {"labeled": [["set", "print"]], "recipe": {"epochs": 1}}}
    text = model_card.write(facts_of(save_wide(tmp_path / "wide"), record))
    assert "Trained with cross-entropy on labeled images" in text
    assert "distilled" not in text
    assert "human label" not in text


def test_training_images_and_figures_are_listed(tmp_path: Path) -> None:
    inputs = {"teacher_digest": "cafe", "method": "kd3", "config": {"align": 1.0, "none": None}}
    facts = facts_of(save_wide(tmp_path / "wide"), {"inputs": inputs, "agreement": 0.75})
    funnel = {"in": 9, "dropped": {"empty": 2}, "kept": 7}
    summary = {"name": "demo", "num_samples": 7, "corpus": "a_lake", "funnel": funnel}
    evaluation = {
        "labeled": "/data/far/val_set/", "num_images": 1200, "top1": 0.9, "top5": None,
        "agreement": 0.8, "per_class": {"ant": 0.5, "bee": None, "cat": 1.0},
    }  # fmt: skip
    gain = Gain("static", 0.982, 512, 256, 1000, 270, 100.0, 230.0)
    text = model_card.write(
        replace(
            facts,
            origins=[Origin("d1", None, summary), Origin("d2", None, {"digest": "d2"})],
            evaluation=evaluation,
            gain=gain,
        )
    )
    for line in (
        "distilled from a teacher",
        "Distillation method: `kd3`",
        "- Settings: align 1.0\n",
        "Shards `demo`, digest `d1`",
        "- Corpus: a\\_lake",
        "Shards with digest `d2`, which were not found",
        "           7 kept",
        "75.0 % on images of the shards",
        "Top-1 accuracy on far/val\\_set: 90.00 % of 1,200 images",
        "Weakest classes: ant 50.0 %; cat 100.0 %",
        "8 bits (static): the same class as in float32 for 98.2 %",
        "0.27 times the bytes, 2.30 times the images per second",
        "no human label",
    ):
        assert line in text, line


@pytest.mark.slow
def test_the_code_samples_run_with_only_the_exported_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save_wide(tmp_path / "wide")
    program = formats.trace(teacher)
    for kind, file in formats.FILES.items():
        formats.write(teacher, program, kind, tmp_path / file)
        stored = formats.read_facts(tmp_path / file)
        assert stored == json.loads(json.dumps(formats.facts(teacher)))
        assert stored["geometry"] == {
            "size": 28, "shorter_side": 32, "crop_frac": 0.875, "interpolation": "bicubic"
        }  # fmt: skip
    prepare, *samples = re.findall(
        r"```python\n(.*?)```", model_card.write(facts_of(teacher)), re.DOTALL
    )
    assert len(samples) == 2
    noise = np.random.default_rng(1).integers(40, 216, (40, 61, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[dict[str, Any]] = [{}, {"exif": exif}, {"mode": "RGBA"}]
    monkeypatch.chdir(tmp_path)
    for sample, kind in itertools.product(samples, kinds):
        pillow = Image.fromarray(noise).convert(kind.get("mode", "RGB"))
        pillow.save("photo.jpg", "PNG", **{k: v for k, v in kind.items() if k != "mode"})
        pixels, _, _ = load_view(Path("photo.jpg").read_bytes(), teacher.geometry)
        names: dict[str, Any] = {}
        exec(prepare + sample, names)
        assert np.abs(names["pixels"][0].astype(int) - pixels).max() <= 2
        expected = logits_of(teacher, names["pixels"])
        logits = names["logits"]
        logits = logits.detach().numpy() if isinstance(logits, Tensor) else logits
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert teacher.card.classes[expected.argmax()] in capsys.readouterr().out


@pytest.mark.parametrize(("rate", "is_slower"), [(90.0, True), (230.0, False)])
def test_a_slower_8_bit_file_is_said_to_be_slower(rate: float, is_slower: bool) -> None:
    gain = Gain("static", 0.982, 512, 256, 1000, 270, 100.0, rate)
    export = Export(directory=Path("e"), files={}, parity={}, parity_images="", int8=gain)
    line = next(lines(export))
    assert ("slower than float32 on this machine" in line) is is_slower


def test_a_reused_classifier_is_named(tmp_path: Path) -> None:
    card = save_wide(tmp_path / "wide").card
    assert model_card.architecture(card).endswith(":resnet8`")
    reused = replace(card, builder="reused:resnet8x4", arguments={"arguments": {"depth": 2}})
    assert model_card.architecture(reused).startswith("`resnet8x4`, depth=2, a projector and")
