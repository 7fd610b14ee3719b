"""Where tensors live and which precision is the fast one there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt
    import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def choose(device: str = "auto") -> str:
    """`auto` -> `cuda` where there is a GPU, else `cpu`; anything else is checked and returned."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"no such device {device!r}: use auto, cpu, cuda or cuda:1") from None
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (torch.device(device).index or 0) >= count:
        raise ValueError(f"--device {device}: this machine has {count} CUDA devices; or use cpu")
    return device


def has_bf16(device: str) -> bool:
    """Whether bf16 products are native: AMX or AVX-512 BF16 on a CPU, compute 8.0 on a GPU."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if torch.device(device).type == "cpu":
        # Not oneDNN's own answer: it is yes on any AVX-512, where bf16 is emulated and slow.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def autocast(device: str, *, enabled: bool = True) -> torch.autocast | contextlib.nullcontext[None]:
    """bf16 autocast where bf16 is native, nothing elsewhere."""
    import torch

    if enabled and has_bf16(device):
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    return contextlib.nullcontext()


def send(array: npt.NDArray[Any], device: torch.device | str) -> torch.Tensor:
    """`array` as a tensor on `device`; nobody waits for the copy."""
    import torch

    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    # Out of memory that can be paged a copy would be waited for.
    return tensor.pin_memory().to(device, non_blocking=True)


def keep_memory(device: str) -> None:
    """Lets this process keep freed memory for itself, where `device` is a CPU.

    glibc gives large blocks back to the system, so that every step of a training faults its
    activations in anew: an eighth of the time. Elsewhere than with glibc nothing happens.
    """
    if device == "cpu":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cuda_indices(device: str) -> list[int]:
    """The GPUs whose random state a fork on `device` covers: one, or none on a CPU."""
    import torch

    return [torch.device(device).index or 0] if device.startswith("cuda") else []


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is torch's word for memory that could not be had, on a GPU or a CPU."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_signals(worker: int) -> None:
    """For decoding processes: Ctrl-C, and what torchrun or a batch system sends to all processes of
    a job, is the main process's to answer, which may still need them to end well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
