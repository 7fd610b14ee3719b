"""A net that never trains, made faster: BatchNorms folded into convolutions, weights in bf16.

What it answers stays within rounding of what the net itself answers; that is checked. B images, S
their side.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from indexes import devices
from indexes.models.net import Net

NUM_TRIED = 4
# Of the largest answer: a BatchNorm folded wrongly, or a weight lost, moves far more.
FOLDED_APART, ROUNDED_APART = 1e-3, 0.1


@torch.no_grad()
def fast_teacher(net: Net, size: int) -> Net:
    """A copy of `net`, in evaluation mode and without gradients, that answers the same faster.

    Images have `size` pixels a side. What would change an answer is left out. To be called under
    `devices.autocast`, for whose sake its weights are rounded beforehand.
    """
    device = str(next(net.parameters()).device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_TRIED, 3, size, size, generator=generator).to(device)
    found = _copy(net)
    _fold(found, pixels)
    if not _are_near(net, found, pixels, FOLDED_APART):
        found = _copy(net)
    if devices.has_bf16(device):
        plain = _copy(found)
        _round(found)
        with devices.autocast(device):
            if not _are_near(plain, found, pixels, ROUNDED_APART):
                found = plain
    return found.to(memory_format=torch.channels_last)


def _copy(net: Net) -> Net:
    found = copy.deepcopy(net).eval()
    found.module.requires_grad_(False)
    return found


def _are_near(net: Net, other: Net, pixels: Tensor, most: float) -> bool:
    try:
        pairs = zip(net(pixels), other(pixels), strict=True)
    except Exception:  # a layer that reads a weight in a way of its own
        return False
    return all(
        bool((a.float() - b.float()).abs().max() <= most * a.float().abs().max().clamp_min(1))
        for a, b in pairs
    )


def _round(net: Net) -> None:
    """Weights in bf16, to which autocast would round them at each step; not the classifier's."""
    last = net.module.get_submodule(net.head_name)
    for layer in net.module.modules():
        if type(layer) in (nn.Conv2d, nn.Linear) and layer is not last:
            layer.to(torch.bfloat16)


def _fold(net: Net, pixels: Tensor) -> None:
    """Folds each BatchNorm that takes just what one convolution gives, in place."""
    made_by: dict[int, nn.Conv2d] = {}
    kept: list[Tensor] = []  # an output that is gone could leave its id to another one
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[int] = Counter()

    def made(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        calls[id(layer)] += 1
        made_by[id(output)] = layer
        kept.append(output)

    def takes(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        calls[id(layer)] += 1
        if (conv := made_by.get(id(inputs[0]))) is not None:
            pairs.append((conv, layer))

    handles = []
    for layer in net.module.modules():
        if type(layer) is nn.Conv2d:
            handles.append(layer.register_forward_hook(made))
        elif type(layer) is nn.BatchNorm2d and layer.track_running_stats:
            handles.append(layer.register_forward_pre_hook(takes))
    net(pixels)
    for handle in handles:
        handle.remove()
    single = [(conv, norm) for conv, norm in pairs if calls[id(conv)] == calls[id(norm)] == 1]
    gone = {id(norm): nn.Identity() for _, norm in single}
    for conv, norm in single:
        folded = fusion.fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = folded.weight, folded.bias
    for parent in list(net.module.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in gone:
                setattr(parent, name, gone[id(child)])
    net.module.requires_grad_(False)
