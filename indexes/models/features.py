"""Features of a net, one function per kind of net: (module, pixels) -> (map, features)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def grid(tokens_BLD: Tensor, num_prefix: int) -> Tensor | None:
    """Tokens [B, P + S * S, D] as a map [B, D, S, S] without their first P; None: not a square."""
    patches = tokens_BLD[:, num_prefix:]
    side = math.isqrt(patches.shape[1])
    if side == 0 or side * side != patches.shape[1]:
        return None
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, side, side)


def as_map(raw: Any, features_BD: Tensor, *, width: int | None, num_prefix: int) -> Tensor:
    """The raw output of a net before pooling, as a map [B, D', H, W].

    `width` is D' as the net states it and tells [B, H, W, D'] from [B, D', H, W]; None means the
    latter. Where there is no map (or no square of tokens) it is the features as 1x1.
    """
    import torch

    if isinstance(raw, torch.Tensor):
        if raw.ndim == 4 and width not in (None, raw.shape[1]) and raw.shape[3] == width:
            return raw.permute(0, 3, 1, 2)
        if raw.ndim == 4:
            return raw
        if raw.ndim == 3 and (square := grid(raw, num_prefix)) is not None:
            return square
    return features_BD[:, :, None, None]


def timm_features(module: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """timm's nets and ours: forward_features, then forward_head up to the classifier."""
    raw = module.forward_features(pixels)
    features_BD = module.forward_head(raw, pre_logits=True)
    map_BDHW = as_map(
        raw,
        features_BD,
        width=getattr(module, "num_features", None),
        num_prefix=getattr(module, "num_prefix_tokens", 0),
    )
    return map_BDHW, features_BD


def clip_features(module: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """An open_clip image tower: features are the unit embedding, the map its projected tokens."""
    from torch.nn import functional as F

    visual = module["visual"]
    raw = visual(pixels)
    tokens = None
    if isinstance(raw, tuple):
        raw, tokens = raw
        if getattr(visual, "proj", None) is not None:
            tokens = tokens @ visual.proj
    # Unit length in float32: bfloat16 would move the logits, which are 100 times the cosine.
    features_BD = F.normalize(raw.float(), dim=-1)
    return as_map(tokens, features_BD, width=None, num_prefix=0), features_BD


class HookedFeatures:
    """Features of any other net, torchvision's above all, by hooks on the last Linear and the pool.

    The map is the input of the last global pooling module outside squeeze-and-excitation; a net
    that pools by a function call gives the last map or tokens among its children's outputs.
    """

    def __init__(self, module: nn.Module, classifier: nn.Linear) -> None:
        from torch import nn

        # None outside a call: a run of the module itself leaves no tensors behind.
        self.captured: dict[str, Tensor] | None = None
        self.watch(classifier)
        gates = [
            inner
            for gate in module.modules()
            if type(gate).__name__ == "SqueezeExcitation"
            for inner in gate.modules()
        ]
        pools = [
            layer
            for layer in module.modules()
            if isinstance(layer, nn.AdaptiveAvgPool2d) and not any(layer is gate for gate in gates)
        ]
        if pools:
            pools[-1].register_forward_pre_hook(self._keep_input)
        else:
            for child in module.children():
                child.register_forward_hook(self._keep_output)

    def watch(self, classifier: nn.Module) -> None:
        """Takes the input of `classifier`, or of the module in its stead, for the features."""
        classifier.register_forward_pre_hook(self._keep_features)

    def _keep_features(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.captured is not None:
            self.captured["features"] = inputs[0]

    def _keep_input(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.captured is not None:
            self.captured["map"] = inputs[0]

    def _keep_output(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # Only a later 3-D or 4-D output replaces an earlier one: the logits are 2-D.
        if self.captured is not None and getattr(output, "ndim", 0) in (3, 4):
            self.captured["map"] = output

    def __call__(self, module: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        captured: dict[str, Tensor] = {}
        self.captured = captured
        try:
            module(pixels)
        finally:
            self.captured = None
        features_BD = captured["features"].flatten(1)
        # torchvision's ViT, its only net of tokens, puts one class token before the patches.
        map_BDHW = as_map(captured.get("map"), features_BD, width=None, num_prefix=1)
        return map_BDHW, features_BD
