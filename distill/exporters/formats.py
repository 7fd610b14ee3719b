"""Students as programs: .pt2 and .onnx files, and the check that they give the right logits.

The input of a program is RGB pixels, uint8 [B, S, S, 3], resized and cropped to the geometry in
`facts`. The output is logits [B, C] in float32. Scaling and normalization are inside the program.
Legend: B images, S the side of the input in pixels, C classes.
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
# The gap is relative to max(1, largest |logit|). float32 kernels differ by about 1e-6.
MAX_PARITY_GAP = 1e-4
# A net that was traced for one batch size can fail at another.
BATCH_SIZES = 1, 2, 61

Logits = npt.NDArray[np.float32]
Program = Callable[[Pixels], Logits]


class ExportError(ValueError):
    """A student cannot be exported, or a file does not give the student's logits."""


class DeployedNet(nn.Module):
    """A net that takes decoded pixels: uint8 [B, S, S, 3] -> logits [B, C]."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.module = net.module  # registers the weights
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits [B, C] of pixels, uint8 [B, S, S, 3]."""
        return self.net(to_unit(pixels))[2]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output and the warnings of exporters.

    Exceptions are raised as usual, and errors are still logged.
    """
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
    """Return the formats in `names`, each once; a name may list several, separated by commas.

    Raises ValueError if a format is unknown, or if no format is given.

    Example:
        >>> read_formats(["onnx,pt2", "onnx"])
        ['onnx', 'pt2']
    """
    formats = list(dict.fromkeys(",".join(names).replace(",", " ").split()))
    for name in formats:
        if name not in FILES:
            hint = plugins.nearest(name, list(FILES))
            raise ValueError(f"there is no format {name!r}.{hint} Known: {', '.join(FILES)}")
    if not formats:
        raise ValueError(f"--format is empty: choose one or more of {', '.join(FILES)}")
    return formats


def check_extra() -> None:
    """Raise ValueError if a package that writes or runs .onnx files is not installed."""
    missing = []
    with quiet():
        for name in NEEDS:
            try:
                importlib.import_module(name)
            except ImportError:
                missing.append(name)
    if missing:
        raise ValueError(
            f"an .onnx file needs {', '.join(missing)}: pip install 'winnow-distill[export]', or "
            "leave it out with --format pt2"
        )


def facts(student: Teacher) -> dict[str, Any]:
    """Return all that a device needs to prepare the input and to interpret the logits."""
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
    """Trace the student as a graph for any batch size.

    Raises ExportError if the student cannot be traced.
    """
    size = student.card.input_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                DeployedNet(student.net).eval(),
                (pixels,),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as error:  # tracing runs the net's code, which may raise any error
        raise _export_error(student, "torch.export", error) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it contains paths of this machine
    return program


def _export_error(student: Teacher, by: str, error: Exception) -> ExportError:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ExportError(f"{student.card.builder} cannot be exported: {by} reports: {line}")


def write(student: Teacher, program: torch.export.ExportedProgram, kind: str, path: Path) -> None:
    """Write `program` as a .pt2 or .onnx file that contains the student's facts.

    Raises ExportError if the program cannot be written in this format.
    """
    metadata = {key: json.dumps(value) for key, value in facts(student).items()}
    try:
        with quiet():
            data = _as_pt2(program, metadata) if kind == "pt2" else _as_onnx(program, metadata)
    except Exception as error:  # any error, for example for an operator that the format lacks
        raise _export_error(student, f"the {kind} writer", error) from error
    with artifact.writing(path) as temporary:
        temporary.write_bytes(data)


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
        del node.metadata_props[:]  # the trace is several times as large as a small graph
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def load_program(path: Path, *, num_threads: int = 1) -> Program:
    """Load a file as a function: pixels, uint8 [B, S, S, 3] -> logits, float32 [B, C].

    `num_threads` applies to .onnx files; a .pt2 file runs with the threads of torch.
    """
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
    options.log_severity_level = 3  # only errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run_onnx(pixels: Pixels) -> Logits:
        logits: Logits = session.run(["logits"], {"pixels": pixels})[0]
        return logits

    return run_onnx


def read_facts(path: Path) -> dict[str, Any]:
    """Read the `facts` from a file."""
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
    """Return how far the student's logits differ between images, relative as in `parity`.

    The pixels are uint8 [B, S, S, 3]. If the spread is small, a wrong file can pass the check.
    """
    logits_BC = student(to_unit(torch.from_numpy(pixels)))[2]
    largest = (logits_BC - logits_BC.mean(0)).abs().max()
    return float(largest / logits_BC.abs().max().clamp(min=1))


def parity(student: Teacher, path: Path, batches: Sequence[Pixels]) -> float:
    """Return the largest gap between the logits of a file and those of the student.

    The gap is relative: it is divided by `max(1, largest |logit|)`. Each batch is uint8
    [B, S, S, 3].

    Raises ExportError if the gap is above MAX_PARITY_GAP, if the file does not run, or if its facts
    or the type or shape of its logits are wrong.
    """
    if read_facts(path) != json.loads(json.dumps(facts(student))):
        raise ExportError(f"{path} and its student's card have different metadata: export it again")
    program = load_program(path)
    gap, largest = 0.0, 1.0
    for pixels in batches:
        _, _, expected_BC = student(to_unit(torch.from_numpy(pixels)))
        try:
            logits_BC = program(pixels)
        except Exception as error:  # each runtime has its own types of errors
            raise ExportError(
                f"{path} fails on a batch of {len(pixels)} images: {error}"
            ) from error
        expected = expected_BC.numpy()
        if logits_BC.shape != expected.shape or logits_BC.dtype != np.float32:
            raise ExportError(
                f"{path} gives logits of type {logits_BC.dtype} and shape {logits_BC.shape}, not "
                f"float32 and {expected.shape}"
            )
        # A NaN counts as an infinite gap; max() could ignore it.
        gap = float(np.fmax(gap, np.nan_to_num(np.abs(logits_BC - expected), nan=np.inf).max()))
        largest = max(largest, float(np.abs(expected).max()))
    if not gap / largest <= MAX_PARITY_GAP:
        raise ExportError(
            f"{path} does not match its student: the logits differ by {gap / largest:.1e} of the "
            f"largest logit, and at most {MAX_PARITY_GAP:.0e} is allowed; the file is not kept"
        )
    return gap / largest
