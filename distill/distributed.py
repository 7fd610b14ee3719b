"""Several processes that train as one: their number and their communication.

`torchrun --nproc-per-node 8 -m winnow distill ...` starts one process per GPU. Each takes its share
of every batch. Gradients and running statistics are averaged in one message per step, so all
processes hold the same students after the step. The first process logs and saves for all.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from indexes import devices
from indexes.command.console import PACKAGES, PROGRESS

STOP_CHECK_STEPS = 10  # all must stop at the same step; torchrun kills them after 30 seconds
TIMEOUT = datetime.timedelta(hours=2)  # others wait while the first decodes, evaluates or saves


@dataclass(frozen=True)
class ProcessGroup:
    """This process, number `rank` of `num`. A message waits for all; one process sends none."""

    rank: int = 0
    num: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that logs and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes have called this method."""
        if self.num > 1:
            distributed.barrier()

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum `value` [N, ...] over all processes, in place."""
        if self.num > 1:
            distributed.all_reduce(value)
        return value

    def any_rank(self, step: int, is_true: Callable[[], bool], device: str) -> bool:
        """Return whether `is_true()` in any process; several processes check every tenth step."""
        if self.num == 1:
            return is_true()
        if step % STOP_CHECK_STEPS:
            return False
        return bool(self.all_reduce(torch.tensor(float(is_true()), device=device)) > 0)

    def broadcast(self, value: Tensor, owner: int) -> None:
        """Overwrite `value` [N, ...] with the value of the process `owner`."""
        if self.num > 1:
            distributed.broadcast(value, owner)


SINGLE = ProcessGroup()


def average_gradients(
    grads: Sequence[Tensor], buffers: Sequence[Tensor], weight: Tensor, group: ProcessGroup
) -> None:
    """Replace gradients and buffers [N, ...] by their means over all processes, in one message.

    In the mean of a gradient, each process counts by its `weight`, a scalar; if all weights are
    zero, the gradient becomes zero. In the mean of a buffer, all processes count the same, because
    each has seen the same number of images.

    DistributedDataParallel is not used. It would wrap the forward of every method, which may call
    its student several times, and it needs one more message for the sum of the weights. Its losses
    agree with these (within 1e-4 in 30 steps of bf16), and its steps are no faster on a CPU
    (docs/LOG.md).
    """
    sums = [part.detach().flatten().float() * weight for part in grads]
    shares = [part.detach().flatten().float() / group.num for part in buffers]
    flat = group.all_reduce(torch.cat([weight.float()[None], *sums, *shares]))
    total, *means = torch.split(flat, [1, *(part.numel() for part in (*grads, *buffers))])
    with torch.no_grad():
        for number, (part, mean) in enumerate(zip((*grads, *buffers), means, strict=True)):
            if number < len(grads):
                mean = mean / total.clamp_min(1e-12)
            part.copy_(mean.view_as(part))


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[tuple[ProcessGroup, str]]:
    """Yield the group of processes (torchrun's, or a single one) and the device of this process.

    Within the block, only the first process logs.
    """
    device = devices.choose(device)
    num = int(os.environ.get("WORLD_SIZE", "1"))
    if num == 1:
        yield SINGLE, device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    group = ProcessGroup(distributed.get_rank(), num)
    try:
        with contextlib.nullcontext() if group.is_first else _silenced():
            yield group, device
    finally:
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """Return whether this process reports for all: the only one, or the first of torchrun's.

    Example: `if is_first_process(): print("done")`
    """
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Silence the loggers of winnow within the block; restore their levels after it."""
    loggers = [logging.getLogger(name) for name in (*PACKAGES, PROGRESS)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
