"""The training of HiDFD's generator and discriminator; its settings are in _hidfd_config.

B images of a batch, P their side, Z the latent width, C classes, D_T the width of the teacher's
features. Discriminator and generator are trained on the same synthetic images, so that one pass of
the generator and one of the teacher serve both (OURS), unless `fresh_fakes` is set.
"""

from __future__ import annotations

import copy
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
            average = hidfd_generator(config, side, self.num_classes)
            generator = hidfd_generator(config, side, self.num_classes)
            discriminator = _biggan.Discriminator(
                side,
                config.width,
                self.num_classes,
                num_features,
                channels=config.channels,
                initial=config.initial,
                feature_head=config.feature_head,
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
        """Train the discriminator and the generator for one step.

        Return the loss terms by name, each a scalar (arXiv 2412.13525).
        """
        config = self.config
        random = torch.Generator().manual_seed(hash64(f"{self.seed} {number}".encode()) >> 1)
        real, teacher_real, real_class = self._real(number, random)
        fake_class, z = self._drawn(random)
        if config.pairs == "class":
            order, fake_class = real_class.sort(stable=True).indices, fake_class.sort().values
            real, teacher_real, real_class = real[order], teacher_real[order], real_class[order]
        taught = number % config.teacher_every == 0
        with torch.set_grad_enabled(not config.fresh_fakes):
            fake, teacher_fake, logits = self._fakes(z, fake_class, taught=taught)
        terms = self._discriminate(
            (real, fake.detach()),
            (real_class, fake_class),
            (teacher_real, None if teacher_fake is None else teacher_fake.detach()),
        )
        if config.fresh_fakes:
            fake_class, z = self._drawn(random)
            fake, _, logits = self._fakes(z, fake_class, taught=taught)
        terms |= self._generate(fake, fake_class, logits)
        if (number + 1) % config.update_steps == 0 and bool(self.seen_C.sum() > 0):
            self.counts_C = losses.updated_counts(self.counts_C, self.seen_C)
            self.seen_C = torch.zeros_like(self.seen_C)
        self._load_average(1 - average_decay(config, number))
        return terms

    def _drawn(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw classes [B] and z [B, Z] on the device."""
        class_B, z_BZ = _draw(self.config.batch, self.num_classes, random)
        return class_B.to(self.device), z_BZ.to(self.device)

    def _fakes(
        self, z_BZ: Tensor, class_B: Tensor, *, taught: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return images [B, 3, P, P], and the teacher's features and logits of them if `taught`."""
        with _biggan.normed_weights_cached(self.generator), devices.autocast(self.device):
            fake = self.generator(z_BZ, class_B)
        if not taught:
            return fake, None, None
        with devices.autocast(self.device):
            pixels = teacher_view((fake + 1) / 2, self.teacher.geometry)
            _, features, logits = self.teacher.net(pixels)
        return fake, features, logits

    def _real(self, step: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the real images of a step, their features and labels; an epoch has each once."""
        positions = step * self.config.batch + np.arange(self.config.batch)
        epochs, offsets = np.divmod(positions, len(self.images))
        rows = [
            self._order(epoch)[offset]
            for epoch, offset in zip(epochs.tolist(), offsets.tolist(), strict=True)
        ]
        mirrored = torch.randint(2 if self.config.mirror else 1, (len(rows),), generator=random)
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
        """Move the average by `share` of the way to the generator's normed weights.

        Its BatchNorm statistics follow only if they are not estimated anew.
        """
        weights = _biggan.weights_as_applied(self.generator, self.average)
        averaged: list[tuple[str, Tensor]] = [*self.average.named_parameters()]
        if not self.config.standing_stats:
            averaged += self.average.named_buffers()
        with torch.no_grad():
            for name, value in averaged:
                if value.is_floating_point():
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
        """Return the sampled generator's tensors, such as weights [D, D, 3, 3].

        It is the averaged generator, or the last one without `use_ema`. Its BatchNorm statistics
        are estimated anew if `standing_stats` is set, as in BigGAN (SOURCE).
        """
        net = self.average
        if not self.config.use_ema:
            net = copy.deepcopy(net)
            self.generator.eval()  # in training mode, reading a normed weight changes it
            net.load_state_dict(_biggan.weights_as_applied(self.generator, net))
            self.generator.train()
        if self.config.standing_stats:
            self._settle(net)
        return net.eval().state_dict()

    def _settle(self, net: nn.Module) -> None:
        """Estimate the BatchNorm statistics of a generator anew, in place."""
        net.train()
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None  # a plain mean over the batches
        random = torch.Generator().manual_seed(hash64(f"{self.seed} settle".encode()) >> 1)
        with torch.no_grad(), devices.autocast(self.device):
            for _ in range(STATISTICS_BATCHES):
                class_B, z_BZ = self._drawn(random)
                net(z_BZ, class_B)

    def _nets(self) -> list[tuple[str, nn.Module]]:
        return [
            ("generator", self.generator),
            ("discriminator", self.discriminator),
            ("average", self.average),
        ]


def hidfd_generator(config: Config, side: int, num_classes: int) -> _biggan.Generator:
    """Return the generator of a configuration, without spectral norm."""
    return _biggan.Generator(
        side, config.width, num_classes, channels=config.channels, initial=config.initial
    )


def average_decay(config: Config, number: int) -> float:
    """Return the decay of the averaged generator in step `number`, counted from 0.

    With `ema_start`, it is 0 before that step, counted from 1 as in the release (SOURCE), and `ema`
    from it on. Else it is `ema`, but at most (1 + k) / (10 + k) in step k (OURS).

    Example:
        >>> [average_decay(Config(ema_start=1000), number) for number in (0, 998, 999)]
        [0.0, 0.0, 0.9999]
        >>> round(average_decay(Config(), 0), 2)
        0.1
    """
    if config.ema_start:
        return config.ema if number + 1 >= config.ema_start else 0.0
    return min(config.ema, (1 + number) / (10 + number))


def _draw(num: int, num_classes: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw classes [B] and z [B, Z]."""
    classes = torch.randint(num_classes, (num,), generator=random)
    return classes, torch.randn(num, _biggan.LATENT, generator=random)


def _adam(net: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr, betas=(0.0, 0.999))
