"""One student in training: a step of its method and its optimizers."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.distributed import SINGLE, ProcessGroup, average_gradients
from distill.method import Batch, Method, MethodError
from distill.recipe import Recipe
from distill.training import optim
from distill.training.ema import WeightAverage
from distill.training.resume import StudentCheckpoint
from indexes import devices
from indexes.meter import TermMeter
from indexes.models.net import Net

log = logging.getLogger(__name__)


class Learner:
    """Trains one student, independently of the others; a failure stops this student alone.

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
        """`method` is as it was built from the recipe's seed; a checkpoint is taken up here.

        Raises ArtifactError for a checkpoint of other inputs.
        """
        self.builder, self.recipe, self.checkpoint = builder, recipe, checkpoint
        self.device, self.group = device, group
        self.failure: str | None = None
        """Why the student was stopped: diverged, out of memory, refused by its method."""
        self.method = method.to(device)
        self.method.module.to(memory_format=torch.channels_last)
        self.method.train()
        own = self.method.own_optimizer()
        self.scheduled = optim.make_optimizers(self.method, recipe.optimizer, own)
        self.optimizers = {**self.scheduled, **({} if own is None else {"own": own})}
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
        """The method's weights, the optimizers' and the mean weights."""
        return {
            "method": self.method.state_dict(),
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            **({"average": self.average.state_dict()} if self.average else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def backward(self, batch: Batch, part: int, *, progress: float) -> None:
        """Adds the gradient of one part of a step's batch; nothing waits for the device."""
        with self._stopped_without_memory():
            self._seed(part)
            self.method.observed = {}
            # Apart: autocast may keep a weight, rounded without gradient, for the rest of a block.
            with torch.no_grad(), devices.autocast(self.device):
                batch = self.method.select_batch(batch, progress)
            with devices.autocast(self.device):
                terms = self.method.losses(batch, progress)
            total = torch.stack(list(terms.values())).sum()
            if part == 0:
                self.method.zero_grad(set_to_none=True)
                self._weight = 0.0
            weight: Tensor | float = 1.0
            if self.recipe.accumulate * self.group.num > 1:
                # Terms are means by weight, so parts count by theirs, as in a batch taken at once.
                weight = batch.weights.sum()
                torch.autograd.backward(total * weight)
            else:
                torch.autograd.backward(total)
            self._weight = self._weight + weight
            self.meter.add({"total": total, **terms}, weight)
            self.observed_meter.add(self.method.observed, weight)

    def _seed(self, part: int) -> None:
        """Dropout and the like draw from (seed, place): resumed and shared passes draw the same."""
        recipe, group = self.recipe, self.group
        place = (self.num_steps * recipe.accumulate + part) * group.num + group.rank
        torch.manual_seed((recipe.seed * 1_000_003 + place) % 2**63)

    def step(self, *, lr: float) -> None:
        """One step of the optimizers with the gradients of all parts, of all processes."""
        with self._stopped_without_memory():
            if isinstance(self._weight, Tensor):
                self._average_gradients(self._weight)
            optim.set_learning_rate(self.scheduled, lr)
            if math.isfinite(self.method.max_grad_norm):
                groups = self.scheduled["sgd"].param_groups  # Muon ignores gradient magnitude
                clipped = [p for group in groups for p in group["params"]]
                norm = nn.utils.clip_grad_norm_(clipped, self.method.max_grad_norm)
                self.observed_meter.add({"grad_norm": norm}, self._weight)
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.num_steps += 1
            if self.average is not None:
                self.average.update(self.num_steps)

    def _average_gradients(self, weight: Tensor) -> None:
        grads = [p.grad for p in self.method.parameters() if p.grad is not None]
        torch._foreach_div_(grads, weight.clamp_min(1e-12))
        if self.group.num > 1:
            state = self.method.state_dict(keep_vars=True).values()  # without constants
            moving = [value for value in state if not isinstance(value, nn.Parameter)]
            buffers = [value for value in moving if value.is_floating_point()]
            average_gradients(grads, buffers, weight, self.group)

    @contextlib.contextmanager
    def _stopped_without_memory(self) -> Iterator[None]:
        """Stops the student where memory runs out; of several processes all must end then."""
        try:
            yield
        except Exception as error:
            if self.group.num > 1 or not devices.is_out_of_memory(error):
                raise
            self._fail(
                "out of memory",
                f"out of memory at step {self.num_steps + 1}",
                "run the same command again with more memory to continue from its last "
                "checkpoint, or with --accumulate 2",
            )

    @contextlib.contextmanager
    def deployed(self) -> Iterator[Net]:
        """The net that would be saved now, within the block: with mean weights if it has them."""
        with self.average.applied() if self.average else contextlib.nullcontext():
            yield self.method.deployed()

    def log_terms(self, numbers: Mapping[str, Any]) -> None:
        """Logs the mean terms since the last line; sets `failure` where not all are finite."""
        self.terms = self.meter.take(self.group.all_reduce)
        observed = self.observed_meter.take(self.group.all_reduce)
        self.observed = {k: v for k, v in observed.items() if not isinstance(v, list)}
        terms = {k: v if math.isfinite(v) else str(v) for k, v in self.terms.items()}
        self.checkpoint.write_log(self.num_steps, {"terms": terms, **observed, **numbers})
        # Check the weights too: the last step may spoil them after its loss was computed.
        sums = [p.detach().float().sum() for p in self.method.parameters()]
        weights = torch.stack(sums).sum().item()
        if not all(map(math.isfinite, [*self.terms.values(), weights])):
            self._fail("diverged", f"no longer finite by step {self.num_steps}", "try a lower --lr")
            return
        try:
            self.method.check(observed)
        except MethodError as error:
            self._fail("refused", f"stopped by its method at step {self.num_steps}", str(error))

    def save(self) -> None:
        """Writes a checkpoint."""
        self.checkpoint.save(self.num_steps, self.state_dict())

    def _fail(self, state: str, what: str, mend: str) -> None:
        self.failure = state
        if state != "out of memory":
            self.checkpoint.remove()  # resuming from it would fail again
        log.warning("%s is %s: it is stopped, the others go on; %s", self.builder, what, mend)
        # Free its memory for the others.
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        self.average = None
        self.method.zero_grad(set_to_none=True)
        self.method.to("meta")
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
