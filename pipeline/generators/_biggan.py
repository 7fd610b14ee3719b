"""BigGAN blocks for small images: class-conditional BatchNorm, spectral norm, residual both ways.

Brock et al., ICLR 2019, in the form for 32 pixels: a gain and a bias per class, z at the entrance
only, no attention. B images, Z latent width, C classes, P side in pixels, D_T teacher's features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

Net = TypeVar("Net", bound=nn.Module)
LATENT = 128
SMALLEST, LARGEST = 8, 256  # sides of images, powers of two
START = 4  # side of the generator's first map
LAST = 8  # side of the discriminator's last map
MOST = 4  # widest layer, in widths


def check_side(side: int) -> None:
    """ValueError unless `side` is a power of two that these nets can make."""
    if side & (side - 1) or not SMALLEST <= side <= LARGEST:
        raise ValueError(f"pixels={side}: a power of two from {SMALLEST} to {LARGEST}")


class ClassNorm(nn.Module):
    """BatchNorm whose gain and bias belong to the class."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=False)
        self.gain = nn.Embedding(num_classes, num_features)
        self.bias = nn.Embedding(num_classes, num_features)
        # Not ones and zeros: classes differ from the first step on.
        for embedding in (self.gain, self.bias):
            nn.init.orthogonal_(embedding.weight)

    def forward(self, map_BDHW: Tensor, class_B: Tensor) -> Tensor:
        """[B, D, H, W] of classes [B], same shape."""
        gain, bias = self.gain(class_B)[:, :, None, None], self.bias(class_B)[:, :, None, None]
        normal: Tensor = self.norm(map_BDHW)
        scaled: Tensor = normal * (1 + gain).to(normal.dtype) + bias.to(normal.dtype)
        return scaled


class Up(nn.Module):
    """A generator's block: twice the side."""

    def __init__(self, num_in: int, num_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ClassNorm(num_in, num_classes)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.norm2 = ClassNorm(num_out, num_classes)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.skip = nn.Conv2d(num_in, num_out, 1)

    def forward(self, map_BDHW: Tensor, class_B: Tensor) -> Tensor:
        """[B, D, H, W] of classes [B] -> [B, D', 2H, 2W]."""
        inner = F.relu(self.norm1(map_BDHW, class_B))
        inner = self.conv1(F.interpolate(inner, scale_factor=2.0))
        inner = self.conv2(F.relu(self.norm2(inner, class_B)))
        # A 1x1 convolution before doubling is the one after it at a quarter of the work.
        doubled: Tensor = inner + F.interpolate(self.skip(map_BDHW), scale_factor=2.0)
        return doubled


class Down(nn.Module):
    """A discriminator's block: half the side, or the same."""

    def __init__(self, num_in: int, num_out: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.skip = nn.Conv2d(num_in, num_out, 1) if num_in != num_out or halve else nn.Identity()

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """[B, D, H, W] -> [B, D', H/2, W/2], or H, W."""
        inner = self.conv2(F.relu(self.conv1(map_BDHW if self.first else F.relu(map_BDHW))))
        if self.halve:
            inner, map_BDHW = F.avg_pool2d(inner, 2), F.avg_pool2d(map_BDHW, 2)
        summed: Tensor = inner + self.skip(map_BDHW)
        return summed


class Generator(nn.Module):
    """z [B, Z] and classes [B] -> images [B, 3, P, P] in [-1, 1]."""

    def __init__(self, side: int, width: int, num_classes: int) -> None:
        super().__init__()
        check_side(side)
        self.num_classes = num_classes
        steps = (side // START).bit_length() - 1
        widths = [width * min(MOST, 2**left) for left in range(steps, -1, -1)]
        self.first = nn.Linear(LATENT, START * START * widths[0])
        self.blocks = nn.ModuleList([Up(a, b, num_classes) for a, b in pairwise(widths)])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        _initialize(self)

    def forward(self, z_BZ: Tensor, class_B: Tensor) -> Tensor:
        """Images [B, 3, P, P] in [-1, 1], float32; ValueError for other shapes."""
        if z_BZ.ndim != 2 or z_BZ.shape[1] != LATENT or class_B.shape != z_BZ.shape[:1]:
            raise ValueError(
                f"z is [B, {LATENT}] and classes [B], not {list(z_BZ.shape)}, {list(class_B.shape)}"
            )
        map_BDHW = self.first(z_BZ).unflatten(1, (-1, START, START))
        map_BDHW = map_BDHW.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            map_BDHW = block(map_BDHW, class_B)
        return torch.tanh(self.last(F.relu(self.norm(map_BDHW))).float())


class Discriminator(nn.Module):
    """Images [B, 3, P, P] in [-1, 1] -> what is real, of which class, and in what features.

    Three heads on one trunk: adversarial [B], ADC [B, 2C] (column 2k: a real image of class k,
    2k + 1: a synthetic one), and h_D [B, D_T] in the teacher's feature space.
    """

    def __init__(self, side: int, width: int, num_classes: int, num_features: int) -> None:
        super().__init__()
        check_side(side)
        num_downs = max(1, (side // LAST).bit_length() - 1)
        widths = [3, *(width * min(MOST, 2**step) for step in range(num_downs + 2))]
        self.blocks = nn.ModuleList(
            Down(a, b, halve=number < num_downs, first=number == 0)
            for number, (a, b) in enumerate(pairwise(widths))
        )
        self.adversarial = nn.Linear(widths[-1], 1)
        self.adc = nn.Linear(widths[-1], 2 * num_classes)
        _initialize(self)
        # The teacher's features have a length of their own, so this head is not normed.
        self.features = nn.Linear(widths[-1], num_features)

    def forward(self, images_B3PP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(adversarial [B], ADC [B, 2C], h_D [B, D_T]), float32."""
        map_BDHW = images_B3PP.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            map_BDHW = block(map_BDHW)
        pooled_BD = F.relu(map_BDHW).float().sum((2, 3))
        with torch.autocast(pooled_BD.device.type, enabled=False):
            realness_B: Tensor = self.adversarial(pooled_BD).squeeze(1)
            return realness_B, self.adc(pooled_BD), self.features(pooled_BD)


def _initialize(net: nn.Module) -> None:
    """Orthogonal weights, as BigGAN has them; norms are left as they are."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def to_channels_last(net: Net, device: str) -> Net:
    """`net` on `device` in channels_last, in place."""
    net.to(device)
    net.to(memory_format=torch.channels_last)
    return net


def with_spectral_norm(net: Net) -> Net:
    """`net` with spectral norm on every convolution and Linear, but the head `features`."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and name != "features":
            spectral_norm(layer)
    return net


@contextmanager
def normed_weights_cached(*nets: nn.Module) -> Iterator[None]:
    """Within, every normed weight is made once, in float32 whatever autocast says."""
    with parametrize.cached():
        for net in nets:
            for layer in net.modules():
                if parametrize.is_parametrized(layer):
                    assert isinstance(layer.weight, Tensor)
        yield


def weights_as_applied(net: nn.Module, like: nn.Module) -> dict[str, Tensor]:
    """The tensors of `net` by the names of `like`, the same net without spectral norm: normed."""
    tensors = {}
    with torch.no_grad():
        for key in like.state_dict():
            layer, _, name = key.rpartition(".")
            tensors[key] = getattr(net.get_submodule(layer), name)
    return tensors
