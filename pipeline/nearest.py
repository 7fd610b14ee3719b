"""Nearest signatures: exact products, block by block (a stand-in for the index)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
GROUP = 64
ROWS = 512


class Nearest:
    """`neighbours` of every row among all, `search` of others; `blocks()` gives [n, D] in order."""

    def __init__(self, blocks: Callable[[], Iterable[Array]], total: int, device: str) -> None:
        self.blocks, self.total, self.device, self.done = blocks, total, device, 0
        rows = [torch.from_numpy(block).to(device, torch.bfloat16) for block in blocks()]
        whole = torch.cat(rows)
        pad = -len(whole) % GROUP
        self.rows = torch.nn.functional.pad(whole, (0, 0, 0, pad))

    def search(self, queries: Array, k: int) -> tuple[Array, Array]:
        """(similarity float32 [q, k], rows int64 [q, k]); -1: no such row."""
        found = [
            self._search(
                torch.from_numpy(queries[at : at + ROWS]).to(self.device, torch.bfloat16), k
            )
            for at in range(0, len(queries), ROWS)
        ]
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def neighbours(self, k: int) -> Iterator[tuple[Array, Array]]:
        """The same for every row of the whole, itself left out, in order."""
        for start in range(0, self.total, ROWS * 8):
            similarity, rows = [], []
            for at in range(start, min(start + ROWS * 8, self.total), ROWS):
                queries = self.rows[at : min(at + ROWS, self.total)]
                values, found = self._search(queries, k, own=at)
                similarity.append(values)
                rows.append(found)
            self.done = min(start + ROWS * 8, self.total)
            yield np.concatenate(similarity), np.concatenate(rows)

    def _search(self, queries: torch.Tensor, k: int, own: int | None = None) -> tuple[Array, Array]:
        products = queries @ self.rows.T
        products[:, self.total :] = -1
        if own is not None:
            line = torch.arange(len(queries), device=products.device)
            products[line, own + line] = -1
        grouped = products.view(len(queries), -1, GROUP)
        groups = grouped.amax(2).topk(min(k, grouped.shape[1]), dim=1).indices
        few = grouped.gather(1, groups[:, :, None].expand(-1, -1, GROUP)).flatten(1)
        top = few.float().topk(min(k, few.shape[1]), dim=1)
        rows = groups.gather(1, top.indices // GROUP) * GROUP + top.indices % GROUP
        rows = torch.where(top.values > -1, rows, -1)
        return top.values.cpu().numpy(), rows.cpu().numpy()
