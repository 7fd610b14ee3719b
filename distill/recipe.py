"""The length, batches and learning rate of a training: one Recipe for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from indexes.shards.reader import Shards

LR_PER_128 = 0.1
TOP_LOGITS = 256
Optimizer = Literal["sgd", "muon"]
Needs = Literal["logits", "features", "map"]
"""The teacher outputs that a method needs. Features and map both include the logits."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training. A batch holds `batch_size` views for every method."""

    steps: int
    batch_size: int = 128
    lr: float = LR_PER_128
    views: int = 0
    """0: a fresh view at each visit. V: V fixed views with cached targets, the same for every
    seed."""
    view_seed: int = 0
    """Seed of the V fixed views; fresh views use `seed`."""
    top_logits: int = TOP_LOGITS
    """Logits in a cached target above 1,024 classes; the others are stored as one logsumexp."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation in a view, in 0-1."""
    seed: int = 0
    compiled: bool = False
    """Whether the teacher is compiled, which changes its rounding slightly."""
    accumulate: int = 1
    """Number of equal parts of a batch that run one after another, to save memory."""
    ema: float = 0.0
    """Decay of the running mean of the weights that is saved. 0: the last weights are saved."""
    optimizer: Optimizer | None = None
    """sgd, or muon for the weight matrices. None: the method's optimizer."""
    drop_at: tuple[float, ...] | None = None
    """Shares of the steps at which the learning rate falls to a tenth. None: half a cosine."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 4 or self.views < 0 or not self.lr > 0:
            raise ValueError(
                "steps must be at least 1, batch_size at least 4, views at least 0, and lr above "
                f"0, not {self}"
            )
        if not (0 <= self.color_jitter <= 1 and 0 <= self.ema < 1):
            raise ValueError(
                f"color_jitter must be in 0-1, and ema at least 0 and below 1, not {self}"
            )
        if self.top_logits < 1:
            raise ValueError(f"top_logits must be at least 1, not {self.top_logits}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be split into {self.accumulate} equal parts: "
                "choose --accumulate so that it divides --batch-size"
            )
        if self.optimizer not in (None, *get_args(Optimizer)):
            known = ", ".join(get_args(Optimizer))
            raise ValueError(f"there is no optimizer {self.optimizer!r}: choose one of {known}")


@dataclass(frozen=True)
class Mix:
    """A second shard set and its share in each batch, in 0-1 (HiDFD's 1 - omega)."""

    shards: Shards
    frac: float

    def __post_init__(self) -> None:
        if not 0 < self.frac < 1:
            raise ValueError(f"--mix-frac must be between 0 and 1, both excluded, not {self.frac}")
