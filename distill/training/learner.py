"""One student in training: its method, its optimizers, and the work of a step."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.distributed import SINGLE, ProcessGroup, average_gradients
from distill.method import Batch, Method, MethodError, total_loss
from distill.recipe import Recipe
from distill.training import optim
from distill.training.ema import WeightAverage
from distill.training.resume import StudentCheckpoint
from indexes import devices
from indexes.meter import TermMeter
from indexes.models.net import Net

log = logging.getLogger(__name__)


class Learner:
    """One student in training, independent of the others: a failure stops this student alone.

    `num_steps` counts its steps. With several processes, each holds the same student.
    """

    def __init__(
        self,
        builder: str,
        method: Method,
        recipe: Recipe,
        checkpoint: StudentCheckpoint,
        *,
        device: str,
        group: ProcessGroup = SINGLE,
    ) -> None:
        """`method` is newly built from the recipe's seed; its checkpoint, if any, is restored here.

        Raises ArtifactError if the checkpoint belongs to other inputs.
        """
        self.builder, self.recipe, self.checkpoint = builder, recipe, checkpoint
        self.device, self.group = device, group
        self.failure: str | None = None
        """Why the student was stopped: diverged, out of memory, or refused (by its method)."""
        self.method = method.to(device)
        self.method.module.to(memory_format=torch.channels_last)
        self.method.train()
        method_optimizer = self.method.own_optimizer()
        self.scheduled = optim.make_optimizers(
            self.method,
            recipe.optimizer,
            method_optimizer,
            weight_decay=recipe.weight_decay,
            decay_norms=recipe.decay_norms,
            nesterov=recipe.nesterov,
        )
        self.optimizers = dict(self.scheduled)
        if method_optimizer is not None:
            self.optimizers["own"] = method_optimizer
        self.average = WeightAverage(self.method.module, recipe.ema) if recipe.ema else None
        self.meter, self.observed_meter = TermMeter(), TermMeter()
        self.terms: dict[str, float] = {}
        self.observed: dict[str, float] = {}
        self._weight: Tensor | float = 0.0
        state = checkpoint.load()
        self.num_steps = 0 if state is None else int(state["step"])
        if state is not None:
            self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the method, of its optimizers and of the mean weights."""
        return {
            "method": self.method.state_dict(),
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            **({"average": self.average.state_dict()} if self.average else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def backward(self, batch: Batch, part: int, *, progress: float) -> None:
        """Add the gradient of one part of a batch, without waiting for the device."""
        with self._stopped_without_memory():
            self._seed(part)
            self.method.observed = {}
            # A separate block, because autocast may cache weights rounded without a gradient.
            with torch.no_grad(), devices.autocast(self.device):
                batch = self.method.select_batch(batch, progress)
            with devices.autocast(self.device):
                terms = self.method.losses(batch, progress)
            total = total_loss(terms)
            if part == 0:
                self.method.zero_grad(set_to_none=True)
                self._weight = 0.0
            weight: Tensor | float = 1.0
            if self.recipe.accumulate * self.group.num > 1:
                # Terms are weighted means: scaled by their weight, the parts add up to the batch,
                # but for ratios and relations, which stay within a part.
                weight = batch.weights.sum()
                torch.autograd.backward(total * weight)
            else:
                torch.autograd.backward(total)
            self._weight = self._weight + weight
            self.meter.add({"total": total, **terms}, weight)
            self.observed_meter.add(self.method.observed, weight)

    def _seed(self, part: int) -> None:
        """Seed dropout and the like by step, part and rank.

        A student then draws the same numbers after a resume, and beside other students.
        """
        recipe, group = self.recipe, self.group
        position = (self.num_steps * recipe.accumulate + part) * group.num + group.rank
        torch.manual_seed((recipe.seed * 1_000_003 + position) % 2**63)

    def step(self, *, lr: float) -> None:
        """Step the optimizers with the gradients of all parts and all processes."""
        with self._stopped_without_memory():
            if isinstance(self._weight, Tensor):
                self._average_gradients(self._weight)
            optim.set_learning_rate(self.scheduled, lr)
            self._clip()
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.num_steps += 1
            if self.average is not None:
                self.average.update(self.num_steps)

    def _clip(self) -> None:
        """Clip the gradient to the limit of the recipe, or else of the method; log its norm."""
        limit = self.recipe.max_grad_norm
        limit = self.method.max_grad_norm if limit is None else limit or math.inf
        if math.isfinite(limit):
            groups = self.scheduled["sgd"].param_groups  # Muon ignores gradient magnitude
            clipped = [p for group in groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(clipped, limit)
            self.observed_meter.add({"grad_norm": norm}, self._weight)

    def _average_gradients(self, weight: Tensor) -> None:
        grads = [p.grad for p in self.method.parameters() if p.grad is not None]
        torch._foreach_div_(grads, weight.clamp_min(1e-12))
        if self.group.num > 1:
            state = self.method.state_dict(keep_vars=True).values()  # constants are not in it
            moving = [value for value in state if not isinstance(value, nn.Parameter)]
            buffers = [value for value in moving if value.is_floating_point()]
            average_gradients(grads, buffers, weight, self.group)

    @contextlib.contextmanager
    def _stopped_without_memory(self) -> Iterator[None]:
        """Stop the student if memory runs out; with several processes, the error ends all."""
        try:
            yield
        except Exception as error:
            if self.group.num > 1 or not devices.is_out_of_memory(error):
                raise
            self._fail(
                "out of memory",
                f"it ran out of memory at step {self.num_steps + 1}",
                "run the same command again with more memory to continue from its last "
                "checkpoint, or with --accumulate 2",
            )

    @contextlib.contextmanager
    def deployed(self) -> Iterator[Net]:
        """Yield the net that would be saved now, with mean weights if it has them."""
        with self.average.applied() if self.average else contextlib.nullcontext():
            yield self.method.deployed()

    def log_terms(self, numbers: Mapping[str, Any]) -> None:
        """Log the mean terms since the last line; stop a student that diverged or is refused."""
        self.terms = self.meter.take(self.group.all_reduce)
        observed = self.observed_meter.take(self.group.all_reduce)
        self.observed = {k: v for k, v in observed.items() if not isinstance(v, list)}
        terms = {k: v if math.isfinite(v) else str(v) for k, v in self.terms.items()}
        self.checkpoint.write_log(self.num_steps, {"terms": terms, **observed, **numbers})
        # Check the weights too: the last step may spoil them after its loss was computed.
        sums = [p.detach().float().sum() for p in self.method.parameters()]
        weights = torch.stack(sums).sum().item()
        if not all(map(math.isfinite, [*self.terms.values(), weights])):
            reason = f"its loss or its weights were not finite by step {self.num_steps}"
            self._fail("diverged", reason, "try a lower --lr")
            return
        try:
            self.method.check(observed)
        except MethodError as error:
            self._fail(
                "refused", f"its method refuses to continue at step {self.num_steps}", str(error)
            )

    def save(self) -> None:
        """Write a checkpoint."""
        self.checkpoint.save(self.num_steps, self.state_dict())

    def _fail(self, state: str, reason: str, mend: str) -> None:
        self.failure = state
        if state != "out of memory":
            self.checkpoint.remove()  # resuming from it would fail again
        log.warning(
            "%s is stopped, because %s (other students continue): %s", self.builder, reason, mend
        )
        # Free the memory for the other students.
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        self.average = None
        self.method.zero_grad(set_to_none=True)
        self.method.to("meta")
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
