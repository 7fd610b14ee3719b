"""The training of HiDFD's two nets, step by step; its knobs are those of hidfd.Config.

B images of a batch, P their side, Z the latent width, C classes, D_T the teacher's features. The
discriminator and the generator learn from the same painted images: one pass of the generator and
one of the teacher serve both (OURS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexes import devices
from indexes.artifact import hash64
from indexes.models.teacher import Teacher
from pipeline.generation.dataset import Examples, teacher_view
from pipeline.generators import _biggan
from pipeline.generators import _hidfd_losses as losses

if TYPE_CHECKING:
    from pipeline.generators.hidfd import Config

SETTLING = 50  # batches over which the averaged generator's BatchNorms find their statistics


class Training:
    """Both nets, their optimizers, the average, and the counts of the teacher's classes."""

    def __init__(
        self, config: Config, examples: Examples, teacher: Teacher, *, seed: int, device: str
    ) -> None:
        self.config, self.examples, self.teacher = config, examples, teacher
        self.seed, self.device, self.per_step = seed, device, config.batch
        self.steps = max(1, math.ceil(config.epochs * len(examples) / config.batch))
        self._orders: dict[int, list[int]] = {}
        side, self.num_classes = examples.pixels.shape[1], len(teacher.card.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            plain = _biggan.Generator(side, config.width, self.num_classes)
            own = _biggan.Generator(side, config.width, self.num_classes)
            judge = _biggan.Discriminator(
                side, config.width, self.num_classes, examples.features.shape[2]
            )
            self.generator = _biggan.placed(_biggan.normed(own), device)
            self.discriminator = _biggan.placed(_biggan.normed(judge), device)
        self.average = plain.to(device).requires_grad_(False)
        self._load_average(1.0)
        self.optimizers = {
            "generator": _adam(self.generator, config.lr_generator),
            "discriminator": _adam(self.discriminator, config.lr_discriminator),
        }
        self.counts_C = torch.ones(self.num_classes, device=device)  # N_k
        self.seen_C = torch.zeros(self.num_classes, device=device)  # n_k

    def take(self, step: int) -> dict[str, Tensor]:
        """One step of the discriminator and one of the generator, on the same painted images."""
        config = self.config
        random = torch.Generator().manual_seed(hash64(f"{self.seed} {step}".encode()) >> 1)
        real, heard_real, real_class = self._real(step, random)
        asked, z = (one.to(self.device) for one in _drawn(config.batch, self.num_classes, random))
        if config.pairs == "class":
            real_order, asked = real_class.sort(stable=True).indices, asked.sort().values
            real, heard_real = real[real_order], heard_real[real_order]
            real_class = real_class[real_order]
        with _biggan.weights_made(self.generator), devices.autocast(self.device):
            fake = self.generator(z, asked)
        heard = logits = None
        if step % config.teacher_every == 0:
            with devices.autocast(self.device):
                pixels = teacher_view((fake + 1) / 2, self.teacher.geometry)
                _, heard, logits = self.teacher.net(pixels)
        terms = self._discriminate(real, real_class, heard_real, fake.detach(), asked,
                                   None if heard is None else heard.detach())  # fmt: skip
        terms |= self._generate(fake, asked, logits)
        if (step + 1) % config.update_steps == 0 and bool(self.seen_C.sum() > 0):
            self.counts_C = losses.updated_counts(self.counts_C, self.seen_C)
            self.seen_C = torch.zeros_like(self.seen_C)
        self._load_average(1 - min(config.ema, (1 + step) / (10 + step)))
        return terms

    def _real(self, step: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The real images of a step, their features and labels: each image once an epoch."""
        place = step * self.config.batch + np.arange(self.config.batch)
        epochs, places = np.divmod(place, len(self.examples))
        rows = [
            self._order(epoch)[place]
            for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)
        ]
        mirrored = torch.randint(2, (len(rows),), generator=random)
        return self.examples.view(torch.tensor(rows).to(self.device), mirrored.to(self.device))

    def _order(self, epoch: int) -> list[int]:
        """The rows in the order of an epoch."""
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))
            self._orders[epoch] = order.tolist()
        return self._orders[epoch]

    def _discriminate(
        self,
        real: Tensor,
        real_class: Tensor,
        heard_real: Tensor,
        fake: Tensor,
        asked: Tensor,
        heard_fake: Tensor | None,
    ) -> dict[str, Tensor]:
        num, net, config = len(real), self.discriminator, self.config
        with _biggan.weights_made(net), devices.autocast(self.device):
            told, adc, own = net(torch.cat([real, fake]))
        terms = {
            "d_adv": losses.hinge_discriminator(told[:num], told[num:]),
            "d_adc": losses.adc_discriminator(adc[:num], real_class, adc[num:], asked),
        }
        if heard_fake is None:  # of the two terms what the teacher need not look for
            terms["trans"] = config.trans * losses.distance(heard_real, own[:num])
            terms["blend"] = config.blend * losses.distance(heard_real, own[num:])
        else:
            both = heard_real, own[:num], heard_fake, own[num:]
            terms["trans"] = config.trans * losses.transfer(*both)
            terms["blend"] = config.blend * losses.blend(*both)
        self._learn("discriminator", terms)
        return {name: value.detach() for name, value in terms.items()}

    def _generate(self, fake: Tensor, asked: Tensor, logits: Tensor | None) -> dict[str, Tensor]:
        config, net = self.config, self.discriminator
        net.requires_grad_(False)
        with _biggan.weights_made(net), devices.autocast(self.device):
            told, adc, _ = net(fake)
        terms = {
            "g_adv": losses.hinge_generator(told),
            "g_adc": losses.adc_generator(adc, asked),
        }
        figures = {}
        if logits is not None:
            weights_C = losses.class_weights(self.counts_C, config.beta)
            terms["frequency"] = config.frequency * losses.frequency(logits, weights_C)
            terms["agree"] = config.agree * F.cross_entropy(logits, asked)
            seen = logits.detach().argmax(1)
            self.seen_C += torch.bincount(seen, minlength=self.num_classes)
            figures["as_asked"] = (seen == asked).float().mean()
        self._learn("generator", terms)
        net.requires_grad_(True)
        return {name: value.detach() for name, value in terms.items()} | figures

    def _learn(self, which: str, terms: Mapping[str, Tensor]) -> None:
        self.optimizers[which].zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        self.optimizers[which].step()

    def _load_average(self, share: float) -> None:
        """Moves the average by `share` of the way to the generator as it is applied."""
        now = _biggan.applied(self.generator, self.average)
        with torch.no_grad():
            for name, value in self.average.named_parameters():
                value.lerp_(now[name], share)

    def state_dict(self) -> dict[str, Any]:
        """See pipeline.generation.base.Trainer."""
        return {
            "nets": {name: net.state_dict() for name, net in self._nets()},
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "counts": self.counts_C,
            "seen": self.seen_C,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See pipeline.generation.base.Trainer."""
        for name, net in self._nets():
            net.load_state_dict(state["nets"][name])
        for name, one in self.optimizers.items():
            one.load_state_dict(state["optimizers"][name])
        self.counts_C = state["counts"].to(self.device)
        self.seen_C = state["seen"].to(self.device)

    def result(self) -> dict[str, Tensor]:
        """The averaged generator, its statistics of its BatchNorms taken anew (as BigGAN)."""
        net = self.average.train()
        for one in net.modules():
            if isinstance(one, nn.BatchNorm2d):
                one.reset_running_stats()
                one.momentum = None  # a plain mean over the batches
        random = torch.Generator().manual_seed(hash64(f"{self.seed} settle".encode()) >> 1)
        with torch.no_grad(), devices.autocast(self.device):
            for _ in range(SETTLING):
                asked, z = _drawn(self.config.batch, self.num_classes, random)
                net(z.to(self.device), asked.to(self.device))
        return net.eval().state_dict()

    def _nets(self) -> list[tuple[str, nn.Module]]:
        return [
            ("generator", self.generator),
            ("discriminator", self.discriminator),
            ("average", self.average),
        ]


def _drawn(num: int, num_classes: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes [B] and z [B, Z]."""
    classes = torch.randint(num_classes, (num,), generator=random)
    return classes, torch.randn(num, _biggan.LATENT, generator=random)


def _adam(net: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr, betas=(0.0, 0.999))
