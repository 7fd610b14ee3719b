"""Teachers: directories of card.json and model.safetensors, loaded and saved by this module."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexes import artifact
from indexes.images.decode import Geometry
from indexes.models.card import Card, TeacherError, checked_card
from indexes.models.net import Net, NetError, build_net
from indexes.models.weights import load_weights, read_safetensors
from indexes.plugins import UnknownName

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from indexes.shards.reader import Shards

__all__ = ["Card", "Teacher", "TeacherError", "load_teacher", "resolve_teacher", "save_teacher"]

WEIGHTS = "model.safetensors"
HOW_TO_IMPORT = (
    "import one with: winnow import-teacher --builder timm:resnet50 --weights model.safetensors "
    "--classes classes.txt runs/teachers/NAME"
)


class Teacher:
    """An opened teacher, which is never trained and applies its own normalization."""

    def __init__(self, card: Card, directory: Path, net: Net) -> None:
        self.card = card
        self.directory = directory
        self.net = net

    @property
    def geometry(self) -> Geometry:
        """The resize and crop that turn an image into the teacher's canonical view."""
        card = self.card
        return Geometry(card.input_size, card.crop_frac, card.interpolation)

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """The weight [C, D] and bias [C] of the last Linear."""
        return self.net.head

    def __call__(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels [B, 3, H, W] in [0, 1] to map [B, M, h, w], features [B, D] and logits [B, C],
        without gradients.
        """
        import torch

        with torch.no_grad():
            return self.net(pixels_B3HW)


def load_teacher(
    directory: str | Path, *, device: str | torch.device = "cpu", trust_builder: bool = False
) -> Teacher:
    """Load the teacher in `directory`, in evaluation mode and without gradients.

    Raises TeacherError if the directory is missing or unfinished, if its weights or card have
    changed since they were written, or if its builder needs `trust_builder`.

    Example: `load_teacher("runs/teachers/r50").card.classes`
    """
    import torch

    directory = Path(directory)
    try:
        body = artifact.read_card(directory, "teacher")
    except artifact.ArtifactError as error:
        raise TeacherError(f"{error}. A teacher is a directory; {HOW_TO_IMPORT}") from error
    card = checked_card(body, directory)
    _check_files(body, card, directory)
    try:
        with torch.random.fork_rng(devices=[]):  # the random initial weights are replaced at once
            net = build_net(
                card.builder,
                num_classes=len(card.classes),
                arguments=card.arguments,
                mean=card.mean,
                std=card.std,
                trust=trust_builder,
            )
    except NetError as error:
        raise TeacherError(f"{directory}: {error}") from error
    load_weights(net, read_safetensors(directory / WEIGHTS), directory / WEIGHTS)
    net.to(device).eval()
    net.module.requires_grad_(False)
    return Teacher(card, directory, net)


def save_teacher(
    directory: str | Path,
    net: Net,
    *,
    classes: Sequence[str],
    input_size: int,
    crop_frac: float = 1.0,
    interpolation: str = "bilinear",
    accuracy: float | None = None,
    note: str = "",
    record: Mapping[str, Any] | None = None,
) -> Card:
    """Write `net` as a teacher directory, the card last; trained students are saved in this form.

    `record` tells people how the net was made; the card holds it, the digest does not cover it.
    Raises TeacherError, before anything is written, if the number of class names differs from the
    head's number of classes, or if a value is not valid in a card.

    Example: `save_teacher("runs/teachers/r50", net, classes=names, input_size=224)`
    """
    from safetensors.torch import save as serialize

    directory = Path(directory)
    if len(classes) != net.num_classes:
        raise TeacherError(f"{len(classes)} class names for a head of {net.num_classes} classes")
    defining = {
        "builder": net.builder,
        "arguments": artifact.plain(net.arguments),
        "classes": list(classes),
        "mean": list(net.mean),
        "std": list(net.std),
        "input_size": input_size,
        "crop_frac": float(crop_frac),
        "interpolation": interpolation,
    }
    about = {"accuracy": accuracy, "note": note, "record": artifact.plain(record or {})}
    unwritten = {"digest": "", "weights": {"bytes": 0, "sha256": ""}}
    checked_card({**defining, **about, **unwritten}, directory)
    # Remove the card while the weights are replaced, so that no mixture is taken for a teacher.
    (directory / artifact.CARD).unlink(missing_ok=True)
    with artifact.writing(directory / WEIGHTS) as aside:
        # Copy, because safetensors refuses tensors that share memory (tied weights).
        state = {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}
        # save_file would leave a file that only its owner may read.
        aside.write_bytes(serialize(state))
        weights = {"bytes": aside.stat().st_size, "sha256": artifact.sha256(aside)}
    digest = artifact.digest({**defining, "weights": weights["sha256"]})
    body = {**defining, **about, "digest": digest, "weights": {"name": WEIGHTS, **weights}}
    artifact.write_card(directory, "teacher", body)
    return checked_card(body, directory)


def resolve_teacher(spec: str | None, runs: str | Path) -> Path:
    """Return a teacher's directory, given a path, a name under runs/teachers, or None for the only
    teacher there.

    Raises UnknownName, which lists the existing teachers and shows how to import one.
    """
    folder = Path(runs) / "teachers"
    known = sorted(card.parent.name for card in folder.glob(f"*/{artifact.CARD}"))
    listing = f"{folder} holds: {', '.join(known)}" if known else f"{folder} holds none"
    if spec is None:
        if len(known) == 1:
            return folder / known[0]
        state = "name a teacher" if known else "there is no teacher yet"
        raise UnknownName(f"{state}: {listing}; {HOW_TO_IMPORT}")
    for directory in (Path(spec), folder / spec):
        if artifact.is_done(directory):
            return directory
    if Path(spec).is_dir():
        return Path(spec)  # unfinished: load_teacher reports what is missing there
    raise UnknownName(f"no teacher {spec!r}: {listing}; {HOW_TO_IMPORT}")


def find_teacher(digest: str, runs: str | Path) -> Path:
    """Return the directory under runs/teachers of the teacher with this digest.

    Raises TeacherError if no whole teacher there has this digest.
    """
    folder = Path(runs) / "teachers"
    for card in sorted(folder.glob(f"*/{artifact.CARD}")):
        # Ignore damaged teachers: another copy may be whole.
        with contextlib.suppress(artifact.ArtifactError):
            body = artifact.read_json(card)
            if body.get("digest") == digest:
                _check_files(body, checked_card(body, card.parent), card.parent)
                return card.parent
    raise TeacherError(
        f"no whole teacher in {folder} has the digest {digest[:12]}: name its directory with "
        "--teacher"
    )


def load_labeler(
    shards: Shards,
    spec: str | None,
    runs: str | Path,
    *,
    device: str | torch.device = "cpu",
    trust_builder: bool = False,
) -> Teacher:
    """Load the teacher that labeled `shards`, given as in `resolve_teacher`; None searches for it.

    Raises TeacherError if it cannot be found, and ArtifactError if `spec` names another teacher.
    """
    directory = (
        find_teacher(shards.teacher_digest, runs) if spec is None else resolve_teacher(spec, runs)
    )
    teacher = load_teacher(directory, device=device, trust_builder=trust_builder)
    shards.check_teacher(teacher.card.digest)
    return teacher


def _check_files(body: Mapping[str, Any], card: Card, directory: Path) -> None:
    path = directory / WEIGHTS
    again = "copy the teacher again from where it came, or import it again"
    if not path.is_file():
        raise TeacherError(f"{path} is missing; {again}")
    written = body["weights"]
    size = path.stat().st_size
    if size != written["bytes"]:
        raise TeacherError(
            f"{path} has {size} bytes, but its card says {written.get('bytes')}; {again}"
        )
    if artifact.sha256(path) != written["sha256"]:
        raise TeacherError(f"{path} differs from the file its card describes (sha256); {again}")
    defining = asdict(card)
    for field in ("digest", "accuracy", "note"):
        del defining[field]
    if artifact.digest({**defining, "weights": written["sha256"]}) != card.digest:
        raise TeacherError(f"{directory / artifact.CARD} was edited after it was written; {again}")


def teacher_record(teacher: Teacher) -> dict[str, Any]:
    """Return the fields that an artifact records of its teacher."""
    card = teacher.card
    return {
        "digest": card.digest,
        "name": teacher.directory.name,
        "builder": card.builder,
        "input_size": card.input_size,
        "crop_frac": card.crop_frac,
        "interpolation": card.interpolation,
    }
