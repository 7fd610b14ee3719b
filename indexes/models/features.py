"""Features of nets, with one function per kind of net: (module, pixels) -> (map, features)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def grid(tokens_BLD: Tensor, num_prefix: int) -> Tensor | None:
    """Turn tokens [B, P + S * S, D] into a map [B, D, S, S], without the first P tokens.

    It returns None if the remaining tokens do not form a square.

    Example:
        >>> import torch
        >>> grid(torch.zeros(2, 1 + 9, 5), num_prefix=1).shape
        torch.Size([2, 5, 3, 3])
    """
    patches = tokens_BLD[:, num_prefix:]
    side = math.isqrt(patches.shape[1])
    if side == 0 or side * side != patches.shape[1]:
        return None
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, side, side)


def as_map(raw: Any, features_BD: Tensor, *, width: int | None, num_prefix: int) -> Tensor:
    """Return the raw output of a net before pooling as a map [B, M, H, W], with M channels.

    `width` is M as the net states it. It distinguishes [B, H, W, M] from [B, M, H, W]; None means
    the latter. If there is no map and no square of tokens, the features [B, D] become a 1x1 map.
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
    """Run a net of timm or winnow on pixels [B, 3, H, W]: map [B, M, h, w], features [B, D].

    It calls `forward_features`, then `forward_head` up to the classifier.
    """
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
    """Run an open_clip image tower on pixels [B, 3, H, W]: map [B, D, h, w], features [B, D].

    The features are the embedding at unit length. The map is its projected tokens.
    """
    from torch.nn import functional as F

    visual = module["visual"]
    raw = visual(pixels)
    tokens = None
    if isinstance(raw, tuple):
        raw, tokens = raw
        if getattr(visual, "proj", None) is not None:
            tokens = tokens @ visual.proj
    # Normalize in float32: bfloat16 would shift the logits, which are 100 times the cosine.
    features_BD = F.normalize(raw.float(), dim=-1)
    return as_map(tokens, features_BD, width=None, num_prefix=0), features_BD


class HookedFeatures:
    """Features of any other net, such as torchvision's, by hooks on the last Linear and the pool.

    A call maps (module, pixels [B, 3, H, W]) to (map [B, M, h, w], features [B, D]). The map is the
    input of the last global pooling module outside squeeze-and-excitation. For a net that pools by
    a function call, it is the last map or tokens among the outputs of the net's children.
    """

    def __init__(self, module: nn.Module, classifier: nn.Linear) -> None:
        from torch import nn

        # None outside a call, so that a direct run of the module keeps no tensors alive.
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
        """Use the input of `classifier`, or of the module that replaces it, as the features."""
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
        # torchvision's ViT, its only token-based net, puts one class token before the patches.
        map_BDHW = as_map(captured.get("map"), features_BD, width=None, num_prefix=1)
        return map_BDHW, features_BD
