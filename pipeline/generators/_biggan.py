"""BigGAN for small images: residual blocks, class-conditional BatchNorm, spectral norm.

Brock et al., ICLR 2019 (arXiv 1809.11096), SOURCE, in the variant for 32 pixels: a gain and a bias
per class, z only at the input, and no attention. B images, Z the latent width, C classes, P the
side in pixels, D_T the width of the teacher's features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

Net = TypeVar("Net", bound=nn.Module)
LATENT = 128
SMALLEST, LARGEST = 8, 256  # limits of the side of images, which is a power of two
START = 4  # side of the generator's first feature map
LAST = 8  # side of the discriminator's last feature map
MOST = 4  # channels of the widest layer, as a multiple of `width`
HIDDEN = 1024  # features between the two layers of the normed feature head (SOURCE)
STD = 0.02  # of normal initial weights (SOURCE)
# BigGAN's channels by the side, as multiples of `width` (SOURCE). The generator's are listed from
# its first map of 4 pixels on, and the discriminator's behind the image. Smaller sides take a part
# of the entry of 32 pixels.
GENERATOR_CHANNELS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
DISCRIMINATOR_CHANNELS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
Channels = Literal["tapered", "biggan"]
Initial = Literal["orthogonal", "normal"]
FeatureHead = Literal["linear", "normed"]


def check_side(side: int) -> None:
    """Raise ValueError unless `side` is a power of two that these nets support."""
    if side & (side - 1) or not SMALLEST <= side <= LARGEST:
        raise ValueError(f"pixels={side}: must be a power of two from {SMALLEST} to {LARGEST}")


def generator_widths(side: int, width: int, channels: Channels) -> list[int]:
    """Return the channels of the generator's maps, from 4 pixels to `side` pixels.

    tapered: `width` at full resolution, and four times as many at most (OURS). biggan: BigGAN's
    table (SOURCE).

    Example:
        >>> generator_widths(32, 8, "tapered"), generator_widths(32, 8, "biggan")
        ([32, 32, 16, 8], [32, 32, 32, 32])
    """
    ups = (side // START).bit_length() - 1
    multiples = [min(MOST, 2**left) for left in range(ups, -1, -1)]
    if channels == "biggan":
        multiples = list(GENERATOR_CHANNELS[max(side, 32)][: ups + 1])
    return [width * multiple for multiple in multiples]


def discriminator_widths(side: int, width: int, channels: Channels) -> tuple[list[int], int]:
    """Return the channels of the discriminator's maps behind the image, and the number of halvings.

    The first blocks halve the side, and the others keep it. tapered ends at 8 pixels with two
    blocks that keep it (OURS). biggan is BigGAN's table (SOURCE): it ends at 4 pixels with one such
    block, or with two at 8 pixels for images of 32 pixels.

    Example:
        >>> discriminator_widths(64, 8, "tapered"), discriminator_widths(64, 8, "biggan")
        (([8, 16, 32, 32, 32], 3), ([8, 16, 32, 64, 128], 4))
    """
    downs = max(1, (side // LAST).bit_length() - 1)
    multiples = [min(MOST, 2**step) for step in range(downs + 2)]
    if channels == "biggan":
        multiples = list(DISCRIMINATOR_CHANNELS[max(side, 32)][: downs + 2])
        downs = downs if side <= 32 else len(multiples) - 1
    return [width * multiple for multiple in multiples], downs


class ClassNorm(nn.Module):
    """A BatchNorm with a gain and a bias per class."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=False)
        self.gain = nn.Embedding(num_classes, num_features)
        self.bias = nn.Embedding(num_classes, num_features)
        # Not ones and zeros, so that classes differ from the first step on.
        for embedding in (self.gain, self.bias):
            nn.init.orthogonal_(embedding.weight)

    def forward(self, map_BDHW: Tensor, class_B: Tensor) -> Tensor:
        """Normalize maps [B, D, H, W] of classes [B]; the shape stays the same (SOURCE)."""
        gain, bias = self.gain(class_B)[:, :, None, None], self.bias(class_B)[:, :, None, None]
        normal: Tensor = self.norm(map_BDHW)
        scaled: Tensor = normal * (1 + gain).to(normal.dtype) + bias.to(normal.dtype)
        return scaled


class Up(nn.Module):
    """A residual block of the generator, which doubles the side."""

    def __init__(self, num_in: int, num_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ClassNorm(num_in, num_classes)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.norm2 = ClassNorm(num_out, num_classes)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.skip = nn.Conv2d(num_in, num_out, 1)

    def forward(self, map_BDHW: Tensor, class_B: Tensor) -> Tensor:
        """Map [B, D, H, W] of classes [B] to [B, D', 2H, 2W] (SOURCE)."""
        inner = F.relu(self.norm1(map_BDHW, class_B))
        inner = self.conv1(F.interpolate(inner, scale_factor=2.0))
        inner = self.conv2(F.relu(self.norm2(inner, class_B)))
        # A 1x1 convolution before the upsampling gives the same result for a quarter of the work.
        doubled: Tensor = inner + F.interpolate(self.skip(map_BDHW), scale_factor=2.0)
        return doubled


class Down(nn.Module):
    """A residual block of the discriminator, which halves the side or keeps it."""

    def __init__(self, num_in: int, num_out: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.skip = nn.Conv2d(num_in, num_out, 1) if num_in != num_out or halve else nn.Identity()

    def forward(self, map_BDHW: Tensor) -> Tensor:
        """Map [B, D, H, W] to [B, D', H/2, W/2], or to [B, D', H, W] unless `halve` (SOURCE)."""
        inner = self.conv2(F.relu(self.conv1(map_BDHW if self.first else F.relu(map_BDHW))))
        if self.halve:
            inner, map_BDHW = F.avg_pool2d(inner, 2), F.avg_pool2d(map_BDHW, 2)
        summed: Tensor = inner + self.skip(map_BDHW)
        return summed


class Generator(nn.Module):
    """The generator: maps z [B, Z] and classes [B] to images [B, 3, P, P] in [-1, 1]."""

    def __init__(
        self,
        side: int,
        width: int,
        num_classes: int,
        *,
        channels: Channels = "tapered",
        initial: Initial = "orthogonal",
    ) -> None:
        super().__init__()
        check_side(side)
        self.num_classes = num_classes
        widths = generator_widths(side, width, channels)
        self.first = nn.Linear(LATENT, START * START * widths[0])
        self.blocks = nn.ModuleList([Up(a, b, num_classes) for a, b in pairwise(widths)])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        _initialize(self, initial)

    def forward(self, z_BZ: Tensor, class_B: Tensor) -> Tensor:
        """Return images [B, 3, P, P] in [-1, 1], float32, of z [B, Z] and classes [B] (SOURCE).

        Raises ValueError for other shapes.
        """
        if z_BZ.ndim != 2 or z_BZ.shape[1] != LATENT or class_B.shape != z_BZ.shape[:1]:
            raise ValueError(
                f"z is [B, {LATENT}] and classes [B], not {list(z_BZ.shape)} and "
                f"{list(class_B.shape)}"
            )
        map_BDHW = self.first(z_BZ).unflatten(1, (-1, START, START))
        map_BDHW = map_BDHW.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            map_BDHW = block(map_BDHW, class_B)
        return torch.tanh(self.last(F.relu(self.norm(map_BDHW))).float())


class Discriminator(nn.Module):
    """The discriminator of images [B, 3, P, P] in [-1, 1], with three heads on one trunk.

    The adversarial head gives scores [B]. The ADC head gives logits [B, 2C]: column 2k stands for a
    real image of class k, and column 2k + 1 for a synthetic one. The feature head gives h_D
    [B, D_T] in the teacher's feature space: linear is one plain layer (OURS), normed is the
    release's two layers with spectral norm and no activation in between (SOURCE).
    """

    def __init__(
        self,
        side: int,
        width: int,
        num_classes: int,
        num_features: int,
        *,
        channels: Channels = "tapered",
        initial: Initial = "orthogonal",
        feature_head: FeatureHead = "linear",
    ) -> None:
        super().__init__()
        check_side(side)
        widths, num_downs = discriminator_widths(side, width, channels)
        self.blocks = nn.ModuleList(
            Down(a, b, halve=number < num_downs, first=number == 0)
            for number, (a, b) in enumerate(pairwise([3, *widths]))
        )
        self.adversarial = nn.Linear(widths[-1], 1)
        self.adc = nn.Linear(widths[-1], 2 * num_classes)
        self.features: nn.Module
        if feature_head == "normed":
            layers = nn.Linear(widths[-1], HIDDEN), nn.Linear(HIDDEN, num_features)
            self.features = nn.Sequential(*layers)
        _initialize(self, initial)
        # No spectral norm on this head, because the norm of the teacher's features is arbitrary.
        if feature_head == "linear":
            self.features = nn.Linear(widths[-1], num_features)

    def forward(self, images_B3PP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (adversarial [B], ADC [B, 2C], h_D [B, D_T]), float32 (arXiv 2412.13525)."""
        map_BDHW = images_B3PP.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            map_BDHW = block(map_BDHW)
        pooled_BD = F.relu(map_BDHW).float().sum((2, 3))
        with torch.autocast(pooled_BD.device.type, enabled=False):
            realness_B: Tensor = self.adversarial(pooled_BD).squeeze(1)
            return realness_B, self.adc(pooled_BD), self.features(pooled_BD)


def _initialize(net: nn.Module, initial: Initial) -> None:
    """Initialize the weights in place; norm layers keep their values.

    orthogonal: as in BigGAN, with biases of zero. normal: as in the release of HiDFD, a normal
    distribution for weights and embeddings; biases keep torch's initial values.
    """
    for layer in net.modules():
        if initial == "normal" and isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
            nn.init.normal_(layer.weight, std=STD)
        elif initial == "orthogonal" and isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def to_channels_last(net: Net, device: str) -> Net:
    """Move `net` to `device` in the channels_last format, in place, and return it."""
    net.to(device)
    net.to(memory_format=torch.channels_last)
    return net


def with_spectral_norm(net: Net) -> Net:
    """Add spectral norm to every convolution and Linear of `net` but a linear head `features`."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and name != "features":
            spectral_norm(layer)
    return net


@contextmanager
def normed_weights_cached(*nets: nn.Module) -> Iterator[None]:
    """Compute every spectrally normed weight once within the context, in float32 under autocast."""
    with parametrize.cached():
        for net in nets:
            for layer in net.modules():
                if parametrize.is_parametrized(layer):
                    assert isinstance(layer.weight, Tensor)
        yield


def weights_as_applied(net: nn.Module, like: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of `net` with spectral norm applied, such as weights [D, D, 3, 3].

    `like` is the same net without spectral norm; it gives the names (OURS).
    """
    tensors = {}
    with torch.no_grad():
        for key in like.state_dict():
            layer, _, name = key.rpartition(".")
            tensors[key] = getattr(net.get_submodule(layer), name)
    return tensors
