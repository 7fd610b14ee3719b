"""The nets of the GAN: their shapes, and the same images with and without spectral norm."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parametrize

from pipeline.generators import _biggan
from pipeline.generators._biggan import LATENT, Discriminator, Generator


def random_input(num: int = 6, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(num, LATENT, generator=random), torch.arange(num) % num_classes


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_nets_have_their_shapes(side: int) -> None:
    z, classes = random_input()
    images = Generator(side, 2, 3)(z, classes)
    assert images.shape == (6, 3, side, side)
    assert images.abs().max() <= 1
    realness, adc, features = Discriminator(side, 2, 3, 5)(images)
    assert [tuple(head.shape) for head in (realness, adc, features)] == [(6,), (6, 6), (6, 5)]


@pytest.mark.parametrize("side", [0, 4, 24, 512])
def test_unsupported_sides_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"pixels={side}: must be a power of two"):
        Generator(side, 2, 3)
    with pytest.raises(ValueError, match="a power of two"):
        Discriminator(side, 2, 3, 5)


def test_bad_shapes_raise() -> None:
    z, classes = random_input()
    net = Generator(8, 2, 3)
    for bad in ((z[:, :5], classes), (z, classes[:4]), (z[0], classes)):
        with pytest.raises(ValueError, match=r"z is \[B, 128\]"):
            net(*bad)


def test_the_image_depends_on_the_class() -> None:
    net, (z, _) = Generator(8, 4, 3).eval(), random_input()
    first, second = net(z, torch.zeros(6, dtype=int)), net(z, torch.ones(6, dtype=int))
    assert (first - second).abs().mean() > 1e-4


def test_every_weight_but_the_feature_head_has_norm_one() -> None:
    torch.manual_seed(0)
    net = _biggan.with_spectral_norm(Discriminator(16, 4, 3, 5))
    images = torch.rand(4, 3, 16, 16)
    for _ in range(200):
        with _biggan.normed_weights_cached(net):
            net(images)
    for name, module in net.named_modules():
        if name != "features" and parametrize.is_parametrized(module):
            weight = module.weight.detach().flatten(1)
            assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.02), name
    assert not parametrize.is_parametrized(net.features)


def test_normalized_weights_in_a_plain_net_give_the_same_images() -> None:
    torch.manual_seed(0)
    plain, net = Generator(16, 2, 3), _biggan.with_spectral_norm(Generator(16, 2, 3))
    z, classes = random_input()
    net(z, classes)
    net.eval()
    plain.eval().load_state_dict(_biggan.weights_as_applied(net, plain))
    torch.testing.assert_close(plain(z, classes), net(z, classes))


def test_weights_are_computed_in_float32_under_autocast() -> None:
    net = _biggan.with_spectral_norm(Discriminator(8, 2, 3, 5))
    with _biggan.normed_weights_cached(net), torch.autocast("cpu", torch.bfloat16):
        realness, _, features = net(torch.rand(4, 3, 8, 8))
        assert net.blocks[0].conv1.weight.dtype == torch.float32
    assert realness.dtype == features.dtype == torch.float32
    (realness.sum() + features.sum()).backward()
    assert net.blocks[0].conv1.parametrizations.weight.original.grad is not None
