"""One student in training: its method and optimiser, and its directory with log and checkpoint."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill import optim, reuse
from distill.method import Batch, Method, MethodError
from distill.recipe import Recipe
from indexes import artefact, checkpoint, devices, nets, teachers
from indexes.checkpoint import LOG


def finished_or_refused(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether `directory` holds a student trained from exactly `inputs`.

    Raises ArtefactError for a finished student of other inputs, saying what differs.
    """
    if not artefact.is_done(directory):
        return False
    record = artefact.read_card(directory, "teacher").get("record") or {}
    _refuse_others(directory, record.get("inputs"), inputs)
    checkpoint.remove(directory)
    return True


def forget(directory: Path) -> None:
    """Removes what an earlier training left: card, log and checkpoint."""
    (directory / artefact.CARD).unlink(missing_ok=True)
    (directory / LOG).unlink(missing_ok=True)
    checkpoint.remove(directory)


def _refuse_others(directory: Path, found: Any, inputs: Mapping[str, Any]) -> None:
    before, now = _flat(found if isinstance(found, Mapping) else {}), _flat(artefact.plain(inputs))
    if before == now:
        return
    different = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    raise artefact.ArtefactError(
        f"{directory} holds a training of other settings ({'; '.join(different[:4])}): "
        "name another directory with --out, or train anew with --fresh"
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        elif item is not None:  # a setting that a later version brought, at its default
            flat[prefix + key] = item
    return flat


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        value = value.detach()
        sums[name] = sums[name] + value if name in sums else value


class Learner:
    """Takes steps, remembers its terms, saves and resumes itself; knows nothing of other students.

    `step` is the first step that it has not taken.
    """

    def __init__(
        self,
        builder: str,
        directory: Path,
        inputs: Mapping[str, Any],
        make: Callable[[nets.Net], Method],
        *,
        teacher: teachers.Card,
        recipe: Recipe,
        device: str,
        trust_builder: bool = False,
    ) -> None:
        """Builds the student from the recipe's seed, or takes up the checkpoint in `directory`.

        Raises NetError for an unknown builder, ArtefactError for a checkpoint of other inputs.
        """
        self.builder, self.directory = builder, directory
        self.inputs = artefact.plain(inputs)
        self.seed, self.device, self.step = recipe.seed, device, 0
        self.failed_at: int | None = None
        torch.manual_seed(recipe.seed)
        net = nets.build(
            builder,
            num_classes=len(teacher.classes),
            mean=teacher.mean,
            std=teacher.std,
            input_size=teacher.input_size,
            trust=trust_builder,
        )
        reuse.look(net, teacher.input_size)
        self.method = make(net).to(device)
        self.method.module.to(memory_format=torch.channels_last)
        self.method.train()
        own = self.method.own_optimizer()
        self.scheduled = optim.make(self.method, recipe.optimizer, own)
        self.optimizers = {**self.scheduled, **({} if own is None else {"own": own})}
        self._sums: dict[str, Tensor] = {}
        self._observed: dict[str, Tensor] = {}
        self._num_summed = 0
        self.terms: dict[str, float] = {}
        self.observed: dict[str, float] = {}
        self._resume()
        checkpoint.trim_log(directory, self.step)

    def _resume(self) -> None:
        state = checkpoint.load(self.directory, self.device)
        if state is None:
            return
        _refuse_others(self.directory, state.get("inputs"), self.inputs)
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        self.step = int(state["step"])

    def take(self, step: int, batch: Batch, *, progress: float, lr: float) -> None:
        """One step of the optimiser; nothing waits for the device."""
        # Dropout and the like draw from (seed, step): resumed and shared passes draw the same.
        torch.manual_seed((self.seed * 1_000_003 + step) % 2**63)
        optim.set_learning_rate(self.scheduled, lr)
        self.method.observed = {}
        with devices.autocast(self.device):
            with torch.no_grad():
                batch = self.method.choose(batch, progress)
            terms = self.method.losses(batch, progress)
        total = torch.stack(list(terms.values())).sum()
        self.method.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        if math.isfinite(self.method.max_grad_norm):
            groups = self.scheduled["sgd"].param_groups  # to Muon length is nothing
            found = [p for group in groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(found, self.method.max_grad_norm)
            self.method.observed["grad_norm"] = norm
        for optimizer in self.optimizers.values():
            optimizer.step()
        _add(self._sums, {"total": total, **terms})
        _add(self._observed, self.method.observed)
        self._num_summed += 1
        self.step = step + 1

    def log(self, **more: Any) -> None:
        """A line of mean terms since the last one; sets `failed_at` where not all is finite."""
        names = list(self._sums)
        # The weights too: a last step may spoil them after its loss was taken.
        weights = torch.stack([p.detach().float().sum() for p in self.method.parameters()]).sum()
        *values, weight = torch.stack([*self._sums.values(), weights]).tolist()
        self.terms = {
            name: value / self._num_summed for name, value in zip(names, values, strict=True)
        }
        means = {name: value / self._num_summed for name, value in self._observed.items()}
        observed: dict[str, Any] = {name: value.tolist() for name, value in means.items()}
        self.observed = {name: observed[name] for name, value in means.items() if value.ndim == 0}
        self._sums, self._observed, self._num_summed = {}, {}, 0
        if not all(map(math.isfinite, [*self.terms.values(), weight])):
            self._fail(f"no longer finite by step {self.step}", "try a lower --lr")
        self.write(terms={k: v if math.isfinite(v) else str(v) for k, v in self.terms.items()},
                   **observed, **more)  # fmt: skip
        try:
            self.method.check(observed)
        except MethodError as error:
            self._fail(f"stopped by its method at step {self.step}", str(error))

    def write(self, **body: Any) -> None:
        """Appends a line to the log file."""
        checkpoint.write_log(self.directory, self.step, body)

    def _fail(self, what: str, mend: str) -> None:
        self.failed_at = self.step
        checkpoint.remove(self.directory)
        print(
            f"{self.builder} is {what}: stopped, others go on; {mend}", file=sys.stderr, flush=True
        )

    def save(self) -> None:
        """A checkpoint to go on from."""
        checkpoint.save(
            self.directory,
            {
                "inputs": self.inputs,
                "step": self.step,
                "method": self.method.state_dict(),
                **{name: one.state_dict() for name, one in self.optimizers.items()},
            },
        )

    def finish(
        self, teacher: teachers.Card, agreement: float, lineage: Sequence[Mapping[str, Any]]
    ) -> teachers.Card:
        """Saves the student as a teacher directory and removes the checkpoint."""
        log = (self.directory / LOG).read_text().splitlines()
        card = teachers.save(
            self.directory,
            self.method.deployed().eval(),
            classes=teacher.classes,
            input_size=teacher.input_size,
            crop_frac=teacher.crop_frac,
            interpolation=teacher.interpolation,
            note=f"student of {teacher.builder}",
            record={
                "inputs": self.inputs,
                "agreement": agreement,
                "lineage": lineage,
                "log": [json.loads(line) for line in log[-20:]],
            },
        )
        checkpoint.remove(self.directory)
        return card
