"""torchdistill's DistillationBox with its KDLoss, stepped as its example does."""

from __future__ import annotations

import contextlib
import io
import logging

import torch
from torch.utils.data import RandomSampler

from benchmarks import bare
from benchmarks.pair import LR, MOMENTUM, TEMPERATURE, WEIGHT_DECAY, Pair, Steps

SETUP = "DistillationBox, KDLoss with alpha 0, SGD, its own DataLoader over the same images; fp32"


def make(pair: Pair, workers: int) -> Steps:
    """Return a loop around the box; each epoch begins with pre_epoch_process."""
    with contextlib.redirect_stderr(io.StringIO()):
        from torchdistill.core.distillation import DistillationBox
    logging.getLogger("torchdistill").setLevel(logging.ERROR)

    box = DistillationBox(
        pair.teacher().net.module,
        pair.student_net(),
        {"images": bare.Augmented(pair.normalized())},
        _config(pair, workers),
        torch.device(pair.device),
        None,
        False,
        1,
    )

    def run(steps: int) -> None:
        done = 0
        while done < steps:
            box.pre_epoch_process(epoch=0)
            for images, labels, extra in box.train_data_loader:
                images, labels = images.to(pair.device), labels.to(pair.device)
                loss = box.forward_process(images, labels, extra)
                box.post_forward_process(loss=loss)
                done += 1
                if done == steps:
                    return

    return run


def _config(pair: Pair, workers: int) -> dict[str, object]:
    kwargs = {"batch_size": pair.batch_size, "num_workers": workers, "drop_last": True}
    net = {"forward_proc": "forward_batch_only", "forward_hook": {"input": [], "output": ["fc"]}}
    loss = {
        "student_module_path": "fc",
        "student_module_io": "output",
        "teacher_module_path": "fc",
        "teacher_module_io": "output",
        "temperature": TEMPERATURE,
        "alpha": 0.0,
        "reduction": "batchmean",
    }
    weight = TEMPERATURE**2  # KDLoss leaves T^2 out if alpha is 0.
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "images",
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": kwargs,
        },
        "teacher": {**net, "requires_grad": False},
        "student": {**net, "requires_grad": True},
        "optimizer": {
            "key": "SGD",
            "kwargs": {
                "lr": LR,
                "momentum": MOMENTUM,
                "nesterov": True,
                "weight_decay": WEIGHT_DECAY,
            },
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": weight}
                }
            },
        },
    }
