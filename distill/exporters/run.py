"""From a student's directory to an export of it: files, their check, a model card; the card last.

What `winnow export` does once its options are read.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from distill import provenance
from distill.evaluation import report
from distill.evaluation.compare import find_student
from distill.exporters import formats, model_card, quantize, sample_images
from distill.exporters.sample_images import SampleImages
from distill.provenance import Origin
from indexes import artifact
from indexes.artifact import CARD, ArtifactError
from indexes.images.decode import Pixels
from indexes.models.teacher import Teacher, load_teacher

VERSION = 2  # of what an export is: one of another version is made again
MODEL_CARD = "MODEL_CARD.md"
OURS = (CARD, *formats.FILES.values(), quantize.FILE, MODEL_CARD, ".lock")
NUM_GAPS = 10  # of the gap allowed: answers this close tell a right file from a wrong one badly
NUM_TRIED = sum(formats.BATCH_SIZES)
ASIDE = ".new-"
LIBRARIES = ("torch", "onnx", "onnxruntime")


def export_student(
    student: str,
    out: Path | None,
    formats_text: str,
    int8: str,
    images: str | None,
    runs: Path,
    trust_builder: bool,
) -> None:
    """Writes the export unless it is there whole, and prints a line per file.

    Raises ValueError (TeacherError, ArtifactError, ExportError, ...) for what cannot be.
    """
    chosen = formats.read_formats(formats_text)
    place = find_student(student, runs)
    opened = load_teacher(place, trust_builder=trust_builder)
    with _readable_record(place):
        record = artifact.read_card(place, "teacher").get("record") or {}
        origins = provenance.find_origins(record, runs)
    found = next((str(one.directory) for one in origins if one.directory), None)
    source = images or found
    quantize.check_kind(int8, chosen, source is not None)
    if "onnx" in chosen:
        formats.check_extra()
    directory = out or place / "export"
    evaluation = _evaluation(place, opened.card.digest)
    inputs = {
        "student_digest": opened.card.digest,
        "formats": sorted(chosen),
        "int8": int8,
        "images": images or (origins[0].digest if found else None),
        # What the model card tells besides: after a new evaluation the export is made anew.
        "told": artifact.digest([[one.summary for one in origins], record, evaluation]),
        "version": VERSION,
    }
    _refuse_foreign(directory)
    with artifact.locked(directory, wait=False):
        if _is_whole(directory, inputs):
            print(f"{directory}: was exported before")
            return
        for stale in directory.glob(f"{ASIDE}*"):
            shutil.rmtree(stale)
        pictures = _pictures(source, int8, opened)
        # Aside, on the same disk: where it fails, an export that was there before still is.
        with tempfile.TemporaryDirectory(prefix=ASIDE, dir=directory) as aside:
            new = Path(aside)
            body = _make(opened, directory, new, chosen, int8, pictures)
            with _readable_record(place), artifact.writing(new / MODEL_CARD) as card:
                card.write_text(_model_card(opened, record, origins, evaluation, body))
            body["files"].append(_file(new / MODEL_CARD))
            _clear(directory)
            for one in body["files"]:
                (new / one["name"]).replace(directory / one["name"])
        artifact.write_card(directory, "export", {"inputs": inputs, **body})
    print(f"{directory / MODEL_CARD}: what it is, how to run it, where it came from")


@contextlib.contextmanager
def _readable_record(place: Path) -> Iterator[None]:
    """A record or evaluation of another make is one line: neither is covered by a digest."""
    try:
        yield
    except ArtifactError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtifactError(
            f"{place}: the record in its {CARD}, or its evaluation.json, is not of this winnow "
            f"({type(error).__name__}: {error}): copy the student again from where it came"
        ) from error


def _model_card(
    student: Teacher,
    record: Mapping[str, Any],
    origins: Sequence[Origin],
    evaluation: Mapping[str, Any] | None,
    body: Mapping[str, Any],
) -> str:
    told = model_card.CardFacts(
        name=student.directory.resolve().name,
        card=student.card,
        num_parameters=sum(one.numel() for one in student.net.parameters()),
        record=record,
        origins=origins,
        evaluation=evaluation,
        bytes_of={one["name"]: one["bytes"] for one in body["files"]},
        parity=body["parity"],
        parity_images=body["parity_images"],
        gain=quantize.Gain(**body["int8"]) if "int8" in body else None,
    )
    return model_card.write(told)


def _make(
    student: Teacher,
    directory: Path,
    new: Path,
    chosen: list[str],
    int8: str,
    pictures: SampleImages | None,
) -> dict[str, Any]:
    """The files and what was measured of them, as the body of the card.

    They are written in `new`, and told as what they will be in `directory`.
    """
    batches = _batches(student, pictures)
    num = min(sum(map(len, batches)), len(pictures) if pictures else NUM_TRIED)
    where = f"{num} images" if pictures else f"{num} images of noise, as no real ones were found"
    sizes = ", ".join(str(len(one)) for one in batches)
    if formats.spread(student, batches[-1]) < NUM_GAPS * formats.MAX_PARITY_GAP:
        print(
            f"{student.directory} answers nearly the same to every image: it has learned little, "
            "and the check of its files says little",
            file=sys.stderr,
            flush=True,
        )
    program = formats.trace(student)
    parity, files = {}, []
    for kind in chosen:
        path = new / formats.FILES[kind]
        formats.write(student, program, kind, path)
        parity[path.name] = formats.parity(student, path, batches)
        files.append(_file(path))
        print(
            f"{directory / path.name}: {path.stat().st_size / 1e6:.2f} MB, logits within "
            f"{parity[path.name]:.2g} of the student's on {where}, in batches of {sizes}"
        )
    body: dict[str, Any] = {
        "student_digest": student.card.digest,
        "builder": student.card.builder,
        "facts": formats.facts(student),
        "files": files,
        "parity": parity,
        "parity_images": f"{where}, in batches of {sizes}",
        "batch_sizes": [len(one) for one in batches],
        "versions": _versions(),
    }
    if int8 != "none":
        assert pictures is not None
        path = new / quantize.FILE
        gain = quantize.quantize_file(new / formats.FILES["onnx"], path, int8, pictures)
        files.append(_file(path))
        body["int8"] = asdict(gain)
        faster = gain.int8_images_per_second / gain.float_images_per_second
        print(
            f"{directory / path.name}: {path.stat().st_size / 1e6:.2f} MB, the same class for "
            f"{100 * gain.agreement:.1f} % of {gain.num_measured:,} images, "
            f"{gain.int8_images_per_second:,.0f} images/s against "
            f"{gain.float_images_per_second:,.0f} in float32 ({faster:.2f} x; one at a time, one "
            "thread)"
        )
    return body


def _pictures(source: str | None, int8: str, student: Teacher) -> SampleImages | None:
    if source is None:
        print("no images: name some with --images; tried on noise", file=sys.stderr, flush=True)
        return None
    calibrated = int8 == "static"
    num = NUM_TRIED
    if int8 != "none":
        num = quantize.NUM_MEASURED + quantize.NUM_CALIBRATION * calibrated
    found = sample_images.gather_samples(source, num, student.geometry)
    for reason, count in found.dropped.items():
        print(f"{source}: dropped {count:,} {reason}", file=sys.stderr, flush=True)
    return found


def _batches(student: Teacher, pictures: SampleImages | None) -> list[Pixels]:
    """Images in the batch sizes to be tried; each is tried, whatever few images there are."""
    size, num = student.card.input_size, NUM_TRIED
    if pictures is None:
        pixels = sample_images.noise(num, size)
    else:
        (pixels,) = pictures.batches(0, num, num)
    rows = itertools.cycle(range(len(pixels)))
    return [pixels[list(itertools.islice(rows, count))] for count in formats.BATCH_SIZES]


def _evaluation(place: Path, digest: str) -> Mapping[str, Any] | None:
    """evaluation.json beside the student where it is of this very student."""
    with contextlib.suppress(ArtifactError, OSError):
        found = artifact.read_json(place / report.RESULT)
        needed = ("labeled", "num_images", "top1")
        if found.get("student_digest") == digest and all(name in found for name in needed):
            return found
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _file(path: Path) -> dict[str, Any]:
    """A file as the card tells it; by its name alone where it is not there."""
    if not path.is_file():
        return {"name": path.name}
    size = path.stat().st_size
    return {"name": path.name, "bytes": size, "sha256": artifact.sha256(path)}


def _refuse_foreign(directory: Path) -> None:
    """ArtifactError where `directory` holds anything that is not an export of ours."""
    if artifact.is_done(directory):
        card = artifact.read_json(directory / CARD)
        if card.get("kind") != "export":
            raise ArtifactError(
                f"{directory} holds {card.get('kind')!r}, not an export: name another directory "
                "with --out"
            )
    elif directory.exists():
        if not directory.is_dir():
            raise ArtifactError(f"{directory} is a file: name a directory with --out")
        foreign = sorted(
            one.name
            for one in directory.iterdir()
            if one.name not in OURS and not one.name.startswith(".")
        )
        if foreign:
            raise ArtifactError(
                f"{directory} is not an export and not empty (it holds {foreign[0]}): name "
                "another directory with --out"
            )


def _is_whole(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether an export of these inputs is there, each file as it was written."""
    if not artifact.is_done(directory):
        return False
    card = artifact.read_json(directory / CARD)
    if card.get("schema") != artifact.SCHEMAS["export"] or card.get("inputs") != dict(inputs):
        return False
    return all(_file(directory / one["name"]) == one for one in card["files"])


def _clear(directory: Path) -> None:
    """Removes an export, its card first."""
    for name in OURS:
        if name != ".lock":
            (directory / name).unlink(missing_ok=True)
