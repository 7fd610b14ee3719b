"""Several processes that train as one: who they are, and what they say to each other.

`torchrun --nproc-per-node 8 -m winnow distill ...` starts one for each GPU. Each takes its share of
every batch; gradients and running statistics are averaged in one message a step, so that after
it all hold the same students, and the first one prints, logs and saves for all.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from indexes import devices

STOP_CHECK_STEPS = 10  # of several processes all must stop at one step; torchrun waits 30 seconds
TIMEOUT = datetime.timedelta(hours=2)  # the first process may decode, evaluate and save alone


@dataclass(frozen=True)
class ProcessGroup:
    """This process among `num`. What it says to the others waits for all; alone it is nothing."""

    rank: int = 0
    num: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Goes on when all have come here."""
        if self.num > 1:
            distributed.barrier()

    def all_reduce(self, value: Tensor) -> Tensor:
        """`value` summed over all processes, in place."""
        if self.num > 1:
            distributed.all_reduce(value)
        return value

    def any_rank(self, step: int, asked: Callable[[], bool], device: str) -> bool:
        """Whether one of them is asked to; of several, at steps where they tell each other."""
        if self.num == 1:
            return asked()
        if step % STOP_CHECK_STEPS:
            return False
        return bool(self.all_reduce(torch.tensor(float(asked()), device=device)) > 0)

    def broadcast(self, value: Tensor, owner: int) -> None:
        """`value` becomes that of the process `owner`."""
        if self.num > 1:
            distributed.broadcast(value, owner)


SINGLE = ProcessGroup()


def average_gradients(
    grads: Sequence[Tensor], buffers: Sequence[Tensor], weight: Tensor, group: ProcessGroup
) -> None:
    """Replaces both by their means over all processes, in one message.

    Of gradients each process counts by its `weight` (a scalar; where all weigh nothing they become
    zero), of `buffers`, which saw as many images in each, as one.
    """
    sums = [part.detach().flatten().float() * weight for part in grads]
    shares = [part.detach().flatten().float() / group.num for part in buffers]
    flat = group.all_reduce(torch.cat([weight.float()[None], *sums, *shares]))
    total, *means = torch.split(flat, [1, *(part.numel() for part in (*grads, *buffers))])
    with torch.no_grad():
        for place, (part, mean) in enumerate(zip((*grads, *buffers), means, strict=True)):
            if place < len(grads):
                mean = mean / total.clamp_min(1e-12)
            part.copy_(mean.view_as(part))


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[tuple[ProcessGroup, str]]:
    """The processes that torchrun started, and this one's device; a single one without torchrun.

    All but the first are silent.
    """
    device = devices.choose(device)
    num = int(os.environ.get("WORLD_SIZE", "1"))
    if num == 1:
        yield ProcessGroup(), device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    try:
        with contextlib.ExitStack() as held:
            group = ProcessGroup(distributed.get_rank(), num)
            if not group.is_first:
                nowhere = held.enter_context(open(os.devnull, "w"))
                held.enter_context(contextlib.redirect_stdout(nowhere))
                held.enter_context(contextlib.redirect_stderr(nowhere))
            yield group, device
    finally:
        distributed.destroy_process_group()
