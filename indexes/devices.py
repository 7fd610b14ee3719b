"""Devices: the choice of one, its fast precision, its memory, its processes."""

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
    """Resolve `auto` to `cuda` on a machine with a GPU and to `cpu` otherwise.

    Any other device is checked and returned. Raises ValueError for a device that torch does not
    know or that this machine does not have.

    Example:
        >>> choose("cpu")
        'cpu'
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"no such device {device!r}: use auto, cpu, cuda or cuda:1") from None
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (torch.device(device).index or 0) >= count:
        raise ValueError(
            f"--device {device}: this machine has {count} CUDA devices; use one of them, or cpu"
        )
    return device


def has_bf16(device: str) -> bool:
    """Return whether the hardware multiplies bf16 natively.

    This takes AMX or AVX-512 BF16 on a CPU, and compute capability 8.0 on a GPU.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if torch.device(device).type == "cpu":
        # oneDNN's own check is true for any AVX-512 CPU, even where bf16 is emulated and slow.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def autocast(device: str, *, enabled: bool = True) -> torch.autocast | contextlib.nullcontext[None]:
    """Return a bf16 autocast context where bf16 is native, and a null context elsewhere."""
    import torch

    if enabled and has_bf16(device):
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    return contextlib.nullcontext()


def send(array: npt.NDArray[Any], device: torch.device | str) -> torch.Tensor:
    """Return `array`, of any shape [N, ...], as a tensor on `device`; the copy is asynchronous."""
    import torch

    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    # A copy from pageable memory would block.
    return tensor.pin_memory().to(device, non_blocking=True)


def keep_memory(device: str) -> None:
    """Let this process keep freed memory instead of returning it, if `device` is a CPU.

    glibc returns large blocks to the system, so that every training step page-faults its
    activations again, which costs an eighth of the time. Without glibc this function does nothing.
    """
    if device == "cpu":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cuda_indices(device: str) -> list[int]:
    """Return the GPUs whose random state `torch.random.fork_rng` must save: one, or none on a CPU.

    Example:
        >>> cuda_indices("cuda:1"), cuda_indices("cpu")
        ([1], [])
    """
    import torch

    return [torch.device(device).index or 0] if device.startswith("cuda") else []


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` means that memory ran out, on a GPU or a CPU.

    Example:
        >>> is_out_of_memory(MemoryError())
        True
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_signals(worker: int) -> None:
    """Detach a decoding process from the signals of its job; a `worker_init_fn`.

    Ctrl-C, and the signals that torchrun or a batch system sends to a whole process group, are for
    the main process, which may still need its decoders in order to stop cleanly.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
