"""Training of a generator: the loop, its log, its checkpoints and the resulting artifact."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexes import artifact, checkpoint
from indexes.artifact import ArtifactError
from indexes.command.progress import Progress
from indexes.meter import TermMeter
from pipeline.generation.base import Trainer

WEIGHTS = "model.safetensors"
LOG_STEPS = 50  # the most steps between two lines of the log file
CHECKPOINT_SECONDS = 60.0


def fit_generator(trainer: Trainer, directory: Path, digest: str) -> dict[str, Any]:
    """Train to the last step, write the weights, and return the card's description of them.

    Training resumes from the checkpoint in `directory`, bit-identical on a CPU. Raises
    ArtifactError for a checkpoint of another training, ValueError if a loss term or a weight is not
    finite, and KeyboardInterrupt, after a checkpoint, at SIGTERM or Ctrl-C.
    """
    start = _resumed(trainer, directory, digest)
    checkpoint.trim_log(directory, start)
    terms, means = TermMeter(), dict[str, float]()
    log_steps = max(1, min(LOG_STEPS, trainer.steps // 20))
    save_at = time.monotonic() + CHECKPOINT_SECONDS
    total = (trainer.steps - start) * trainer.batch_size
    with checkpoint.stop_signal() as stop, Progress("generator", total) as progress:
        for step in range(start, trainer.steps):
            terms.add(trainer.step(step))
            done = step + 1
            last, due = done == trainer.steps, stop.received or time.monotonic() >= save_at
            if last or due or done % log_steps == 0:
                means = terms.take()
                _check_finite(means, done)
                checkpoint.write_log(directory, done, {"terms": means})
            progress.add(trainer.batch_size, note=f"step {done:,}  {_line(means)}")
            if due and not last:
                state = {"digest": digest, "step": done, "trainer": trainer.state_dict()}
                checkpoint.save(directory, state)
                save_at = time.monotonic() + CHECKPOINT_SECONDS
                if stop.received:
                    stop.interrupt()
    written = _write(trainer.result(), directory)
    return {"steps": trainer.steps, "weights": written, "terms": means}


def _check_finite(means: dict[str, float], step: int) -> None:
    """Raise ValueError if a term is not finite."""
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(
            f"{', '.join(bad)}: not finite by step {step:,}. Lower the generator's "
            "learning rates with --set, and run again"
        )


def _resumed(trainer: Trainer, directory: Path, digest: str) -> int:
    state = checkpoint.load(directory)
    if state is None:
        return 0
    if state.get("digest") != digest:
        raise ArtifactError(
            f"{directory} holds the checkpoint of another training (digest "
            f"{str(state.get('digest'))[:10]}, not {digest[:10]}): delete the directory"
        )
    trainer.load_state_dict(state["trainer"])
    return int(state["step"])


def _line(means: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in means.items())


def _write(tensors: dict[str, Tensor], directory: Path) -> dict[str, Any]:
    from safetensors.torch import save

    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise ValueError(
            f"the trained generator has weights that are not finite ({bad[0]}): lower the "
            "generator's learning rates with --set, and run again"
        )
    with artifact.writing(directory / WEIGHTS) as aside:
        aside.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
        written = {"bytes": aside.stat().st_size, "sha256": artifact.sha256(aside)}
    return {"name": WEIGHTS, **written}


def read_generator(directory: Path, card: dict[str, Any]) -> dict[str, Tensor]:
    """Read the tensors that a sampler needs, by name, such as weights [D, D, 3, 3].

    Raises ArtifactError if the file is not the one that the card describes.
    """
    from safetensors.torch import load_file

    path, written = directory / WEIGHTS, card.get("weights") or {}
    if not artifact.is_whole(path, written.get("bytes", -1)) or (
        artifact.sha256(path) != written.get("sha256")
    ):
        raise ArtifactError(
            f"{path} is not the file that its card describes: delete {directory} and generate again"
        )
    tensors: dict[str, Tensor] = load_file(path)
    return tensors
