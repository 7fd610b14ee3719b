"""The training of HiDFD's generator and discriminator; its settings are in _hidfd_config.

B images of a batch, P their side, Z the latent width, C classes, D_T the width of the teacher's
features. Discriminator and generator are trained on the same synthetic images, so that one pass of
the generator and one of the teacher serve both (OURS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexes import devices
from indexes.artifact import hash64
from indexes.models.teacher import Teacher
from pipeline.generation.dataset import TrainingImages, teacher_view
from pipeline.generators import _biggan
from pipeline.generators import _hidfd_losses as losses
from pipeline.generators._hidfd_config import Config

STATISTICS_BATCHES = 50  # batches over which the averaged generator's BatchNorms are estimated


class Training:
    """The two nets, their optimizers, the averaged generator and the counts per predicted class."""

    def __init__(
        self, config: Config, images: TrainingImages, teacher: Teacher, *, seed: int, device: str
    ) -> None:
        self.config, self.images, self.teacher = config, images, teacher
        self.seed, self.device, self.batch_size = seed, device, config.batch
        self.steps = max(1, math.ceil(config.epochs * len(images) / config.batch))
        self._orders: dict[int, list[int]] = {}
        side, self.num_classes = images.pixels.shape[1], len(teacher.card.classes)
        num_features = images.features.shape[2]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            average = _biggan.Generator(side, config.width, self.num_classes)
            generator = _biggan.Generator(side, config.width, self.num_classes)
            discriminator = _biggan.Discriminator(
                side, config.width, self.num_classes, num_features
            )
            for net in (generator, discriminator):  # after both nets: it draws random numbers too
                _biggan.with_spectral_norm(net)
        self.generator = _biggan.to_channels_last(generator, device)
        self.discriminator = _biggan.to_channels_last(discriminator, device)
        self.average = average.to(device).requires_grad_(False)
        self._load_average(1.0)
        self.optimizers = {
            "generator": _adam(self.generator, config.lr_generator),
            "discriminator": _adam(self.discriminator, config.lr_discriminator),
        }
        self.counts_C = torch.ones(self.num_classes, device=device)  # N_k
        self.seen_C = torch.zeros(self.num_classes, device=device)  # n_k

    def step(self, number: int) -> dict[str, Tensor]:
        """Train the discriminator and the generator for one step on the same synthetic images.

        Return the loss terms by name, each a scalar (arXiv 2412.13525).
        """
        config = self.config
        random = torch.Generator().manual_seed(hash64(f"{self.seed} {number}".encode()) >> 1)
        real, teacher_real, real_class = self._real(number, random)
        fake_class, z = (
            tensor.to(self.device) for tensor in _draw(config.batch, self.num_classes, random)
        )
        if config.pairs == "class":
            order, fake_class = real_class.sort(stable=True).indices, fake_class.sort().values
            real, teacher_real, real_class = real[order], teacher_real[order], real_class[order]
        with _biggan.normed_weights_cached(self.generator), devices.autocast(self.device):
            fake = self.generator(z, fake_class)
        teacher_fake = logits = None
        if number % config.teacher_every == 0:
            with devices.autocast(self.device):
                pixels = teacher_view((fake + 1) / 2, self.teacher.geometry)
                _, teacher_fake, logits = self.teacher.net(pixels)
        terms = self._discriminate(
            (real, fake.detach()),
            (real_class, fake_class),
            (teacher_real, None if teacher_fake is None else teacher_fake.detach()),
        )
        terms |= self._generate(fake, fake_class, logits)
        if (number + 1) % config.update_steps == 0 and bool(self.seen_C.sum() > 0):
            self.counts_C = losses.updated_counts(self.counts_C, self.seen_C)
            self.seen_C = torch.zeros_like(self.seen_C)
        self._load_average(1 - min(config.ema, (1 + number) / (10 + number)))
        return terms

    def _real(self, step: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the real images of a step, their features and labels; an epoch has each once."""
        positions = step * self.config.batch + np.arange(self.config.batch)
        epochs, offsets = np.divmod(positions, len(self.images))
        rows = [
            self._order(epoch)[offset]
            for epoch, offset in zip(epochs.tolist(), offsets.tolist(), strict=True)
        ]
        mirrored = torch.randint(2, (len(rows),), generator=random)
        return self.images.view(torch.tensor(rows).to(self.device), mirrored.to(self.device))

    def _order(self, epoch: int) -> list[int]:
        """Return the rows in the order of an epoch."""
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
            self._orders[epoch] = order.tolist()
        return self._orders[epoch]

    def _discriminate(
        self,
        images: tuple[Tensor, Tensor],
        classes: tuple[Tensor, Tensor],
        teacher_features: tuple[Tensor, Tensor | None],
    ) -> dict[str, Tensor]:
        """Train the discriminator for one step; each pair is (real images, synthetic images)."""
        num, net, config = len(images[0]), self.discriminator, self.config
        (real_class, fake_class), (teacher_real, teacher_fake) = classes, teacher_features
        with _biggan.normed_weights_cached(net), devices.autocast(self.device):
            realness, adc, features = net(torch.cat(images))
        terms = {
            "d_adv": losses.hinge_discriminator(realness[:num], realness[num:]),
            "d_adc": losses.adc_discriminator(adc[:num], real_class, adc[num:], fake_class),
        }
        if teacher_fake is None:  # the halves of the terms without the teacher's synthetic features
            terms["trans"] = config.trans * losses.distance(teacher_real, features[:num])
            terms["blend"] = config.blend * losses.distance(teacher_real, features[num:])
        else:
            pairs = teacher_real, features[:num], teacher_fake, features[num:]
            terms["trans"] = config.trans * losses.transfer(*pairs)
            terms["blend"] = config.blend * losses.blend(*pairs)
        self._backward("discriminator", terms)
        return {name: value.detach() for name, value in terms.items()}

    def _generate(
        self, fake: Tensor, fake_class: Tensor, logits: Tensor | None
    ) -> dict[str, Tensor]:
        config, net = self.config, self.discriminator
        net.requires_grad_(False)
        with _biggan.normed_weights_cached(net), devices.autocast(self.device):
            realness, adc, _ = net(fake)
        terms = {
            "g_adv": losses.hinge_generator(realness),
            "g_adc": losses.adc_generator(adc, fake_class),
        }
        figures = {}
        if logits is not None:
            weights_C = losses.class_weights(self.counts_C, config.beta)
            terms["frequency"] = config.frequency * losses.frequency(logits, weights_C)
            terms["agree"] = config.agree * F.cross_entropy(logits, fake_class)
            seen = logits.detach().argmax(1)
            self.seen_C += torch.bincount(seen, minlength=self.num_classes)
            figures["agreeing_frac"] = (seen == fake_class).float().mean()
        self._backward("generator", terms)
        net.requires_grad_(True)
        return {name: value.detach() for name, value in terms.items()} | figures

    def _backward(self, net: str, terms: Mapping[str, Tensor]) -> None:
        self.optimizers[net].zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        self.optimizers[net].step()

    def _load_average(self, share: float) -> None:
        """Move the average by `share` of the way to the generator's normed weights."""
        weights = _biggan.weights_as_applied(self.generator, self.average)
        with torch.no_grad():
            for name, value in self.average.named_parameters():
                value.lerp_(weights[name], share)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training; see pipeline.generation.base.Trainer."""
        return {
            "nets": {name: net.state_dict() for name, net in self._nets()},
            "optimizers": {name: optim.state_dict() for name, optim in self.optimizers.items()},
            "counts": self.counts_C,
            "seen": self.seen_C,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a training; see pipeline.generation.base.Trainer."""
        for name, net in self._nets():
            net.load_state_dict(state["nets"][name])
        for name, optim in self.optimizers.items():
            optim.load_state_dict(state["optimizers"][name])
        self.counts_C = state["counts"].to(self.device)
        self.seen_C = state["seen"].to(self.device)

    def result(self) -> dict[str, Tensor]:
        """Return the averaged generator's tensors, such as weights [D, D, 3, 3].

        Its BatchNorm statistics are estimated anew, as in BigGAN (SOURCE).
        """
        net = self.average.train()
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None  # a plain mean over the batches
        random = torch.Generator().manual_seed(hash64(f"{self.seed} settle".encode()) >> 1)
        with torch.no_grad(), devices.autocast(self.device):
            for _ in range(STATISTICS_BATCHES):
                classes, z = _draw(self.config.batch, self.num_classes, random)
                net(z.to(self.device), classes.to(self.device))
        return net.eval().state_dict()

    def _nets(self) -> list[tuple[str, nn.Module]]:
        return [
            ("generator", self.generator),
            ("discriminator", self.discriminator),
            ("average", self.average),
        ]


def _draw(num: int, num_classes: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw classes [B] and z [B, Z]."""
    classes = torch.randint(num_classes, (num,), generator=random)
    return classes, torch.randn(num, _biggan.LATENT, generator=random)


def _adam(net: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr, betas=(0.0, 0.999))
