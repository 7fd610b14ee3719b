"""How long and how fast a training goes: the one Recipe of every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from indexes.shards.reader import Shards

LR_PER_128 = 0.1
TOP_LOGITS = 256
Optimizer = Literal["sgd", "muon"]
Needs = Literal["logits", "features", "map"]
"""What of the teacher a method needs; with features or its map the logits too."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast. A batch holds `batch_size` views, whatever the method."""

    steps: int
    batch_size: int = 128
    lr: float = LR_PER_128
    views: int = 0
    """0: a fresh view at each visit; V: V fixed views, whatever the seed, with cached targets."""
    view_seed: int = 0
    """Draws the V views; fresh ones are drawn from `seed`."""
    top_logits: int = TOP_LOGITS
    """Logits in a cached target above 1,024 classes; the others are stored as their logsumexp."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation of a view vary by so much, in 0-1."""
    seed: int = 0
    compiled: bool = False
    """Whether the teacher's forward is compiled; it rounds a little otherwise."""
    accumulate: int = 1
    """Parts that a batch is taken in, one after the other, where it does not fit as a whole."""
    ema: float = 0.0
    """Decay of a running mean of the weights, which is then what is saved; 0: the last weights."""
    optimizer: Optimizer | None = None
    """sgd, or muon for what is a matrix; None: what the method asks for."""
    drop_at: tuple[float, ...] | None = None
    """Shares of the steps at which the learning rate falls to a tenth; None: half a cosine."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 4 or self.views < 0 or not self.lr > 0:
            raise ValueError(
                f"steps must be at least 1, batch size 4, views 0 and lr above 0: not {self}"
            )
        if not (0 <= self.color_jitter <= 1 and 0 <= self.ema < 1):
            raise ValueError(f"color_jitter is in 0-1 and ema in 0-1 but not 1: not {self}")
        if self.top_logits < 1:
            raise ValueError(f"at least 1 logit of a target is stored, not {self.top_logits}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be taken in {self.accumulate} equal parts"
            )
        if self.optimizer not in (None, *get_args(Optimizer)):
            known = ", ".join(get_args(Optimizer))
            raise ValueError(f"there is no optimizer {self.optimizer!r}: {known}")


@dataclass(frozen=True)
class Mix:
    """A second shard set, and the share of it in each batch, in 0-1 (HiDFD's 1 - omega)."""

    shards: Shards
    frac: float

    def __post_init__(self) -> None:
        if not 0 < self.frac < 1:
            raise ValueError(f"the share of a second shard set is between 0 and 1, not {self.frac}")
