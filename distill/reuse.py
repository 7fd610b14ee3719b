"""A teacher's classifier on a student: what maps look like, and the two put together.

Students of this form learn the teacher's last map and answer with its own classifier (SimKD,
arXiv 2203.14001; KD3, arXiv 2307.11469: SOURCE). D features of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.method import Method, Needs
from indexes import nets
from indexes.nets import Net, NetError
from indexes.teachers import Teacher

NUM_PROBED = 4


@dataclass(frozen=True)
class Seen:
    """A net's answers to a few images, B of them: map [B, D', h, w] and features [B, D]."""

    map: Tensor
    features: Tensor

    @property
    def is_pooled(self) -> bool:
        """Whether the features are the plain mean of the map, as in most ResNets."""
        mean = self.map.mean((2, 3))
        return mean.shape == self.features.shape and torch.allclose(
            mean.float(), self.features.float(), rtol=1e-3, atol=1e-4
        )


@torch.no_grad()
def look(net: Net, size: int) -> Seen:
    """What `net` makes of images of noise; it is left in the mode that it was in.

    Raises NetError for a net that does not take images of `size` pixels.
    """
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_PROBED, 3, size, size, generator=generator).to(device)
    was_training = net.module.training
    net.eval()
    try:
        map_BDHW, features_BD, _ = net(pixels)
    except Exception as error:
        # Libraries raise whatever they like at a size that they do not take.
        raise NetError(
            f"{net.builder} does not take images of {size} pixels ({error}). Arguments may stand "
            f"behind a name, as in timm:vit_tiny_patch16_224:img_size={size}:patch_size=4"
        ) from error
    finally:
        net.train(was_training)
    return Seen(map_BDHW, features_BD)


@dataclass(frozen=True)
class Lesson:
    """What of a teacher is learnt as its map: [D, h, w], `pooled` where it is the last map itself.

    Elsewhere (a ViT's class token, a norm or a layer after the pooling) it is the features as
    [D, 1, 1], so that the mean of the map is always what the classifier takes. `signed`: it has
    negative values, so that no ReLU can end in it.
    """

    shape: tuple[int, int, int]
    pooled: bool
    signed: bool

    def map_of(self, map_BDHW: Tensor, features_BD: Tensor) -> Tensor:
        """The map [B, D, h, w] to be learnt, of what a forward of the teacher gave."""
        return map_BDHW if self.pooled else features_BD[:, :, None, None]


def lesson(teacher: Teacher) -> Lesson:
    """What `teacher` has to teach as a map."""
    seen = look(teacher.net, teacher.card.input_size)
    pooled = seen.is_pooled
    taught = seen.map if pooled else seen.features[:, :, None, None]
    _, depth, height, width = taught.shape
    return Lesson((depth, height, width), pooled, bool((taught < 0).any()))


def reuse_classifier(
    student: Net, teacher: Teacher, *, factor: int = 2, depthwise: bool = False
) -> Net:
    """The student with a new projector and a frozen copy of the teacher's classifier, as one net.

    Its map is the projected one [B, D, h', w'], its features [B, D] the mean of that, h' and w'
    the smaller of the student's and the teacher's sides. The student's own classifier is gone.
    """
    taught = lesson(teacher)
    width, *side = taught.shape
    shape = {
        "arguments": student.arguments,
        "width_in": look(student, teacher.card.input_size).map.shape[1],
        "width": width,
        "side": side,
        "factor": factor,
        "depthwise": depthwise,
        "signed": taught.signed,
    }
    return nets.reuse(student, shape, *teacher.head)


class Reusing(Method):
    """A method whose student learns the teacher's map; encoder, projector and the teacher's
    classifier are deployed as one net. Its Config says the projector's `factor`.
    """

    max_grad_norm = 5.0  # without it one seed in a few learns half as fast. OURS

    def __init__(
        self, student: Net, teacher: Teacher, config: Any, *, depthwise: bool = False
    ) -> None:
        reused = reuse_classifier(student, teacher, factor=config.factor, depthwise=depthwise)
        super().__init__(reused, teacher, config)

    @classmethod
    def needs(cls, config: Any) -> Needs:
        return "map"
