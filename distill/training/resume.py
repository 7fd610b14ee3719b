"""The directory of one student: its log, its checkpoints, and in the end the student itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.distributed import SINGLE, ProcessGroup
from indexes import artifact, checkpoint
from indexes.checkpoint import LOG
from indexes.models.net import Net
from indexes.models.teacher import Card, save_teacher

NUM_LINES = 20  # of the log, which the card of a student shows


class StudentCheckpoint:
    """Saves and resumes one student; of several processes the first one writes.

    `inputs` is all that the student's weights depend on: a directory of other inputs is refused.
    """

    def __init__(
        self, directory: Path, inputs: Mapping[str, Any], group: ProcessGroup = SINGLE
    ) -> None:
        self.directory, self.inputs, self.group = directory, artifact.plain(inputs), group

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint, None where there is none; drops log lines of later steps.

        Raises ArtifactError for a checkpoint of other inputs.
        """
        state = checkpoint.load(self.directory)
        if state is not None:
            refuse_others(self.directory, state.get("inputs"), self.inputs)
        if self.group.is_first:
            checkpoint.trim_log(self.directory, 0 if state is None else int(state["step"]))
        return state

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint from which any number of processes can go on."""
        if self.group.is_first:
            checkpoint.save(self.directory, {"inputs": self.inputs, "step": step, **state})

    def remove(self) -> None:
        """Deletes the checkpoints."""
        if self.group.is_first:
            checkpoint.remove(self.directory)

    def write_log(self, step: int, body: Mapping[str, Any]) -> None:
        """Appends a line to the log file."""
        if self.group.is_first:
            checkpoint.write_log(self.directory, step, body)

    def save_student(
        self, net: Net, teacher: Card, agreement: float, lineage: Sequence[Mapping[str, Any]]
    ) -> None:
        """Saves the net as a teacher directory and deletes the checkpoints."""
        if not self.group.is_first:
            return
        log = (self.directory / LOG).read_text().splitlines()
        save_teacher(
            self.directory,
            net.eval(),
            classes=teacher.classes,
            input_size=teacher.input_size,
            crop_frac=teacher.crop_frac,
            interpolation=teacher.interpolation,
            note=f"student of {teacher.builder}",
            record={
                "inputs": self.inputs,
                "agreement": agreement,
                "lineage": lineage,
                "log": [json.loads(line) for line in log[-NUM_LINES:]],
            },
        )
        checkpoint.remove(self.directory)


def is_finished(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether `directory` holds a net that was trained from exactly `inputs`.

    Raises ArtifactError for a finished net of other inputs; the message names what differs.
    """
    if not artifact.is_done(directory):
        return False
    record = artifact.read_card(directory, "teacher").get("record") or {}
    refuse_others(directory, record.get("inputs"), inputs)
    checkpoint.remove(directory)
    return True


def forget(directory: Path) -> None:
    """Removes what an earlier training left: card, log and checkpoints."""
    (directory / artifact.CARD).unlink(missing_ok=True)
    (directory / LOG).unlink(missing_ok=True)
    checkpoint.remove(directory)


def refuse_others(directory: Path, recorded: Any, inputs: Mapping[str, Any]) -> None:
    """ArtifactError, which names what differs, unless the recorded inputs equal `inputs`."""
    before = _flat(recorded if isinstance(recorded, Mapping) else {})
    now = _flat(artifact.plain(inputs))
    if before == now:
        return
    different = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    raise artifact.ArtifactError(
        f"{directory} holds a training with other settings ({'; '.join(different[:4])}): "
        "choose another directory with --out, or start again with --fresh"
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        elif item is not None:  # a setting that a later version brought, at its default
            flat[prefix + key] = item
    return flat
