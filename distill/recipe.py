"""The length, batches and learning rate of a training: one Recipe for every method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from indexes.shards.reader import Shards

LR_PER_128 = 0.1
TOP_LOGITS = 256
WEIGHT_DECAY = 5e-4
WARMUP_FRAC = 0.02
CROP_AREA = 0.35
Optimizer = Literal["sgd", "muon"]
Crop = Literal["pad", "zeros", "resized"]
"""How a view is cut: from the image padded by reflection or by zeros, or as a resized part."""
Needs = Literal["logits", "features", "map", "maps"]
"""The teacher outputs that a method needs. All include the logits; maps are the last map and the
map of the stage before it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training. A batch holds `batch_size` images for every method."""

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
    warmup_frac: float = WARMUP_FRAC
    """Share of the steps in which the learning rate rises linearly to its peak, in 0-1."""
    weight_decay: float = WEIGHT_DECAY
    """Weight decay of SGD. Muon has its own for the weight matrices."""
    decay_norms: bool = False
    """Whether the weight decay of SGD applies to norms and biases, too."""
    nesterov: bool = True
    """Whether the momentum of SGD is Nesterov's."""
    max_grad_norm: float | None = None
    """Norm to which the gradient is clipped. None: the method's own limit. 0: no clipping."""
    crop: Crop | None = None
    """pad or zeros: a crop of the image with a reflected or a zero margin of S / 8, up to 64
    pixels. resized: a random part of the image at any size. None: pad up to 64 pixels, resized
    above."""
    crop_area: float = CROP_AREA
    """Lowest share of the image's area in a resized crop, in 0-1."""

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
        if self.crop not in (None, *get_args(Crop)):
            known = ", ".join(get_args(Crop))
            raise ValueError(f"there is no crop {self.crop!r}: choose one of {known}")
        self._check_fractions()

    def _check_fractions(self) -> None:
        if not (0 <= self.warmup_frac < 1 and 0 < self.crop_area <= 1):
            raise ValueError(
                "warmup_frac must be at least 0 and below 1, and crop_area above 0 and at most 1, "
                f"not {self}"
            )
        if not all(0 < share < 1 for share in self.drop_at or ()):
            raise ValueError(f"drop_at must hold shares between 0 and 1, not {self.drop_at}")
        limit = 0.0 if self.max_grad_norm is None else self.max_grad_norm
        if not (0 <= self.weight_decay < math.inf and limit >= 0):
            raise ValueError(f"weight_decay and max_grad_norm must be at least 0, not {self}")


@dataclass(frozen=True)
class Mix:
    """A second shard set and its share in each batch, in 0-1 (HiDFD's 1 - omega)."""

    shards: Shards
    frac: float

    def __post_init__(self) -> None:
        if not 0 < self.frac < 1:
            raise ValueError(f"--mix-frac must be between 0 and 1, both excluded, not {self.frac}")

    def split(self, num: int) -> tuple[int, int]:
        """Return how many of `num` images of a step are of the first set, and how many of this one.

        Each set has at least one. Raises ValueError if `num` is below 2.

        Example: `Mix(shards, 0.25).split(64) == (48, 16)`
        """
        if num < 2:
            raise ValueError(
                f"{num} images in a part of a batch cannot hold two shard sets: raise --batch-size"
            )
        num_mixed = min(max(round(self.frac * num), 1), num - 1)
        return num - num_mixed, num_mixed


def num_steps(
    epochs: float, num_images: int, batch_size: int, mix: Mix | None = None, parts: int = 1
) -> int:
    """Return the number of steps of `epochs` over `num_images` images in batches of `batch_size`.

    One epoch follows another within a batch. A release that ends each epoch with a short batch
    takes more steps for the same images: 11,760 instead of 11,719 for 240 epochs of 50,000 images
    in batches of 1,024.

    With a mix, an epoch ends with the step in which every image of both sets was seen: the set that
    is small for its share of the batch is repeated. 5,000 and 50,000 images in equal shares and
    batches of 64 take 1,563 steps an epoch, as in HiDFD's release. SOURCE. A batch consists of
    `parts` equal parts.

    Example:
        >>> num_steps(240, 50_000, 64)
        187500
    """
    if mix is None:
        return max(1, math.ceil(epochs * num_images / batch_size))
    first, second = (parts * num for num in mix.split(batch_size // parts))
    longest = max(math.ceil(num_images / first), math.ceil(len(mix.shards) / second))
    return max(1, math.ceil(epochs * longest))
