"""Muon for linear layers and convolutions: each update is a nearly orthogonal matrix.

SOURCE: Jordan et al., 2024, kellerjordan.github.io/posts/muon. All singular values of an update are
about equal. A small net therefore learns the directions of small gradients, which are slow under
SGD, as fast as the others.

torch.optim.Muon takes matrices only, and it multiplies in bf16 even where that is a hundred times
slower. Here a kernel [O, I, h, w] is the matrix [O, I h w]. timm.optim.Muon takes kernels too, but
one at a time and always in bf16. Taking all matrices of one shape together needs a fifth of its
time for a ResNet-8 and a twelfth for a WRN-16-2 (one core, CPU with native bf16: 9 against 47 ms a
step, 46 against 548; docs/LOG.md).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from indexes.devices import has_bf16

MOMENTUM = 0.95
WEIGHT_DECAY = 0.1
ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of x, x^3, x^5: the steepest slope at 0 that converges


def matrices(module: nn.Module) -> Iterator[Tensor]:
    """Yield the trained weights [O, I, ...] of layers that mix channels: Linear, Conv2d, attention.

    Depthwise and grouped convolutions, norms, biases and embeddings are left out.
    """
    for layer in module.modules():
        mixes = isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1
        weight = layer.weight if mixes else getattr(layer, "in_proj_weight", None)  # attention
        if isinstance(weight, Tensor) and weight.is_leaf and weight.requires_grad:
            yield weight


class Muon(torch.optim.Optimizer):
    """An optimizer that orthogonalizes the momentum of each weight matrix.

    W <- (1 - lr decay) W - lr sqrt(max(1, R / C)) U V^T, where the momentum is the matrix U S V^T
    [R, C]. Nesterov momentum 0.95, decay 0.1. A weight has two or more dimensions; R is the first,
    and C is the product of the others.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float = 0.0) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient; `closure` is not called."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    rows = weight.shape[0]
                    by_shape[rows, weight.numel() // rows].append(weight)
            for weights in by_shape.values():
                self._step(weights, group["lr"])

    def _step(self, weights: Sequence[Tensor], lr: float) -> None:
        """Update K weights whose matrices have one shape, so that each product is one batch."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        grads = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
        nesterov = torch._foreach_lerp(grads, momenta, MOMENTUM)
        step_KRC = orthogonal(torch.stack([grad.flatten(1) for grad in nesterov]))
        rows, columns = step_KRC.shape[1:]
        torch._foreach_mul_(list(weights), 1 - lr * WEIGHT_DECAY)
        steps = [step.view(w.shape) for step, w in zip(step_KRC, weights, strict=True)]
        torch._foreach_add_(list(weights), steps, alpha=-lr * math.sqrt(max(1, rows / columns)))


def orthogonal(matrix_KRC: Tensor) -> Tensor:
    """Return U V^T for matrices U S V^T [K, R, C], approximately, by Newton-Schulz iterations.

    The singular values become 0.7 to 1.2. Those below a thousandth of the matrix's norm stay
    smaller, and zeros stay zero. The products are in bf16 where it is native.
    """
    dtype = torch.bfloat16 if has_bf16(str(matrix_KRC.device)) else torch.float32
    is_tall = matrix_KRC.shape[-2] > matrix_KRC.shape[-1]
    x = (matrix_KRC.mT if is_tall else matrix_KRC).to(dtype)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        inner = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        x = torch.baddbmm(x, inner, x, beta=first)
    return (x.mT if is_tall else x).to(matrix_KRC.dtype)
