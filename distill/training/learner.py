"""One student in training: its method and optimizer, and its directory with log and checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill import feature_maps
from distill.distributed import SINGLE, ProcessGroup, average_gradients
from distill.method import Batch, Method, MethodError
from distill.recipe import Recipe
from distill.training import optim
from distill.training.ema import WeightAverage
from distill.training.resume import refuse_others
from indexes import artifact, checkpoint, devices
from indexes.checkpoint import LOG
from indexes.models.net import Net, build_net
from indexes.models.teacher import Card, save_teacher


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor], weight: Tensor | float) -> None:
    for name, value in values.items():
        value = value.detach() * weight
        sums[name] = sums[name] + value if name in sums else value


class Learner:
    """Takes steps, remembers its terms, saves and resumes itself; knows nothing of other students.

    `step` is the first step that it has not taken. Of several processes each holds the same one.
    """

    def __init__(
        self,
        builder: str,
        directory: Path,
        inputs: Mapping[str, Any],
        make: Callable[[Net], Method],
        *,
        teacher: Card,
        recipe: Recipe,
        device: str,
        trust_builder: bool = False,
        group: ProcessGroup = SINGLE,
    ) -> None:
        """Builds the student from the recipe's seed, or takes up the checkpoint in `directory`.

        Raises NetError for an unknown builder, ArtifactError for a checkpoint of other inputs.
        """
        self.builder, self.directory = builder, directory
        self.inputs = artifact.plain(inputs)
        self.recipe, self.device, self.group = recipe, device, group
        self.step = 0
        self.failure: str | None = None
        """What became of it, if it was stopped: diverged, out of memory, refused by its method."""
        torch.manual_seed(recipe.seed)
        net = build_net(
            builder,
            num_classes=len(teacher.classes),
            mean=teacher.mean,
            std=teacher.std,
            input_size=teacher.input_size,
            trust=trust_builder,
        )
        feature_maps.probe_features(net, teacher.input_size)
        self.method = make(net).to(device)
        self.method.module.to(memory_format=torch.channels_last)
        self.method.train()
        own = self.method.own_optimizer()
        self.scheduled = optim.make_optimizers(self.method, recipe.optimizer, own)
        self.optimizers = {**self.scheduled, **({} if own is None else {"own": own})}
        self.average = WeightAverage(self.method.module, recipe.ema) if recipe.ema else None
        self._one = torch.ones((), device=device)
        self._weight, self._summed = torch.zeros((2,), device=device).unbind()
        self._sums: dict[str, Tensor] = {}
        self._observed: dict[str, Tensor] = {}
        self.terms: dict[str, float] = {}
        self.observed: dict[str, float] = {}
        self._resume()
        if group.is_first:
            checkpoint.trim_log(directory, self.step)

    def _resume(self) -> None:
        state = checkpoint.load(self.directory)
        if state is None:
            return
        refuse_others(self.directory, state.get("inputs"), self.inputs)
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step = int(state["step"])

    def learn(self, part: int, batch: Batch, *, progress: float) -> None:
        """Adds the gradient of one part of a step's batch; nothing waits for the device."""
        with self._memory():
            self._learn(part, batch, progress)

    def take(self, *, lr: float) -> None:
        """One step of the optimizers with the gradients of all parts, of all processes."""
        with self._memory():
            self._take(lr)

    @contextlib.contextmanager
    def _memory(self) -> Iterator[None]:
        """Stops the student where there is none left; of several processes all must end then."""
        try:
            yield
        except Exception as error:
            if self.group.num > 1 or not devices.is_out_of_memory(error):
                raise
            self._fail(
                "out of memory",
                f"out of memory at step {self.step + 1}",
                "with more of it the same command goes on from its last checkpoint; with as much, "
                "try --accumulate 2",
            )

    def _learn(self, part: int, batch: Batch, progress: float) -> None:
        recipe, group = self.recipe, self.group
        # Dropout and the like draw from (seed, place): resumed and shared passes draw the same.
        place = (self.step * recipe.accumulate + part) * group.num + group.rank
        torch.manual_seed((recipe.seed * 1_000_003 + place) % 2**63)
        self.method.observed = {}
        # Apart: autocast may keep a weight, rounded without gradient, for the rest of a block.
        with torch.no_grad(), devices.autocast(self.device):
            batch = self.method.select_batch(batch, progress)
        with devices.autocast(self.device):
            terms = self.method.losses(batch, progress)
        total = torch.stack(list(terms.values())).sum()
        if part == 0:
            self.method.zero_grad(set_to_none=True)
            self._weight.zero_()
        if recipe.accumulate * group.num == 1:
            weight = self._one
            torch.autograd.backward(total)
        else:
            # Terms are means by weight, so parts count by theirs, as in a batch taken at once.
            weight = batch.weights.sum()
            torch.autograd.backward(total * weight)
        self._weight += weight
        self._summed += weight
        _add(self._sums, {"total": total, **terms}, weight)
        _add(self._observed, self.method.observed, weight)

    def _take(self, lr: float) -> None:
        if self.recipe.accumulate * self.group.num > 1:
            grads = [p.grad for p in self.method.parameters() if p.grad is not None]
            torch._foreach_div_(grads, self._weight.clamp_min(1e-12))
            if self.group.num > 1:
                kept = self.method.state_dict(keep_vars=True).values()  # but for constants
                moving = [b for b in kept if not isinstance(b, nn.Parameter)]
                buffers = [b for b in moving if b.is_floating_point()]
                average_gradients(grads, buffers, self._weight, self.group)
        optim.set_learning_rate(self.scheduled, lr)
        if math.isfinite(self.method.max_grad_norm):
            groups = self.scheduled["sgd"].param_groups  # to Muon length is nothing
            found = [p for group in groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(found, self.method.max_grad_norm)
            _add(self._observed, {"grad_norm": norm}, self._weight)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)

    @contextlib.contextmanager
    def deployed(self) -> Iterator[Net]:
        """The net that would be saved now, within the block: with mean weights if it has them."""
        with self.average.shown() if self.average else contextlib.nullcontext():
            yield self.method.deployed()

    def log(self, **more: Any) -> None:
        """A line of mean terms since the last one; sets `failure` where not all is finite."""
        names = list(self._sums)
        # The weights too: a last step may spoil them after its loss was taken.
        weights = torch.stack([p.detach().float().sum() for p in self.method.parameters()]).sum()
        sums = torch.stack([*self._sums.values(), self._summed, weights])
        *values, num, weight = self.group.all_reduce(sums).tolist()
        num = max(num, 1e-12)  # where no image weighs anything
        self.terms = {name: value / num for name, value in zip(names, values, strict=True)}
        means = {name: self.group.all_reduce(v) / num for name, v in self._observed.items()}
        observed: dict[str, Any] = {name: value.tolist() for name, value in means.items()}
        self.observed = {name: observed[name] for name, value in means.items() if value.ndim == 0}
        self._sums, self._observed = {}, {}
        self._summed.zero_()
        self.write(terms={k: v if math.isfinite(v) else str(v) for k, v in self.terms.items()},
                   **observed, **more)  # fmt: skip
        if not all(map(math.isfinite, [*self.terms.values(), weight])):
            self._fail("diverged", f"no longer finite by step {self.step}", "try a lower --lr")
            return
        try:
            self.method.check(observed)
        except MethodError as error:
            self._fail("refused", f"stopped by its method at step {self.step}", str(error))

    def write(self, **body: Any) -> None:
        """Appends a line to the log file."""
        if self.group.is_first:
            checkpoint.write_log(self.directory, self.step, body)

    def _fail(self, state: str, what: str, mend: str) -> None:
        self.failure = state
        if self.group.is_first and state != "out of memory":
            checkpoint.remove(self.directory)  # from there it would only come to the same
        print(
            f"{self.builder} is {what}: stopped, others go on; {mend}", file=sys.stderr, flush=True
        )
        # Its memory is for the others.
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        self.average = None
        self.method.zero_grad(set_to_none=True)
        self.method.to("meta")
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def save(self) -> None:
        """A checkpoint to go on from, by any number of processes."""
        if not self.group.is_first:
            return
        checkpoint.save(
            self.directory,
            {
                "inputs": self.inputs,
                "step": self.step,
                "method": self.method.state_dict(),
                **{name: one.state_dict() for name, one in self.optimizers.items()},
                **({"average": self.average.state_dict()} if self.average else {}),
            },
        )

    def finish(self, teacher: Card, agreement: float, lineage: Sequence[Mapping[str, Any]]) -> None:
        """Saves the student as a teacher directory and removes the checkpoints."""
        if not self.group.is_first:
            return
        log = (self.directory / LOG).read_text().splitlines()
        with self.deployed() as net:
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
                    "log": [json.loads(line) for line in log[-20:]],
                },
            )
        checkpoint.remove(self.directory)
