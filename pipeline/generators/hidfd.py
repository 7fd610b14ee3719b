"""HiDFD's teacher-guided class-conditional GAN (arXiv 2412.13525, AAAI 2025), with fixes.

Command: winnow generate --shards RUNS/shards/NAME -n 50000 --generator hidfd

SOURCE (paper and released code): BigGAN blocks, hinge and ADC losses, feature integration in the
discriminator, category frequency smoothing in the generator. Four faults of the release are fixed:
feature integration has gradients, the counts per class are updated, their effective number does not
saturate, and the teacher gets pixels under its own normalization. Additions are marked OURS. The
preset `faithful` turns them off and takes the release's nets, initial weights, images and sampled
generator. These differences remain beside the fixes:

- Synthetic images have equal numbers per requested class. The release draws classes at random.
- A batch continues into the next epoch. The release drops an incomplete batch.
- The counts per class start at 1, and `update_steps` is OURS. The release keeps 50 throughout.
- The nets run in bfloat16 on a GPU that has it, and the release's in float32.
- The average is that of normed weights, and the release's of weights before the norm. `faithful`
  does not sample the average.

Measured with `--preset small` on 5,000 selected images of 32 pixels, a ResNet-18 teacher and 13
CPU-minutes on one thread: the teacher assigns 90.0 % of 10,000 synthetic images to their requested
class, and its largest class has 1.62 times as many images as its smallest. The published terms
alone, trained half as long, give 35.9 % and 4.64; without smoothing, 35.2 % and 16.9.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from indexes import devices
from indexes.models.teacher import Teacher
from pipeline.generation.base import Sampler
from pipeline.generation.dataset import TrainingImages
from pipeline.generators import _biggan
from pipeline.generators._hidfd_config import PRESETS, Config
from pipeline.generators._hidfd_training import Training, hidfd_generator

__all__ = ["PRESETS", "VERSION", "Config", "sampler", "side", "trainer"]
VERSION = 1


def side(config: Config, input_size: int) -> int:
    """Return P: `pixels`, or the teacher's input size. Raises ValueError if it is unsupported.

    Example:
        >>> side(Config(), input_size=32)
        32
    """
    _biggan.check_side(config.pixels or input_size)
    return config.pixels or input_size


def stretched(images_B3PP: Tensor) -> Tensor:
    """Scale each image [B, 3, P, P] to a minimum of -1 and a maximum of 1 over all its values.

    The release saves its images that way (SOURCE).

    Example:
        >>> stretched(torch.tensor([[[[-0.5, 0.0, 0.5]]]])).tolist()
        [[[[-1.0, 0.0, 1.0]]]]
    """
    low = images_B3PP.amin((1, 2, 3), keepdim=True)
    high = images_B3PP.amax((1, 2, 3), keepdim=True)
    return (images_B3PP - low) / (high - low).clamp(min=1e-5) * 2 - 1


def trainer(
    config: Config, images: TrainingImages, teacher: Teacher, *, seed: int, device: str
) -> Training:
    """Return the training at its first step; see pipeline.generation.base."""
    return Training(config, images, teacher, seed=seed, device=device)


def sampler(
    config: Config, side: int, num_classes: int, tensors: Mapping[str, Tensor], device: str
) -> Sampler:
    """Return a function that draws images uint8 [B, P, P, 3] of classes [B] (SOURCE).

    It runs the generator of the finished training; see pipeline.generation.base.
    """
    net = hidfd_generator(config, side, num_classes)
    net.load_state_dict(dict(tensors))
    _biggan.to_channels_last(net, device).eval()

    def sample(class_B: Tensor, random: torch.Generator) -> Tensor:
        z_BZ = torch.randn(len(class_B), _biggan.LATENT, generator=random)
        with torch.no_grad(), devices.autocast(device):
            images: Tensor = net(z_BZ.to(device), class_B.to(device))
        if config.stretch:
            images = stretched(images)
        return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

    return sample
