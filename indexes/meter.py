"""Means of the named loss terms of a training, computed without a device sync at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class TermMeter:
    """Weighted means of named terms since the last `take`.

    A term is a scalar or a vector [K]. It may be absent in some steps.

    Example:
        >>> import torch
        >>> meter = TermMeter()
        >>> meter.add({"loss": torch.tensor(1.0)}, weight=3)
        >>> meter.add({"loss": torch.tensor(5.0)})
        >>> meter.take()
        {'loss': 2.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor | float] = {}

    def add(self, terms: Mapping[str, Tensor], weight: Tensor | float = 1.0) -> None:
        """Add the terms of a step, each a scalar or a vector [K], with a weight (a scalar)."""
        for name, term in terms.items():
            weighted = term.detach() * weight
            is_new = name not in self._sums
            self._sums[name] = weighted if is_new else self._sums[name] + weighted
            self._weights[name] = weight if is_new else self._weights[name] + weight

    def take(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Any]:
        """Return the mean of each term, a float or a list of floats, and reset the meter.

        `reduce` sums a vector [n] over several processes, all of which have the same terms. A term
        whose total weight is zero has the mean zero.
        """
        import torch

        if not self._sums:
            return {}
        sums = list(self._sums.values())
        weights = [torch.as_tensor(w, device=sums[0].device) for w in self._weights.values()]
        flat = torch.cat([value.float().flatten() for value in (*weights, *sums)])
        values = reduce(flat).tolist()
        totals, rest = values[: len(weights)], iter(values[len(weights) :])
        means: dict[str, Any] = {}
        for name, value, total in zip(self._sums, sums, totals, strict=True):
            mean = [next(rest) / max(total, 1e-12) for _ in range(value.numel())]
            means[name] = mean if value.ndim else mean[0]
        self._sums, self._weights = {}, {}
        return means
