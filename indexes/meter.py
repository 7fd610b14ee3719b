"""Means of the named terms of a training, taken without waiting for the device at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class TermMeter:
    """Weighted means of named terms since they were last taken.

    A term is a scalar or a vector, and may be absent in some steps.

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
        """Counts the terms of a step with this weight."""
        for name, term in terms.items():
            weighted = term.detach() * weight
            is_new = name not in self._sums
            self._sums[name] = weighted if is_new else self._sums[name] + weighted
            self._weights[name] = weight if is_new else self._weights[name] + weight

    def take(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Any]:
        """The mean of each term, a float or a list of them; the meter starts anew.

        `reduce` sums a vector over several processes, which all have seen the same terms. A term
        without any weight is zero.
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
