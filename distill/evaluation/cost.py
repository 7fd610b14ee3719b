"""The cost of running a net: parameters, multiply-adds, bytes and images per second."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from indexes import devices
from indexes.images.decode import to_unit
from indexes.models.teacher import WEIGHTS, Teacher

BATCHES = (1, 64)
NUM_RUNS = 5
RUN_SECONDS = 0.1
MOST_SECONDS = 2.0
CPU_NAMES = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of running a net.

    `num_macs`: multiply-adds per image. `num_bytes`: the size of the weights file.
    `images_per_second`: by batch size, measured on `device` in `precision` and, on a CPU, with
    `num_threads`. These rates are comparable only if nothing else ran on the machine.
    """

    num_parameters: int
    num_macs: int
    num_bytes: int
    images_per_second: dict[int, float]
    device: str
    precision: str
    num_threads: int


def measure(net: Teacher, device: str = "cpu") -> Cost:
    """Measure the cost of an open net that lies on `device`."""
    return Cost(
        num_parameters=sum(parameter.numel() for parameter in net.net.parameters()),
        num_macs=count_macs(net),
        num_bytes=(net.directory / WEIGHTS).stat().st_size,
        images_per_second={batch: images_per_second(net, batch, device) for batch in BATCHES},
        device=device_name(device),
        precision="bfloat16" if devices.has_bf16(device) else "float32",
        num_threads=torch.get_num_threads(),
    )


def count_macs(net: Teacher) -> int:
    """Count the multiply-adds per image.

    Only the products in convolutions, linear layers and attention are counted.
    """
    size = net.card.input_size
    weight_CD, _ = net.head
    pixels = torch.zeros(1, 3, size, size, device=weight_CD.device)
    last = net.net.module.get_submodule(net.net.head_name)
    # If a hook reads the features, the module runs its last Linear, and `Net` repeats it in
    # float32. A deployed net runs it once, so the run inside the module is subtracted.
    repeated: list[int] = []
    hook = last.register_forward_hook(lambda *_: repeated.append(weight_CD.numel()))
    with hook, _plain_attention(), FlopCounterMode(display=False) as counter:
        net(pixels)
    return int(counter.get_total_flops() // 2) - sum(repeated)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable the fused kernel of MultiheadAttention, because the counter cannot see inside it.

    With the fused kernel, the counter misses more than a third of torchvision's ViT-B/16.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def images_per_second(net: Teacher, batch_size: int, device: str = "cpu") -> float:
    """Return the images per second from uint8 pixels on `device` to logits.

    The precision is that of `evaluate`. After a warm-up, the result is the median of NUM_RUNS runs
    of about RUN_SECONDS each. If the runs take more than MOST_SECONDS in total, there are fewer of
    them, but at least one.
    """
    size = net.card.input_size
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, size, size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)

    def step() -> None:
        with devices.autocast(device):
            net(to_unit(pixels))

    _seconds(step, 1, device)  # the first step allocates memory and selects kernels
    repeats = max(1, round(RUN_SECONDS / _seconds(step, 1, device)))
    seconds: list[float] = []
    while not seconds or (len(seconds) < NUM_RUNS and sum(seconds) < MOST_SECONDS):
        seconds.append(_seconds(step, repeats, device))
    return batch_size * repeats / statistics.median(seconds)


def _seconds(step: Callable[[], None], repeats: int, device: str) -> float:
    _wait(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    _wait(device)
    return max(time.perf_counter() - begin, 1e-9)  # the clock may not advance for a tiny net


def _wait(device: str) -> None:
    """Wait until the device has finished: CUDA calls return before their work is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: str) -> str:
    """Return the name of a GPU, such as `NVIDIA H200`, or the model of the CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = CPU_NAMES.read_text().splitlines() if CPU_NAMES.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), platform.processor() or platform.machine())
