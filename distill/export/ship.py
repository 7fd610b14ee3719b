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

from distill import lineage
from distill.evaluation import report, standings
from distill.export import handful, modelcard, programs, quantise
from distill.export.handful import Handful
from distill.lineage import Origin
from indexes import artefact, teachers
from indexes.artefact import CARD, ArtefactError
from indexes.images import Pixels
from indexes.teachers import Teacher

VERSION = 2  # of what an export is: one of another version is made again
MODEL_CARD = "MODEL_CARD.md"
OURS = (CARD, *programs.FILES.values(), quantise.FILE, MODEL_CARD, ".lock")
NUM_GAPS = 10  # of the gap allowed: answers this close tell a right file from a wrong one badly
NUM_TRIED = sum(programs.BATCH_SIZES)
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

    Raises ValueError (TeacherError, ArtefactError, ExportError, ...) for what cannot be.
    """
    formats = programs.read_formats(formats_text)
    place = standings.find(student, runs)
    opened = teachers.open(place, trust_builder=trust_builder)
    with _readable_record(place):
        record = artefact.read_card(place, "teacher").get("record") or {}
        origins = lineage.origins(record, runs)
    found = next((str(one.directory) for one in origins if one.directory), None)
    source = images or found
    quantise.check_kind(int8, formats, source is not None)
    if "onnx" in formats:
        programs.check_extra()
    directory = out or place / "export"
    evaluation = _evaluation(place, opened.card.digest)
    inputs = {
        "student_digest": opened.card.digest,
        "formats": sorted(formats),
        "int8": int8,
        "images": images or (origins[0].digest if found else None),
        # What the model card tells besides: after a new evaluation the export is made anew.
        "told": artefact.digest([[one.summary for one in origins], record, evaluation]),
        "version": VERSION,
    }
    _refuse_foreign(directory)
    with artefact.locked(directory, wait=False):
        if _is_whole(directory, inputs):
            print(f"{directory}: was exported before")
            return
        for stale in directory.glob(f"{ASIDE}*"):
            shutil.rmtree(stale)
        pictures = _pictures(source, int8, opened)
        # Aside, on the same disk: where it fails, an export that was there before still is.
        with tempfile.TemporaryDirectory(prefix=ASIDE, dir=directory) as aside:
            new = Path(aside)
            body = _make(opened, directory, new, formats, int8, pictures)
            with _readable_record(place), artefact.writing(new / MODEL_CARD) as card:
                card.write_text(_model_card(opened, record, origins, evaluation, body))
            body["files"].append(_file(new / MODEL_CARD))
            _clear(directory)
            for one in body["files"]:
                (new / one["name"]).replace(directory / one["name"])
        artefact.write_card(directory, "export", {"inputs": inputs, **body})
    print(f"{directory / MODEL_CARD}: what it is, how to run it, where it came from")


@contextlib.contextmanager
def _readable_record(place: Path) -> Iterator[None]:
    """A record or evaluation of another make is one line: neither is covered by a digest."""
    try:
        yield
    except ArtefactError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtefactError(
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
    told = modelcard.Told(
        name=student.directory.resolve().name,
        card=student.card,
        num_parameters=sum(one.numel() for one in student.net.parameters()),
        record=record,
        origins=origins,
        evaluation=evaluation,
        bytes_of={one["name"]: one["bytes"] for one in body["files"]},
        parity=body["parity"],
        parity_images=body["parity_images"],
        gain=quantise.Gain(**body["int8"]) if "int8" in body else None,
    )
    return modelcard.write(told)


def _make(
    student: Teacher,
    directory: Path,
    new: Path,
    formats: list[str],
    int8: str,
    pictures: Handful | None,
) -> dict[str, Any]:
    """The files and what was measured of them, as the body of the card.

    They are written in `new`, and told as what they will be in `directory`.
    """
    batches = _batches(student, pictures)
    num = min(sum(map(len, batches)), len(pictures) if pictures else NUM_TRIED)
    where = f"{num} images" if pictures else f"{num} images of noise, as no real ones were found"
    sizes = ", ".join(str(len(one)) for one in batches)
    if programs.spread(student, batches[-1]) < NUM_GAPS * programs.MAX_PARITY_GAP:
        print(
            f"{student.directory} answers nearly the same to every image: it has learnt little, "
            "and the check of its files says little",
            file=sys.stderr,
            flush=True,
        )
    program = programs.trace(student)
    parity, files = {}, []
    for kind in formats:
        path = new / programs.FILES[kind]
        programs.write(student, program, kind, path)
        parity[path.name] = programs.parity(student, path, batches)
        files.append(_file(path))
        print(
            f"{directory / path.name}: {path.stat().st_size / 1e6:.2f} MB, logits within "
            f"{parity[path.name]:.2g} of the student's on {where}, in batches of {sizes}"
        )
    body: dict[str, Any] = {
        "student_digest": student.card.digest,
        "builder": student.card.builder,
        "facts": programs.facts(student),
        "files": files,
        "parity": parity,
        "parity_images": f"{where}, in batches of {sizes}",
        "batch_sizes": [len(one) for one in batches],
        "versions": _versions(),
    }
    if int8 != "none":
        assert pictures is not None
        path = new / quantise.FILE
        gain = quantise.quantise(new / programs.FILES["onnx"], path, int8, pictures)
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


def _pictures(source: str | None, int8: str, student: Teacher) -> Handful | None:
    if source is None:
        print("no images: name some with --images; tried on noise", file=sys.stderr, flush=True)
        return None
    calibrated = int8 == "static"
    num = NUM_TRIED
    if int8 != "none":
        num = quantise.NUM_MEASURED + quantise.NUM_CALIBRATION * calibrated
    found = handful.gather(source, num, student.geometry)
    for reason, count in found.dropped.items():
        print(f"{source}: dropped {count:,} {reason}", file=sys.stderr, flush=True)
    return found


def _batches(student: Teacher, pictures: Handful | None) -> list[Pixels]:
    """Images in the batch sizes to be tried; each is tried, whatever few images there are."""
    size, num = student.card.input_size, NUM_TRIED
    if pictures is None:
        pixels = handful.noise(num, size)
    else:
        (pixels,) = pictures.batches(0, num, num)
    rows = itertools.cycle(range(len(pixels)))
    return [pixels[list(itertools.islice(rows, count))] for count in programs.BATCH_SIZES]


def _evaluation(place: Path, digest: str) -> Mapping[str, Any] | None:
    """evaluation.json beside the student where it is of this very student."""
    with contextlib.suppress(ArtefactError, OSError):
        found = artefact.read_json(place / report.RESULT)
        needed = ("labelled", "num_images", "top1")
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
    return {"name": path.name, "bytes": size, "sha256": artefact.sha256(path)}


def _refuse_foreign(directory: Path) -> None:
    """ArtefactError where `directory` holds anything that is not an export of ours."""
    if artefact.is_done(directory):
        card = artefact.read_json(directory / CARD)
        if card.get("kind") != "export":
            raise ArtefactError(
                f"{directory} holds {card.get('kind')!r}, not an export: name another directory "
                "with --out"
            )
    elif directory.exists():
        if not directory.is_dir():
            raise ArtefactError(f"{directory} is a file: name a directory with --out")
        foreign = sorted(
            one.name
            for one in directory.iterdir()
            if one.name not in OURS and not one.name.startswith(".")
        )
        if foreign:
            raise ArtefactError(
                f"{directory} is not an export and not empty (it holds {foreign[0]}): name "
                "another directory with --out"
            )


def _is_whole(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether an export of these inputs is there, each file as it was written."""
    if not artefact.is_done(directory):
        return False
    card = artefact.read_json(directory / CARD)
    if card.get("schema") != artefact.SCHEMAS["export"] or card.get("inputs") != dict(inputs):
        return False
    return all(_file(directory / one["name"]) == one for one in card["files"])


def _clear(directory: Path) -> None:
    """Removes an export, its card first."""
    for name in OURS:
        if name != ".lock":
            (directory / name).unlink(missing_ok=True)
