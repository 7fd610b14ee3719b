"""A teacher is a directory of card.json and model.safetensors, loaded and saved only here."""

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
    """An opened teacher: never trains, carries its own normalization."""

    def __init__(self, card: Card, directory: Path, net: Net) -> None:
        self.card = card
        self.directory = directory
        self.net = net

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the teacher's canonical view."""
        card = self.card
        return Geometry(card.input_size, card.crop_frac, card.interpolation)

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weight [C, D] and bias [C] of the last Linear."""
        return self.net.head

    def __call__(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, 3, H, W] in [0, 1] -> map, features [B, D], logits [B, C]; no gradient."""
        import torch

        with torch.no_grad():
            return self.net(pixels_B3HW)


def load_teacher(
    directory: str | Path, *, device: str | torch.device = "cpu", trust_builder: bool = False
) -> Teacher:
    """The teacher in `directory`, in evaluation mode, without gradients.

    Raises TeacherError for a directory that is missing or unfinished, weights or a card that
    were altered since they were written, and a builder that needs `trust_builder`.

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
        with torch.random.fork_rng(devices=[]):  # initial weights that are replaced at once
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
    """Writes `net` as a teacher directory, the card last; a trained student is saved so too.

    `record` is kept in the card for people to read (how it was made) and is not in the digest.
    Raises TeacherError, before anything is written, where the class names are not as many as the
    head's rows or a value cannot stand in a card.
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
    # There is no card while the weights are replaced: half of each is never taken for a teacher.
    (directory / artifact.CARD).unlink(missing_ok=True)
    with artifact.writing(directory / WEIGHTS) as aside:
        # Copies, because safetensors refuses tensors that share memory (tied weights).
        state = {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}
        # Not save_file, which leaves a file that only its owner may read.
        aside.write_bytes(serialize(state))
        weights = {"bytes": aside.stat().st_size, "sha256": artifact.sha256(aside)}
    digest = artifact.digest({**defining, "weights": weights["sha256"]})
    body = {**defining, **about, "digest": digest, "weights": {"name": WEIGHTS, **weights}}
    artifact.write_card(directory, "teacher", body)
    return checked_card(body, directory)


def resolve_teacher(spec: str | None, runs: str | Path) -> Path:
    """The directory of a teacher: a path, a name under runs/teachers, or None for the only one.

    Raises UnknownName, which lists the teachers there are and shows how to import one.
    """
    folder = Path(runs) / "teachers"
    known = sorted(card.parent.name for card in folder.glob(f"*/{artifact.CARD}"))
    listing = f"in {folder} there are: {', '.join(known)}" if known else f"{folder} holds none"
    if spec is None:
        if len(known) == 1:
            return folder / known[0]
        state = "say which teacher" if known else "no teacher yet"
        raise UnknownName(f"{state}: {listing}; {HOW_TO_IMPORT}")
    for directory in (Path(spec), folder / spec):
        if artifact.is_done(directory):
            return directory
    if Path(spec).is_dir():
        return Path(spec)  # unfinished: load_teacher says what is missing there
    raise UnknownName(f"no teacher {spec!r}: {listing}; {HOW_TO_IMPORT}")


def find_teacher(digest: str, runs: str | Path) -> Path:
    """The directory under runs/teachers of the very teacher that an artifact was made with.

    Raises TeacherError when none of those there has this digest.
    """
    folder = Path(runs) / "teachers"
    for card in sorted(folder.glob(f"*/{artifact.CARD}")):
        # A damaged teacher beside it, or a damaged copy of it, does not matter.
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
    """The teacher that labeled `shards`: named as in `resolve_teacher`, or None to search for it.

    Raises TeacherError where it cannot be found, ArtifactError where `spec` is another one.
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
            f"{path} has {size} bytes, its card says {written.get('bytes')}; {again}"
        )
    if artifact.sha256(path) != written["sha256"]:
        raise TeacherError(f"{path} is not the file that its card describes (sha256); {again}")
    defining = asdict(card)
    for field in ("digest", "accuracy", "note"):
        del defining[field]
    if artifact.digest({**defining, "weights": written["sha256"]}) != card.digest:
        raise TeacherError(f"{directory / artifact.CARD} was edited after it was written; {again}")


def teacher_record(teacher: Teacher) -> dict[str, Any]:
    """What an artifact records of its teacher."""
    card = teacher.card
    return {
        "digest": card.digest,
        "name": teacher.directory.name,
        "builder": card.builder,
        "input_size": card.input_size,
        "crop_frac": card.crop_frac,
        "interpolation": card.interpolation,
    }
