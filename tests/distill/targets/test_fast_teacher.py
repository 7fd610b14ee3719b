"""The fast teacher gives the logits of the net, without BatchNorm where folding is possible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.targets import fast_teacher as module
from distill.targets.fast_teacher import compile_pays, fast_teacher
from indexes import devices
from indexes.models.net import Net, build_net

SIZE = 32
NETS = ["resnet8x4", "wrn_16_1", "vgg8", "mobilenetv2", "torchvision:resnet18",
        "timm:vit_tiny_patch16_224:img_size=32:patch_size=8:depth=2", "timm:mobilenetv3_small_050",
        "torchvision:shufflenet_v2_x0_5"]  # fmt: skip


def trained(builder: str) -> Net:
    """Give a net random weights and BatchNorm statistics unlike those of a new net."""
    torch.manual_seed(0)
    net = build_net(builder, num_classes=5, mean=(0.4,) * 3, std=(0.2,) * 3).eval()
    for layer in net.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
    return net


def pixels() -> Tensor:
    return torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def norms(net: Net) -> int:
    return sum(type(layer) is nn.BatchNorm2d for layer in net.module.modules())


@pytest.mark.parametrize("builder", NETS)
def test_the_outputs_are_the_same(builder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    net = trained(builder)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    fast = fast_teacher(net, SIZE)
    with torch.no_grad():
        for ours, theirs in zip(fast(pixels()), net(pixels()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    if builder.startswith(("resnet", "vgg", "mobilenetv2", "torchvision:resnet")):
        assert norms(net) > 0 == norms(fast)
    assert not any(p.requires_grad for p in fast.parameters())
    now = net.state_dict()
    assert state.keys() == now.keys(), "the net itself is unchanged"
    assert all(torch.equal(now[name], value) for name, value in state.items())


@pytest.mark.parametrize("builder", NETS)
def test_bfloat16_outputs_equal_those_of_autocast(
    builder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    monkeypatch.setattr(module, "_fold", lambda net, pixels: None)
    net = trained(builder)
    fast = fast_teacher(net, SIZE)
    kinds = {layer.weight.dtype for layer in fast.module.modules() if type(layer) is nn.Conv2d}
    assert kinds == {torch.bfloat16}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for ours, theirs in zip(fast(pixels()), net(pixels()), strict=True):
            difference = (ours.float() - theirs.float()).abs()
            assert difference.max() <= 0.03 * theirs.float().abs().max()
            assert difference.mean() <= 0.003 * theirs.float().abs().max()


class Twice(nn.Module):
    """A net in which the output of a convolution also goes to a place other than its BatchNorm."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        raw = self.conv(pixels)
        return self.fc((self.norm(raw) * raw).mean((2, 3)))


def twice(num_classes: int) -> nn.Module:
    return Twice(num_classes)


def test_a_batchnorm_that_cannot_be_folded_is_kept() -> None:
    torch.manual_seed(0)
    net = build_net(
        "tests.distill.targets.test_fast_teacher:twice", num_classes=3, trust=True
    ).eval()
    net.module.norm.running_mean.fill_(1)
    fast = fast_teacher(net, SIZE)
    assert norms(fast) == 1
    with torch.no_grad(), devices.autocast("cpu"):
        torch.testing.assert_close(fast(pixels())[2], net(pixels())[2], rtol=0.03, atol=0.03)


def test_compiling_pays_for_many_images_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder, exc

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    assert compile_pays("cpu", 10**6)
    assert not compile_pays("cpu", 1000)
    assert not compile_pays("cuda", 10**9)

    def missing() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    assert not compile_pays("cpu", 10**6)
