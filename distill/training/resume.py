"""The directory of a student: its log, its checkpoints, and at the end the student itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from distill.distributed import SINGLE, ProcessGroup
from distill.recipe import Recipe
from indexes import artifact, checkpoint
from indexes.checkpoint import LOG
from indexes.models.net import Net
from indexes.models.teacher import Card, save_teacher

NUM_LINES = 20  # the last lines of the log, which are copied into the student's card
RECIPE = {
    f"recipe.{field.name}": field.default
    for field in fields(Recipe)
    if field.default not in (None, MISSING)
}
"""Values of recorded inputs that lack a setting of the recipe, because it was added later."""


class StudentCheckpoint:
    """The saved state of one student; of several processes, the first one writes.

    `inputs` is all that the student's weights depend on. A directory with other inputs is refused.
    """

    def __init__(
        self, directory: Path, inputs: Mapping[str, Any], group: ProcessGroup = SINGLE
    ) -> None:
        self.directory, self.inputs, self.group = directory, artifact.plain(inputs), group

    def load(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, or None if there is none; drop later lines of the log.

        Raises ArtifactError if the checkpoint belongs to other inputs.
        """
        state = checkpoint.load(self.directory)
        if state is not None:
            refuse_others(self.directory, state.get("inputs"), self.inputs)
        if self.group.is_first:
            checkpoint.trim_log(self.directory, 0 if state is None else int(state["step"]))
        return state

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint from which any number of processes can continue."""
        if self.group.is_first:
            checkpoint.save(self.directory, {"inputs": self.inputs, "step": step, **state})

    def remove(self) -> None:
        """Delete the checkpoints."""
        if self.group.is_first:
            checkpoint.remove(self.directory)

    def write_log(self, step: int, body: Mapping[str, Any]) -> None:
        """Append a line to the log file."""
        if self.group.is_first:
            checkpoint.write_log(self.directory, step, body)

    def save_student(
        self, net: Net, teacher: Card, agreement: float, lineage: Sequence[Mapping[str, Any]]
    ) -> None:
        """Save the net as a teacher directory and delete the checkpoints."""
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
    """Return whether `directory` holds a net that was trained from exactly `inputs`.

    If so, leftover checkpoints are deleted. Raises ArtifactError if the directory holds a finished
    net of other inputs; the message names the differences.
    """
    if not artifact.is_done(directory):
        return False
    record = artifact.read_card(directory, "teacher").get("record") or {}
    refuse_others(directory, record.get("inputs"), inputs)
    checkpoint.remove(directory)
    return True


def forget(directory: Path) -> None:
    """Delete the card, the log and the checkpoints of an earlier training."""
    (directory / artifact.CARD).unlink(missing_ok=True)
    (directory / LOG).unlink(missing_ok=True)
    checkpoint.remove(directory)


def refuse_others(directory: Path, recorded: Any, inputs: Mapping[str, Any]) -> None:
    """Raise ArtifactError, which names the differences, unless the recorded inputs are `inputs`."""
    before = RECIPE | _flat(recorded if isinstance(recorded, Mapping) else {})
    now = RECIPE | _flat(artifact.plain(inputs))
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
        elif item is not None:  # None may be a setting that a later version added
            flat[prefix + key] = item
    return flat
