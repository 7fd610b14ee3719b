"""The teacher as a function, made faster: BatchNorms folded into convolutions, weights in bf16.

Its outputs stay within rounding of those of the net itself; that is checked. B images, S their
side, C classes, D features, h w the side of a map.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from distill import feature_maps
from distill.recipe import Needs
from indexes import devices
from indexes.models.net import Net
from indexes.models.teacher import Teacher

NUM_TRIED = 4
# Relative to the largest output. A wrongly folded BatchNorm, or a lost weight, moves it far more.
FOLDED_APART, ROUNDED_APART = 1e-3, 0.1
# Compiling takes 5 to 30 seconds and a ResNet-18 is 7 % faster then, on a CPU; not measured on a
# GPU. OURS
COMPILE_PAYS_VIEWS = 500_000

TeacherFunction = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Pixels [B, 3, S, S] -> the teacher's logits [B, C], and its features [B, D], its map
[B, D, h, w] or None: what the method needs."""


def teacher_function(
    teacher: Teacher, kind: Needs, device: str, compiled: bool = False
) -> TeacherFunction:
    """The teacher as a fast function of pixels: its logits, and its features or map.

    Training and target caches run the teacher only through this function. Its pixels
    [B, 3, S, S] must be on `device`.

    Example: `logits_BC, _ = teacher_function(teacher, "logits", "cpu")(pixels_B3SS)`
    """
    target = feature_maps.teacher_map(teacher) if kind == "map" else None
    net = fast_teacher(teacher.net, teacher.card.input_size)
    forward = torch.compile(net.__call__, options={"freezing": True}) if compiled else net

    def targets(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad(), devices.autocast(device):
            map_BDHW, features_BD, logits_BC = forward(pixels)
        if target is not None:
            return logits_BC, target.map_of(map_BDHW, features_BD)
        return logits_BC, features_BD if kind == "features" else None

    return targets


def compile_pays(device: str, num_views: int) -> bool:
    """Whether to compile the teacher for so many views: where it can be, and was seen to pay."""
    if device != "cpu" or num_views < COMPILE_PAYS_VIEWS:
        return False
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


@torch.no_grad()
def fast_teacher(net: Net, size: int) -> Net:
    """A faster copy of `net`, in evaluation mode and without gradients.

    Images have `size` pixels a side. A change that would alter an output is left out. It is to be
    called under `devices.autocast`, which would round the same weights at each call.
    """
    device = str(next(net.parameters()).device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_TRIED, 3, size, size, generator=generator).to(device)
    fast = _copy(net)
    _fold(fast, pixels)
    if not _are_near(net, fast, pixels, FOLDED_APART):
        fast = _copy(net)
    if devices.has_bf16(device):
        exact = _copy(fast)
        _round(fast)
        with devices.autocast(device):
            if not _are_near(exact, fast, pixels, ROUNDED_APART):
                fast = exact
    return fast.to(memory_format=torch.channels_last)


def _copy(net: Net) -> Net:
    clone = copy.deepcopy(net).eval()
    clone.module.requires_grad_(False)
    return clone


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
    outputs: list[Tensor] = []  # alive, so that no other tensor gets the id of one of them
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[int] = Counter()

    def made(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        calls[id(layer)] += 1
        made_by[id(output)] = layer
        outputs.append(output)

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
