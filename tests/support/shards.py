"""A small handmade shard set: two shards of five images, three classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from indexes.shards.writer import ShardWriter

CLASSES = ("crane", "boat", "crane")  # class names may repeat, as in ImageNet


def write_shards(directory: Path, sizes: tuple[int, ...] = (3, 2), top: int | None = None) -> None:
    writer = ShardWriter(directory, "plan-a", CLASSES)
    generator = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        keys = [f"deep.dir/{number}-{row}" for row in range(size)]
        writer.write(
            number,
            keys=keys,
            exts=["jpg"] * size,
            images=[bytes([number, row]) * (50 * row + 1) for row in range(size)],
            columns={
                "label": np.arange(size) % 3,
                "weight": np.linspace(0.5, 1.5, size),
                "log_odds": generator.normal(size=size),
            },
            logits=generator.normal(size=(size, top or 3)),
            logit_classes=np.tile(np.arange(top), (size, 1)) if top else None,
            sources=[f"part-{row}.tar" for row in range(size)],
        )
    total = sum(sizes)
    body: dict[str, Any] = {
        "teacher": {"digest": "t" * 64, "input_size": 32},
        "funnel": {"in": total + 3, "dropped": {"corrupt": 3}, "kept": total},
    }
    writer.finish(len(sizes), body)
