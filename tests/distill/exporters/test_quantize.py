"""8-bit files: their effect is measured on images that are not used for calibration."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from distill.exporters import formats, quantize
from distill.exporters.sample_images import gather_samples
from indexes.models.teacher import load_teacher
from tests.support.exporting import session

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_effect_of_8_bits_is_measured(runs: Path, tmp_path: Path, kind: str) -> None:
    student = load_teacher(runs / "students" / "resnet8x4")
    source, target = tmp_path / "model.onnx", tmp_path / quantize.FILE
    formats.write(student, formats.trace(student), "onnx", source)
    samples = gather_samples(str(runs / "shards" / "demo"), 768, student.geometry)
    gain = quantize.quantize_file(source, target, kind, samples, seconds=0.01)
    assert (gain.num_calibration, gain.num_measured) == ((30, 30) if kind == "static" else (0, 60))
    assert gain.int8_bytes < 0.4 * gain.float_bytes
    assert min(gain.float_images_per_second, gain.int8_images_per_second) > 0
    assert gain.speedup == gain.int8_images_per_second / gain.float_images_per_second
    before, after = session(source), session(target)
    facts = [opened.get_modelmeta().custom_metadata_map for opened in (before, after)]
    assert facts[0] == facts[1], "the 8-bit file also contains the facts"
    types = {node.op_type for node in onnx.load(target).graph.node}
    assert ("QuantizeLinear" if kind == "static" else "ConvInteger") in types
    (pixels,) = samples.batches(gain.num_calibration, 60, 60)
    tops = [opened.run(None, {"pixels": pixels})[0].argmax(1) for opened in (before, after)]
    assert gain.agreement == pytest.approx((tops[0] == tops[1]).mean(), abs=0.04)
    assert after.run(None, {"pixels": pixels[:7]})[0].shape == (7, 3)


def test_8_bits_need_the_onnx_file_and_images() -> None:
    quantize.check_kind("none", ["pt2"], has_images=False)
    with pytest.raises(ValueError, match="--format onnx"):
        quantize.check_kind("static", ["pt2"], has_images=True)
    for kind in ("static", "dynamic"):
        with pytest.raises(ValueError, match="give images like those of the device with --images"):
            quantize.check_kind(kind, ["onnx"], has_images=False)


def test_one_image_is_too_few(runs: Path, tmp_path: Path) -> None:
    student = load_teacher(runs / "students" / "resnet8x4")
    samples = gather_samples(str(runs / "shards" / "demo"), 1, student.geometry)
    with pytest.raises(ValueError, match="needs at least 2"):
        quantize.quantize_file(tmp_path / "x", tmp_path / "y", "static", samples)
