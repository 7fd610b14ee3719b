"""Muon, of convolutions too: each step has its gradient's directions, all of about the same length.

Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon). torch.optim.Muon takes matrices
alone, and multiplies in bf16 also where that is a hundred times slower; here a kernel [O, I, h, w]
is the matrix [O, I h w]. What a small net learns slowly by SGD, the directions of small gradients,
it learns as fast as the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from indexes.devices import has_bf16

MOMENTUM = 0.95
WEIGHT_DECAY = 0.1
ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of x, x^3 and x^5: as steep at zero as converges


def matrices(module: nn.Module) -> Iterator[Tensor]:
    """The weights in `module` that are matrices: of layers that mix channels, and train.

    Depthwise and grouped convolutions, norms, biases and embeddings are none.
    """
    for layer in module.modules():
        mixes = isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1
        weight = layer.weight if mixes else None
        if isinstance(weight, Tensor) and weight.is_leaf and weight.requires_grad:
            yield weight


class Muon(torch.optim.Optimizer):
    """W <- (1 - lr decay) W - lr sqrt(max(1, R / C)) U V^T, of a momentum of U S V^T as [R, C].

    Nesterov momentum .95, decay .1. Weights have two dimensions or more, the first is R.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float = 0.0) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every weight that has a gradient; `closure` is not called."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, weight.grad, group["lr"])

    def _step(self, weight: Tensor, grad: Tensor, lr: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        step_RC = orthogonal(grad.lerp(momentum, MOMENTUM).flatten(1))
        rows, columns = step_RC.shape
        weight.mul_(1 - lr * WEIGHT_DECAY)
        weight.add_(step_RC.view(weight.shape), alpha=-lr * math.sqrt(max(1, rows / columns)))


def orthogonal(matrix_RC: Tensor) -> Tensor:
    """U V^T of a matrix U S V^T [R, C], nearly: singular values of .7 to 1.2 (Newton-Schulz).

    Those below a thousandth of the matrix's norm stay smaller; zeros stay zeros. In bf16 where that
    is native.
    """
    dtype = torch.bfloat16 if has_bf16(str(matrix_RC.device)) else torch.float32
    is_tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    x = (matrix_RC.T if is_tall else matrix_RC).to(dtype)
    x = x / x.norm().clamp_min(1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return (x.T if is_tall else x).to(matrix_RC.dtype)
