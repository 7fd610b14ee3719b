"""A student as a program: .pt2 and .onnx files that compute its logits, and the check of that.

The input is uint8 pixels [B, S, S, 3], RGB, resized and cropped as `facts` says; the output is
logits [B, C] in float32. Scaling and normalization are inside. B images, S the input's side, C
classes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from indexes import artifact, plugins
from indexes.images.decode import Pixels, to_unit
from indexes.models.net import Net
from indexes.models.teacher import Teacher

FILES = {"onnx": "model.onnx", "pt2": "model.pt2"}
NEEDS = ("onnx", "onnxruntime", "onnxscript")
# Relative to the larger of 1 and the largest logit. float32 kernels differ by about 1e-6.
MAX_PARITY_GAP = 1e-4
BATCH_SIZES = 1, 2, 61  # a net that was traced for one number of images fails at another

Logits = npt.NDArray[np.float32]
Program = Callable[[Pixels], Logits]


class ExportError(ValueError):
    """A student that cannot be exported, or a file whose logits are not the student's."""


class DeployedNet(nn.Module):
    """pixels uint8 [B, S, S, 3] -> logits [B, C]: the net's own call, from what a decoder gives."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.module = net.module  # registers its weights
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, C] of pixels uint8 [B, S, S, 3]."""
        return self.net(to_unit(pixels))[2]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Mutes what exporters print and warn of; an exception passes, and errors are still logged."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def read_formats(names: Sequence[str]) -> list[str]:
    """`onnx,pt2` -> both, each once; ValueError names an unknown one."""
    formats = list(dict.fromkeys(",".join(names).replace(",", " ").split()))
    for name in formats:
        if name not in FILES:
            hint = plugins.nearest(name, list(FILES))
            raise ValueError(f"there is no format {name!r}.{hint} Known: {', '.join(FILES)}")
    if not formats:
        raise ValueError(f"--format names none of the formats {', '.join(FILES)}")
    return formats


def check_extra() -> None:
    """ValueError where the packages that write and run .onnx files are not installed."""
    missing = []
    with quiet():
        for name in NEEDS:
            try:
                importlib.import_module(name)
            except ImportError:
                missing.append(name)
    if missing:
        raise ValueError(
            f"an .onnx file needs {', '.join(missing)}: pip install 'winnow[export]', or leave it "
            "out with --format pt2"
        )


def facts(student: Teacher) -> dict[str, Any]:
    """All that a device must know to feed the file and to read its logits."""
    card, geometry = student.card, student.geometry
    return {
        "classes": list(card.classes),
        "input": {"name": "pixels", "dtype": "uint8", "layout": "NHWC", "colors": "RGB"},
        "geometry": {
            "size": geometry.size,
            "shorter_side": geometry.shorter_side,
            "crop_frac": geometry.crop_frac,
            "interpolation": geometry.interpolation,
        },
        "mean": list(card.mean),
        "std": list(card.std),
        "student_digest": card.digest,
    }


def trace(student: Teacher) -> torch.export.ExportedProgram:
    """The student as a graph for any number of images; ExportError where it cannot be traced."""
    size = student.card.input_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                DeployedNet(student.net).eval(),
                (pixels,),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as error:  # the tracer raises whatever the net's own code makes of it
        raise _export_error(student, "torch.export", error) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _export_error(student: Teacher, by: str, error: Exception) -> ExportError:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ExportError(f"{student.card.builder} cannot be exported: {by} says: {line}")


def write(student: Teacher, program: torch.export.ExportedProgram, kind: str, path: Path) -> None:
    """Writes `program` as a .pt2 or .onnx file with the student's facts inside."""
    metadata = {key: json.dumps(value) for key, value in facts(student).items()}
    try:
        with quiet():
            data = _as_pt2(program, metadata) if kind == "pt2" else _as_onnx(program, metadata)
    except Exception as error:  # as for the tracer; an operator without counterpart, say
        raise _export_error(student, f"the {kind} writer", error) from error
    with artifact.writing(path) as aside:
        aside.write_bytes(data)


def _as_pt2(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=metadata)
    return buffer.getvalue()


def _as_onnx(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    import onnx

    exported = torch.onnx.export(
        program, dynamo=True, input_names=["pixels"], output_names=["logits"], verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    graph = model.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = "batch"
    for node in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        del node.metadata_props[:]  # how it was traced, several times the size of a small graph
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def load_program(path: Path, *, num_threads: int = 1) -> Program:
    """The file at `path` as a function: pixels uint8 [B, S, S, 3] -> logits float32 [B, C]."""
    if path.suffix == ".pt2":
        with quiet():
            module = torch.export.load(path).module()

        def run_pt2(pixels: Pixels) -> Logits:
            with torch.no_grad():
                logits: Logits = module(torch.from_numpy(pixels)).numpy()
            return logits

        return run_pt2
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run_onnx(pixels: Pixels) -> Logits:
        logits: Logits = session.run(["logits"], {"pixels": pixels})[0]
        return logits

    return run_onnx


def read_facts(path: Path) -> dict[str, Any]:
    """What `facts` put into the file, from the file alone."""
    keys = ("classes", "input", "geometry", "mean", "std", "student_digest")
    if path.suffix == ".pt2":
        metadata = dict.fromkeys(keys, "")
        with quiet():
            torch.export.load(path, extra_files=metadata)
    else:
        import onnx

        model = onnx.load(path, load_external_data=False)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
    return {key: json.loads(metadata[key]) for key in keys}


def spread(student: Teacher, pixels: Pixels) -> float:
    """How far the student's logits of images lie apart, in the terms of `parity`.

    Where that is little, a wrong file can pass for a right one.
    """
    logits_BC = student(to_unit(torch.from_numpy(pixels)))[2]
    largest = (logits_BC - logits_BC.mean(0)).abs().max()
    return float(largest / logits_BC.abs().max().clamp(min=1))


def parity(student: Teacher, path: Path, batches: Sequence[Pixels]) -> float:
    """Largest gap between the logits of the file and of the student, relative to the largest.

    The gap is divided by `max(1, largest |logit|)`. Raises ExportError above MAX_PARITY_GAP, where
    the file does not run or has other facts inside.
    """
    if read_facts(path) != json.loads(json.dumps(facts(student))):
        raise ExportError(f"{path} holds other metadata than its student's card: export it again")
    program = load_program(path)
    gap, largest = 0.0, 1.0
    for pixels in batches:
        _, _, expected_BC = student(to_unit(torch.from_numpy(pixels)))
        try:
            logits_BC = program(pixels)
        except Exception as error:  # each runtime has errors of its own
            raise ExportError(f"{path} does not take {len(pixels)} images: {error}") from error
        expected = expected_BC.numpy()
        if logits_BC.shape != expected.shape or logits_BC.dtype != np.float32:
            raise ExportError(
                f"{path} gives {logits_BC.dtype} {logits_BC.shape}, not float32 {expected.shape}"
            )
        # A NaN must not pass: max() would lose it.
        gap = float(np.fmax(gap, np.nan_to_num(np.abs(logits_BC - expected), nan=np.inf).max()))
        largest = max(largest, float(np.abs(expected).max()))
    if not gap / largest <= MAX_PARITY_GAP:
        raise ExportError(
            f"{path} differs from its student: logits differ by {gap / largest:.1e} of the largest "
            f"one, and at most {MAX_PARITY_GAP:.0e} is allowed; the file was not kept"
        )
    return gap / largest
