"""An .onnx file in 8 bits by onnxruntime's own tools, and whether that pays.

Static: QDQ, per channel, ranges from calibration images. Dynamic: ranges found at each call.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.exporters.formats import ExportError, Program, load_program, quiet
from distill.exporters.sample_images import SampleImages
from indexes import artifact
from indexes.images.decode import Pixels

FILE = "model.int8.onnx"
# The first images calibrate, others measure. Ranges settle within a few hundred images. OURS
NUM_CALIBRATION, NUM_MEASURED = 256, 512
BATCH = 16
ROUNDS, SECONDS = 5, 0.1  # of timing: rounds of both files in turn, and the length of one


@dataclass(frozen=True)
class Gain:
    """What 8 bits cost and give. `agreement`: the share of images of the same class, 0-1.

    Images per second are onnxruntime's, one image at a time on one thread of this machine.
    """

    kind: str
    agreement: float
    num_measured: int
    num_calibration: int
    float_bytes: int
    int8_bytes: int
    float_images_per_second: float
    int8_images_per_second: float

    @property
    def speedup(self) -> float:
        """Images per second in 8 bits over those in float32."""
        return self.int8_images_per_second / self.float_images_per_second


def check_kind(kind: str, formats: list[str], has_images: bool) -> None:
    """ValueError where the file that 8 bits are made of, or images to measure, are missing."""
    if kind != "none" and "onnx" not in formats:
        raise ValueError(f"--int8 {kind} needs the .onnx file: add --format onnx")
    if kind != "none" and not has_images:
        why = "calibrated and measured" if kind == "static" else "measured"
        raise ValueError(
            f"--int8 {kind} is {why} on real images, but the student's shards are not under "
            "RUNS/shards: give images like those of the device with --images, or another --runs"
        )


def quantize_file(
    source: Path, target: Path, kind: str, samples: SampleImages, *, seconds: float = SECONDS
) -> Gain:
    """Writes `source` in 8 bits to `target`; what that costs and gives, measured on the images.

    Each round of timing takes `seconds`.

    Raises ExportError where onnxruntime cannot, ValueError for fewer than two images.
    """
    if len(samples) < 2:
        raise ValueError(
            f"{samples.name} holds {len(samples)} readable image, but --int8 needs at least 2"
        )
    # Never measured on an image that calibrated it.
    num_calibration = min(NUM_CALIBRATION, len(samples) // 2) if kind == "static" else 0
    try:
        with quiet(), artifact.writing(target) as aside:
            _convert(source, aside, kind, samples.batches(0, num_calibration, BATCH))
    except Exception as error:  # its tools raise whatever they like at an operator
        if isinstance(error, OSError):
            raise
        raise ExportError(f"onnxruntime cannot quantize {source}: {error}") from error
    programs = load_program(source), load_program(target)
    agreement, num_measured = _agreement(*programs, samples, num_calibration)
    first = next(samples.batches(0, 1, 1))
    before, after = images_per_second(programs, first, seconds)
    sizes = source.stat().st_size, target.stat().st_size
    return Gain(kind, agreement, num_measured, num_calibration, *sizes, before, after)


def _convert(source: Path, target: Path, kind: str, batches: Iterator[Pixels]) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    types = quantization.QuantType

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Pixels] | None:
            pixels = next(batches, None)
            return None if pixels is None else {"pixels": pixels}

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".quantize-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(source, prepared)
        if kind == "static":
            # 8-bit weights agree more than 7-bit ones (98.2 against 96.7 % on a WRN-16-2), but
            # their sums saturate on x86 without VNNI; MODEL_CARD.md says so.
            quantization.quantize_static(
                prepared,
                target,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=types.QUInt8,
                weight_type=types.QInt8,
            )
        else:
            # Unsigned: onnxruntime's ConvInteger is several times slower with signed weights.
            quantization.quantize_dynamic(
                prepared, target, per_channel=True, weight_type=types.QUInt8
            )
    _copy_facts(source, target)


def _copy_facts(source: Path, target: Path) -> None:
    import onnx

    model = onnx.load(target)
    metadata = onnx.load(source, load_external_data=False).metadata_props
    onnx.helper.set_model_props(model, {prop.key: prop.value for prop in metadata})
    onnx.save(model, target)


def _agreement(
    before: Program, after: Program, samples: SampleImages, start: int
) -> tuple[float, int]:
    """The share of images that both put in the same class, and their number."""
    same: list[npt.NDArray[np.bool_]] = []
    for pixels in samples.batches(start, start + NUM_MEASURED, BATCH):
        float_BC, int8_BC = before(pixels), after(pixels)
        if not np.isfinite(int8_BC).all():
            raise ExportError(
                "the 8-bit file gives logits that are not finite: export without --int8"
            )
        same.append(float_BC.argmax(1) == int8_BC.argmax(1))
    hits = np.concatenate(same)
    return float(hits.mean()), len(hits)


def images_per_second(
    programs: tuple[Program, Program], pixels: Pixels, seconds: float
) -> tuple[float, float]:
    """The rates of both programs, run in turn: medians of rounds that take `seconds` each."""
    rates: tuple[list[float], list[float]] = [], []
    for _ in range(ROUNDS):
        for program, rate in zip(programs, rates, strict=True):
            program(pixels)
            start, count = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - start) < seconds:
                program(pixels)
                count += 1
            rate.append(count * len(pixels) / elapsed)
    return statistics.median(rates[0]), statistics.median(rates[1])
