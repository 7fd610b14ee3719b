"""`winnow export` as one call: write, check and quantize the programs, and write the cards."""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from distill import provenance
from distill.evaluation import report
from distill.evaluation.compare import find_student
from distill.exporters import directory as export_directory
from distill.exporters import formats, model_card, quantize, sample_images
from distill.exporters.config import ExportConfig
from distill.exporters.directory import MODEL_CARD, NEW_PREFIX, file_entry
from distill.exporters.quantize import Gain
from distill.exporters.sample_images import SampleImages
from distill.provenance import Origin
from indexes import artifact
from indexes.artifact import CARD, ArtifactError
from indexes.images.decode import Pixels
from indexes.models.teacher import Teacher, load_teacher

log = logging.getLogger(__name__)
# If the logits of different images lie closer together than this many parity gaps, the check can
# hardly detect a wrong file.
MIN_SPREAD_GAPS = 10
NUM_CHECKED = sum(formats.BATCH_SIZES)
LIBRARIES = ("torch", "onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Export:
    """An export: the programs of a student in a directory.

    `files`: bytes by file name. `parity`: by file name, the largest difference between the logits
    of the file and of PyTorch, relative to the largest logit. `parity_images`: a description of the
    images of this check. `int8`: what the 8-bit file gains and loses, or None without one.
    """

    directory: Path
    files: Mapping[str, int]
    parity: Mapping[str, float]
    parity_images: str
    int8: Gain | None


@dataclass(frozen=True, kw_only=True)
class History:
    """What is known about a student besides its net: training, training images and accuracy.

    `record`: the record in its card. `origins`: the shard sets that it was trained on.
    `evaluation`: its evaluation.json, or None.
    """

    record: Mapping[str, Any]
    origins: Sequence[Origin]
    evaluation: Mapping[str, Any] | None


def export(config: ExportConfig) -> Export:
    """Write a student as programs with a model card, unless a complete export exists already.

    If an export fails, the previous one stays in place.

    Raises UnknownName if there is no such student, TeacherError if it is damaged, ArtifactError if
    the directory holds anything other than an export, ExportError if the student cannot be exported
    or a file does not give the student's logits, and ValueError if options contradict each other.

    Example: `export(ExportConfig(student="resnet8x4", formats=["pt2"])).parity["model.pt2"]`
    """
    kinds = formats.read_formats(config.formats)
    student = _load(config)
    with _readable_record(student.directory):
        history = _history(student, config.runs)
    shards = next((origin for origin in history.origins if origin.directory), None)
    source = str(config.images or (shards.directory if shards else "")) or None
    quantize.check_kind(config.int8, kinds, source is not None)
    if "onnx" in kinds:
        formats.check_extra()
    directory = config.out or student.directory / "export"
    described = [[origin.summary for origin in history.origins], history.record, history.evaluation]
    inputs = {
        "student_digest": student.card.digest,
        "formats": sorted(kinds),
        "int8": config.int8,
        "images": str(config.images) if config.images else shards and shards.digest,
        # The model card describes these, so a new evaluation leads to a new export.
        "described": artifact.digest(described),
    }
    export_directory.check_replaceable(directory)
    with artifact.locked(directory, wait=False):
        if export_directory.is_whole(directory, inputs):
            log.info("%s: already exported", directory)
        else:
            samples = _samples(source, config.int8, student)
            body = _make(student, history, directory, kinds, config.int8, samples)
            artifact.write_card(directory, "export", {"inputs": inputs, **body})
    return open_export(directory)


def open_export(directory: Path) -> Export:
    """Open the export in `directory`; raise ArtifactError if there is no complete one."""
    card = artifact.read_card(directory, "export")
    return Export(
        directory=directory,
        files={entry["name"]: entry["bytes"] for entry in card["files"]},
        parity=card["parity"],
        parity_images=card["parity_images"],
        int8=Gain(**card["int8"]) if "int8" in card else None,
    )


def lines(exported: Export) -> Iterator[str]:
    """Yield a line for each file: its size, and how far its logits are from the student's."""
    for name, value in exported.parity.items():
        yield (
            f"{exported.directory / name}: {exported.files[name] / 1e6:.2f} MB, logits within "
            f"{value:.2g} (relative) of the student's on {exported.parity_images}"
        )
    gain = exported.int8
    if gain is not None:
        slower = ", slower than float32 on this machine" if gain.speedup < 1 else ""
        yield (
            f"{exported.directory / quantize.FILE}: {gain.int8_bytes / 1e6:.2f} MB, the same class "
            f"as in float32 for {100 * gain.agreement:.1f} % of {gain.num_measured:,} images, "
            f"{gain.int8_images_per_second:,.0f} images/s against "
            f"{gain.float_images_per_second:,.0f} in float32 ({gain.speedup:.2f} x; one image at a "
            f"time, one thread){slower}"
        )
    yield f"{exported.directory / MODEL_CARD}: description, usage, training, results, limitations"


def _load(config: ExportConfig) -> Teacher:
    """Load the student on the CPU, even if it is already open on another device."""
    if isinstance(config.student, Teacher):
        directory = config.student.directory
    else:
        directory = find_student(config.student, config.runs)
    return load_teacher(directory, trust_builder=config.trust_builder)


def _history(student: Teacher, runs: Path) -> History:
    record = artifact.read_card(student.directory, "teacher").get("record") or {}
    return History(
        record=record,
        origins=provenance.find_origins(record, runs),
        evaluation=_evaluation(student),
    )


def _evaluation(student: Teacher) -> Mapping[str, Any] | None:
    """Return the student's evaluation.json, or None if there is none of exactly this student."""
    with contextlib.suppress(ArtifactError, OSError):
        body = artifact.read_json(student.directory / report.RESULT)
        needed = ("labeled", "num_images", "top1")
        is_complete = all(name in body for name in needed)
        if is_complete and body.get("student_digest") == student.card.digest:
            return body
    return None


@contextlib.contextmanager
def _readable_record(directory: Path) -> Iterator[None]:
    """Report a malformed record or evaluation as one line, because no digest covers them."""
    try:
        yield
    except ArtifactError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtifactError(
            f"{directory}: the record in its {CARD}, or its evaluation.json, cannot be read "
            f"({type(error).__name__}: {error}): copy the student again from its source"
        ) from error


def _samples(source: str | None, int8: str, student: Teacher) -> SampleImages | None:
    """Return images for the check and for calibration; None if there is no source of images."""
    if source is None:
        log.warning(
            "the student's shards are not under RUNS/shards, and --images is not given: the files "
            "are checked on noise"
        )
        return None
    num = NUM_CHECKED
    if int8 != "none":
        num = quantize.NUM_MEASURED + quantize.NUM_CALIBRATION * (int8 == "static")
    samples = sample_images.gather_samples(source, num, student.geometry)
    for reason, count in samples.dropped.items():
        log.warning("%s: dropped %d as %s", source, count, reason)
    return samples


def _make(
    student: Teacher,
    history: History,
    directory: Path,
    kinds: Sequence[str],
    int8: str,
    samples: SampleImages | None,
) -> dict[str, Any]:
    """Write the files into `directory`, and return the body of the card with the measurements."""
    export_directory.remove_stale(directory)
    # The temporary directory is on the same disk. If a step fails, the previous export is intact.
    with tempfile.TemporaryDirectory(prefix=NEW_PREFIX, dir=directory) as temporary:
        new = Path(temporary)
        body = _write_programs(student, new, kinds, samples)
        if int8 != "none":
            assert samples is not None
            path = new / quantize.FILE
            gain = quantize.quantize_file(new / formats.FILES["onnx"], path, int8, samples)
            body["files"].append(file_entry(path))
            body["int8"] = asdict(gain)
        with _readable_record(student.directory), artifact.writing(new / MODEL_CARD) as card:
            card.write_text(_model_card(student, history, body))
        body["files"].append(file_entry(new / MODEL_CARD))
        export_directory.replace_files(directory, new)
    return body


def _write_programs(
    student: Teacher, new: Path, kinds: Sequence[str], samples: SampleImages | None
) -> dict[str, Any]:
    """Write and check a program of each kind; raise ExportError if one is wrong."""
    batches = _batches(student, samples)
    num = min(NUM_CHECKED, len(samples)) if samples else NUM_CHECKED
    images = f"{num} images" if samples else f"{num} images of noise (no real images)"
    if formats.spread(student, batches[-1]) < MIN_SPREAD_GAPS * formats.MAX_PARITY_GAP:
        log.warning(
            "%s gives nearly the same logits for every image: it has learned little, so the "
            "check of its files is weak",
            student.directory,
        )
    program = formats.trace(student)
    parity, files = {}, []
    for kind in kinds:
        path = new / formats.FILES[kind]
        formats.write(student, program, kind, path)
        parity[path.name] = formats.parity(student, path, batches)
        files.append(file_entry(path))
        log.debug("%s: written and checked", path.name)
    sizes = [len(batch) for batch in batches]
    return {
        "student_digest": student.card.digest,
        "builder": student.card.builder,
        "facts": formats.facts(student),
        "files": files,
        "parity": parity,
        "parity_images": f"{images}, in batches of {', '.join(map(str, sizes))}",
        "batch_sizes": sizes,
        "versions": _versions(),
    }


def _batches(student: Teacher, samples: SampleImages | None) -> list[Pixels]:
    """Return a batch of each size to check; images repeat if there are too few."""
    if samples is None:
        pixels = sample_images.noise(NUM_CHECKED, student.card.input_size)
    else:
        (pixels,) = samples.batches(0, NUM_CHECKED, NUM_CHECKED)
    rows = itertools.cycle(range(len(pixels)))
    return [pixels[list(itertools.islice(rows, count))] for count in formats.BATCH_SIZES]


def _model_card(student: Teacher, history: History, body: Mapping[str, Any]) -> str:
    facts = model_card.CardFacts(
        name=student.directory.resolve().name,
        card=student.card,
        num_parameters=sum(parameter.numel() for parameter in student.net.parameters()),
        record=history.record,
        origins=history.origins,
        evaluation=history.evaluation,
        bytes_of={entry["name"]: entry["bytes"] for entry in body["files"]},
        parity=body["parity"],
        parity_images=body["parity_images"],
        gain=Gain(**body["int8"]) if "int8" in body else None,
    )
    return model_card.write(facts)


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
