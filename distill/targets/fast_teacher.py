"""The teacher as a fast function: BatchNorms folded into convolutions, weights in bf16.

A check ensures that its outputs equal those of the net within rounding. B images, S the side of an
image, C classes, D features, h and w the sides of a map.
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
from indexes.models.stage_map import StageMap, stage_name
from indexes.models.teacher import Teacher

NUM_TRIED = 4
# Allowed differences, relative to the largest output. A wrongly folded BatchNorm or a lost weight
# gives far larger ones.
FOLDED_APART, ROUNDED_APART = 1e-3, 0.1
# Compiling takes 5 to 30 seconds. It makes a ResNet-18 7 % faster on a CPU; it was not measured on
# a GPU. OURS
COMPILE_PAYS_VIEWS = 500_000

TeacherFunction = Callable[[Tensor], tuple[Tensor, Tensor | None, Tensor | None]]
"""A function from pixels [B, 3, S, S] to the teacher's logits [B, C] and, as the method needs, its
features [B, D], its map [B, D, h, w] or None, and its map of the stage before [B, M, h', w'] or
None."""


def teacher_function(
    teacher: Teacher, kind: Needs, device: str, compiled: bool = False
) -> TeacherFunction:
    """Return the teacher as a fast function of pixels: its logits, its features or map, its stage.

    Training and target caches run the teacher only through this function. The pixels
    [B, 3, S, S] must be on `device`.

    Raises NetError for the kind maps, if the teacher has no stage before its last map.

    Example: `logits_BC, _, _ = teacher_function(teacher, "logits", "cpu")(pixels_B3SS)`
    """
    size = teacher.card.input_size
    target = feature_maps.teacher_map(teacher) if kind in ("map", "maps") else None
    net = fast_teacher(teacher.net, size)
    stage = StageMap(net, stage_name(teacher.net, size)) if kind == "maps" else None
    # A compiled net would not run the hook of a stage.
    compiled = compiled and stage is None
    forward = torch.compile(net.__call__, options={"freezing": True}) if compiled else net

    def targets(pixels: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        with torch.no_grad(), devices.autocast(device):
            map_BDHW, features_BD, logits_BC = forward(pixels)
        before = None if stage is None else stage.take()
        if target is not None:
            return logits_BC, target.map_of(map_BDHW, features_BD), before
        return logits_BC, features_BD if kind == "features" else None, before

    return targets


def compile_pays(device: str, num_views: int) -> bool:
    """Return whether to compile the teacher: for many views, on a CPU with a C++ compiler."""
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
    """Return a faster copy of `net` in evaluation mode, without gradients.

    Images have `size` pixels a side. A change that would alter an output is left out. Call the copy
    under `devices.autocast`; its weights are already rounded as autocast would at each call.
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
    except Exception:  # a layer may read its weight in an unusual way
        return False
    return all(
        bool((a.float() - b.float()).abs().max() <= most * a.float().abs().max().clamp_min(1))
        for a, b in pairs
    )


def _round(net: Net) -> None:
    """Round all weights but the classifier's to bf16, as autocast would at each call."""
    last = net.module.get_submodule(net.head_name)
    for layer in net.module.modules():
        if type(layer) in (nn.Conv2d, nn.Linear) and layer is not last:
            layer.to(torch.bfloat16)


def _fold(net: Net, pixels: Tensor) -> None:
    """Fold each BatchNorm whose input is the output of one convolution, in place."""
    made_by: dict[int, nn.Conv2d] = {}
    outputs: list[Tensor] = []  # kept alive, so that no other tensor gets the same id
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
