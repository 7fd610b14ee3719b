"""timm's LogitDistillationTask with timm's optimizer, stepped as its train.py does."""

from __future__ import annotations

import itertools

import torch

from benchmarks import bare
from benchmarks.pair import LR, MOMENTUM, TEMPERATURE, WEIGHT_DECAY, Pair, Steps

SETUP = (
    "LogitDistillationTask, temperature 4, task_loss_weight 0, create_optimizer_v2('sgd'), fp32; "
    "without its loader, which needs image files"
)


def make(pair: Pair, workers: int) -> Steps:
    """Return a loop around the task; its cross entropy is computed, but has the weight 0."""
    from timm.optim import create_optimizer_v2
    from timm.task import LogitDistillationTask

    teacher, student = pair.teacher(), pair.student_net()
    for net in (teacher.net.module, student):
        net.pretrained_cfg = {"mean": teacher.card.mean, "std": teacher.card.std}
        net.num_classes, net.in_chans = len(teacher.card.classes), 3
    task = LogitDistillationTask(
        student,
        teacher.net.module,
        criterion=torch.nn.CrossEntropyLoss(),
        task_loss_weight=0.0,
        temperature=TEMPERATURE,
        device=torch.device(pair.device),
        verbose=False,
    ).train()
    optimizer = create_optimizer_v2(
        student, opt="sgd", lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    data = bare.loader(pair, workers)

    def run(steps: int) -> None:
        endless = itertools.chain.from_iterable(itertools.repeat(data))
        for images, labels in itertools.islice(endless, steps):
            images, labels = images.to(pair.device), labels.to(pair.device)
            optimizer.zero_grad()
            task(images, labels)["loss"].backward()
            optimizer.step()

    return run
