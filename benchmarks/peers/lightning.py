"""Lightning: the naive loop's operations as a LightningModule."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks import bare
from benchmarks.pair import LR, MOMENTUM, WEIGHT_DECAY, Pair, Steps, kd

SETUP = "Trainer with defaults, except no logger, checkpoint, progress bar or model summary; fp32"


def make(pair: Pair, workers: int) -> Steps:
    """Return a loop around a Trainer and its module; each call is a `fit` of `max_steps`."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Distillation(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = pair.student_net(), pair.teacher().net.module

        def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
            images, _ = batch
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            return kd(self.student(images), teacher_logits)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(
                self.student.parameters(),
                lr=LR,
                momentum=MOMENTUM,
                nesterov=True,
                weight_decay=WEIGHT_DECAY,
            )

    module, data = Distillation(), bare.loader(pair, workers)

    def run(steps: int) -> None:
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="gpu" if pair.device.startswith("cuda") else "cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning warns that the loader has few workers.
            trainer.fit(module, data)

    return run
