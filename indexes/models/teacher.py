"""The only door to a teacher: a directory of card.json and model.safetensors, opened or saved."""

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

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from indexes.shards.reader import Shards

__all__ = ["Card", "Teacher", "TeacherError", "load_teacher", "resolve_teacher", "save_teacher"]

WEIGHTS = "model.safetensors"
NUM_SHOWN = 3
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

    def batch_norms(self) -> list[tuple[str, Tensor, Tensor]]:
        """(name, running mean [D], running variance [D]) of each BatchNorm, in the net's order."""
        import torch

        return [
            (name, one.running_mean, one.running_var)
            for name, one in self.net.module.named_modules()
            if isinstance(getattr(one, "running_mean", None), torch.Tensor)
            and isinstance(one.running_var, torch.Tensor)
        ]


def load_teacher(
    directory: str | Path, *, device: str | torch.device = "cpu", trust_builder: bool = False
) -> Teacher:
    """The teacher in `directory`, in evaluation mode, without gradients.

    Raises TeacherError for a directory that is missing or unfinished, weights or a card that
    were altered since they were written, and a builder that needs `trust_builder`.
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
    answers = {
        "builder": net.builder,
        "arguments": artifact.plain(net.arguments),
        "classes": list(classes),
        "mean": list(net.mean),
        "std": list(net.std),
        "input_size": input_size,
        "crop_frac": float(crop_frac),
        "interpolation": interpolation,
    }
    told = {"accuracy": accuracy, "note": note, "record": artifact.plain(record or {})}
    unwritten = {"digest": "", "weights": {"bytes": 0, "sha256": ""}}
    checked_card({**answers, **told, **unwritten}, directory)
    # While the weights are replaced there is no card: half of each is never taken for a teacher.
    (directory / artifact.CARD).unlink(missing_ok=True)
    with artifact.writing(directory / WEIGHTS) as aside:
        # Copies, because safetensors refuses tensors that share memory (tied weights).
        state = {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}
        # Not save_file, which leaves a file that only its owner may read.
        aside.write_bytes(serialize(state))
        weights = {"bytes": aside.stat().st_size, "sha256": artifact.sha256(aside)}
    digest = artifact.digest({**answers, "weights": weights["sha256"]})
    body = {**answers, **told, "digest": digest, "weights": {"name": WEIGHTS, **weights}}
    artifact.write_card(directory, "teacher", body)
    return checked_card(body, directory)


def resolve_teacher(spec: str | None, runs: str | Path) -> Path:
    """The directory meant by `spec`: a path, a name under runs/teachers, or None for the only one.

    Raises TeacherError, which lists the teachers there are and shows how to import one.
    """
    shelf = Path(runs) / "teachers"
    known = sorted(p.name for p in shelf.iterdir() if artifact.is_done(p)) if shelf.is_dir() else []
    there = f"in {shelf} there are: {', '.join(known)}" if known else f"{shelf} holds none"
    if spec is None:
        if len(known) == 1:
            return shelf / known[0]
        which = "say which teacher" if known else "no teacher yet"
        raise TeacherError(f"{which}: {there}; {HOW_TO_IMPORT}")
    for place in (Path(spec), shelf / spec):
        if artifact.is_done(place):
            return place
    if Path(spec).is_dir():
        # An unfinished one: open() says what is missing there.
        return Path(spec)
    raise TeacherError(f"no teacher {spec!r}: {there}; {HOW_TO_IMPORT}")


def find_teacher(digest: str, runs: str | Path) -> Path:
    """The directory under runs/teachers of the very teacher that an artifact was made with.

    Raises TeacherError when none of those there has this digest.
    """
    shelf = Path(runs) / "teachers"
    for card in sorted(shelf.glob(f"*/{artifact.CARD}")):
        # A damaged teacher beside it, or a damaged copy of it, is not our matter.
        with contextlib.suppress(artifact.ArtifactError, TeacherError):
            body = artifact.read_json(card)
            if body.get("digest") == digest:
                _check_files(body, checked_card(body, card.parent), card.parent)
                return card.parent
    raise TeacherError(
        f"no whole teacher in {shelf} has the digest {digest[:12]}: name its directory with "
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
    """The teacher that labeled `shards`: `spec` as in `resolve`, or None to find it by its digest.

    Raises TeacherError where it cannot be found, ArtifactError where `spec` is another one.
    """
    place = (
        find_teacher(shards.teacher_digest, runs) if spec is None else resolve_teacher(spec, runs)
    )
    teacher = load_teacher(place, device=device, trust_builder=trust_builder)
    shards.check_teacher(teacher.card.digest)
    return teacher


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; TeacherError for a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TeacherError(
            f"{path} cannot be read ({error}): it is missing, damaged or cut off; copy it again"
        ) from error
    return state


def load_weights(net: Net, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copies weights of any float type into `net`, after a comparison that people can read.

    Raises TeacherError with the two numbers of classes where they differ, or with the first few
    names that are missing, surplus or of another shape.
    """
    expected = net.state_dict()
    head = f"{net.head_name}.weight"
    if head in state and state[head].shape[0] != net.num_classes:
        raise TeacherError(
            f"{source} has a head of {state[head].shape[0]} classes ({head}), but "
            f"{net.num_classes} class names were given"
        )
    # Counters that old checkpoints lack; only a BatchNorm without momentum would read them.
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
    state = {**counters, **state}
    missing = [f"{key} is missing" for key in expected if key not in state]
    surplus = [f"{key} is not in {net.builder}" for key in state if key not in expected]
    shapes = [
        f"{key} is {list(state[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    types = [
        f"{key} is {state[key].dtype}"
        for key, value in expected.items()
        if key in state and state[key].is_floating_point() != value.is_floating_point()
    ]
    wrong = [group[:NUM_SHOWN] for group in (shapes, missing, surplus, types)]
    num_wrong = len(shapes) + len(missing) + len(surplus) + len(types)
    if num_wrong:
        listed = "; ".join(line for group in wrong for line in group)
        more = num_wrong - sum(map(len, wrong))
        raise TeacherError(
            f"{source} does not fit {net.builder}: {listed}"
            + (f"; and {more} more" if more else "")
            + _stem_hint(state, expected)
        )
    net.load_state_dict(state)


def _stem_hint(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The commonest slip with ResNets: the stem for 32 pixels against the one for 224."""
    if "conv1.weight" not in state or "conv1.weight" not in expected:
        return ""
    sides = (state["conv1.weight"].shape[-1], expected["conv1.weight"].shape[-1])
    if sides == (3, 7):
        return ". conv1 is 3x3 in the weights: try --builder resnet18 or resnet34, the CIFAR stem"
    if sides == (7, 3):
        return ". conv1 is 7x7 in the weights: try --builder torchvision:resnet18 or its like"
    return ""


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
    answers = asdict(card)
    for field in ("digest", "accuracy", "note"):
        del answers[field]
    if artifact.digest({**answers, "weights": written["sha256"]}) != card.digest:
        raise TeacherError(f"{directory / artifact.CARD} was edited after it was written; {again}")


def teacher_note(teacher: Teacher) -> dict[str, Any]:
    """What an artifact records of the teacher that it was made with."""
    card = teacher.card
    return {
        "digest": card.digest,
        "name": teacher.directory.name,
        "builder": card.builder,
        "input_size": card.input_size,
        "crop_frac": card.crop_frac,
        "interpolation": card.interpolation,
    }
