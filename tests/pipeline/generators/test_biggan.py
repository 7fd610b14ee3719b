"""The nets of the GAN: their shapes, and the same images with and without spectral norm."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parametrize

from pipeline.generators import _biggan
from pipeline.generators._biggan import (
    LATENT,
    Channels,
    Discriminator,
    FeatureHead,
    Generator,
    Initial,
)


def random_input(num: int = 6, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(num, LATENT, generator=random), torch.arange(num) % num_classes


@pytest.mark.parametrize("channels", ["tapered", "biggan"])
@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_nets_have_their_shapes(side: int, channels: Channels) -> None:
    z, classes = random_input()
    images = Generator(side, 2, 3, channels=channels)(z, classes)
    assert images.shape == (6, 3, side, side)
    assert images.abs().max() <= 1
    net = Discriminator(side, 2, 3, 5, channels=channels)
    realness, adc, features = net(images)
    assert [tuple(head.shape) for head in (realness, adc, features)] == [(6,), (6, 6), (6, 5)]


@pytest.mark.parametrize(
    ("side", "generator", "discriminator", "halvings"),
    [
        (16, [256, 256, 256], [256, 256, 256], 1),
        (32, [256, 256, 256, 256], [256, 256, 256, 256], 2),
        (64, [1024, 1024, 512, 256, 128], [64, 128, 256, 512, 1024], 4),
        (128, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 5),
        (256, [1024, 1024, 512, 512, 256, 128, 64], [64, 128, 256, 512, 512, 1024, 1024], 6),
    ],
)
def test_biggan_channels_are_those_of_the_published_table(
    side: int, generator: list[int], discriminator: list[int], halvings: int
) -> None:
    assert _biggan.generator_widths(side, 64, "biggan") == generator
    assert _biggan.discriminator_widths(side, 64, "biggan") == (discriminator, halvings)
    if side < 64:
        blocks = Generator(side, 64, 3, channels="biggan").blocks
        assert [block.conv2.out_channels for block in blocks] == generator[1:]
        blocks = Discriminator(side, 64, 3, 5, channels="biggan").blocks
        assert [block.conv2.out_channels for block in blocks] == discriminator
        assert sum(block.halve for block in blocks) == halvings


def weighted_layers(initial: Initial, head: FeatureHead) -> dict[str, torch.nn.Module]:
    """Return the layers with weights of both nets but a linear feature head, by name."""
    torch.manual_seed(0)
    nets = {
        "G": Generator(16, 16, 30, initial=initial),
        "D": Discriminator(16, 16, 30, 50, initial=initial, feature_head=head),
    }
    layers = {
        f"{key}.{name}": layer for key, net in nets.items() for name, layer in net.named_modules()
    }
    kinds = torch.nn.Conv2d | torch.nn.Linear | torch.nn.Embedding
    return {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, kinds) and name != "D.features"
    }


def test_orthogonal_initial_weights_have_singular_values_of_one_and_no_bias() -> None:
    for name, layer in weighted_layers("orthogonal", "linear").items():
        values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
        torch.testing.assert_close(values, torch.ones_like(values), msg=name)
        assert isinstance(layer, torch.nn.Embedding) or not layer.bias.any(), name


def test_normal_initial_weights_have_a_deviation_of_002_everywhere() -> None:
    layers = weighted_layers("normal", "normed")
    assert {"G.blocks.0.norm1.gain", "D.features.0", "D.features.1"} <= layers.keys()
    for name, layer in layers.items():
        weight = layer.weight.detach()
        assert weight.abs().max() < 0.12, name
        if weight.numel() > 400:
            assert weight.mean().item() == pytest.approx(0, abs=0.003), name
            assert weight.std().item() == pytest.approx(0.02, rel=0.1), name
        assert isinstance(layer, torch.nn.Embedding) or layer.bias.any(), name


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


def test_a_normed_feature_head_is_two_linear_layers_of_norm_one() -> None:
    torch.manual_seed(0)
    net = _biggan.with_spectral_norm(Discriminator(16, 4, 3, 5, feature_head="normed"))
    assert [(layer.in_features, layer.out_features) for layer in net.features] == [
        (16, 1024),
        (1024, 5),
    ]
    pooled = torch.rand(2, 16) * 10
    for _ in range(300):
        net.features(pooled)
    net.eval()
    for layer in net.features:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.02)
    middle = net.features(pooled.mean(0))
    torch.testing.assert_close(net.features(pooled).mean(0), middle)  # no activation in between


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
