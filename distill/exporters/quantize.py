"""8-bit .onnx files, made with the tools of onnxruntime, and what they gain and lose.

Static: the QDQ format, per channel, with ranges from calibration images. Dynamic: the ranges are
computed at each call.
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
# The first images calibrate, and others measure. Ranges settle within a few hundred images. OURS
NUM_CALIBRATION, NUM_MEASURED = 256, 512
BATCH = 16
ROUNDS, SECONDS = 5, 0.1  # of timing: in each round, both files run for this long in turn


@dataclass(frozen=True)
class Gain:
    """What the 8-bit file gains and loses against the float32 file.

    `agreement`: the fraction of images, in 0-1, for which both predict the same class. Images per
    second are measured with onnxruntime, one image at a time, on one thread of this machine.
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
        """The images per second of the 8-bit file divided by those of the float32 file."""
        return self.int8_images_per_second / self.float_images_per_second


def check_kind(kind: str, formats: list[str], has_images: bool) -> None:
    """Raise ValueError if an 8-bit file is requested without the .onnx file or without images."""
    if kind != "none" and "onnx" not in formats:
        raise ValueError(f"--int8 {kind} needs the .onnx file: add --format onnx")
    if kind != "none" and not has_images:
        purpose = "calibration and measurement" if kind == "static" else "measurement"
        raise ValueError(
            f"--int8 {kind} needs real images for {purpose}, but the student's shards are not "
            "under RUNS/shards: give images like those of the device with --images, or another "
            "--runs"
        )


def quantize_file(
    source: Path, target: Path, kind: str, samples: SampleImages, *, seconds: float = SECONDS
) -> Gain:
    """Write an 8-bit version of `source` to `target`, and measure it on the samples.

    In each round of timing, each file runs for `seconds`.

    Raises ExportError if onnxruntime cannot quantize the file, ValueError if there are fewer than
    two images.
    """
    if len(samples) < 2:
        raise ValueError(
            f"{samples.name} holds {len(samples)} readable image, but --int8 needs at least 2"
        )
    # The file is never measured on an image that calibrated it.
    num_calibration = min(NUM_CALIBRATION, len(samples) // 2) if kind == "static" else 0
    try:
        with quiet(), artifact.writing(target) as temporary:
            _convert(source, temporary, kind, samples.batches(0, num_calibration, BATCH))
    except Exception as error:  # onnxruntime's tools raise many types of errors
        if isinstance(error, OSError):
            raise
        raise ExportError(f"onnxruntime cannot quantize {source}: {error}") from error
    programs = load_program(source), load_program(target)
    agreement, num_measured = _agreement(*programs, samples, num_calibration)
    pixels = next(samples.batches(0, 1, 1))
    rates = images_per_second(programs, pixels, seconds)
    sizes = source.stat().st_size, target.stat().st_size
    return Gain(kind, agreement, num_measured, num_calibration, *sizes, *rates)


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
            # Agreement is higher with 8-bit weights than with 7-bit weights (98.2 against 96.7 % on
            # a WRN-16-2), but the sums may saturate on x86 without VNNI. The model card says so.
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
            # onnxruntime's ConvInteger is several times slower with signed weights.
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
    float_program: Program, int8_program: Program, samples: SampleImages, start: int
) -> tuple[float, int]:
    """Return the fraction of images with the same predicted class, and the number of images."""
    same: list[npt.NDArray[np.bool_]] = []
    for pixels in samples.batches(start, start + NUM_MEASURED, BATCH):
        float_BC, int8_BC = float_program(pixels), int8_program(pixels)
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
    """Return the images per second of two programs on one batch of pixels, uint8 [B, S, S, 3].

    The programs run in turn, for `seconds` each; the results are medians over ROUNDS rounds.
    """
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
