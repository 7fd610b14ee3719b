"""Plan an index within a memory budget: its lists and codes. Legend: N vectors, D features."""

from __future__ import annotations

from dataclasses import dataclass

TRAIN_ROWS_PER_LIST = 32


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How an index is built."""

    seed: int = 0
    budget_bytes: int = 4 << 30
    """Memory in bytes for the build and for an all-pairs search, at least 100 MiB, for any N."""
    recall: float = 0.95
    """Share of the 10 nearest neighbors that a search should find. The number of lists to probe is
    chosen for it on sampled rows; the card records the share that was reached."""
    close: float = 0.9
    """Cosine similarity above which `Vectors.neighbors` should find .999 of these ten."""
    exact_rows: int = 16_384
    """Up to this many vectors the index has a single list, whose search is exact."""


DEFAULTS = IndexConfig()


@dataclass(frozen=True)
class Plan:
    """An index to build: number of lists, FAISS code, training rows, most rows of a part."""

    num_lists: int
    code: str
    train_rows: int
    part_rows: int

    @property
    def factory(self) -> str:
        """The FAISS factory string."""
        return f"IVF{self.num_lists},{self.code}"


def plan_index(num_vectors: int, dimension: int, config: IndexConfig = DEFAULTS) -> Plan:
    """Plan the index for N vectors of width D within a memory budget.

    It has 4 sqrt(N) lists (OURS; FAISS advises 4 to 16 times sqrt(N)), or fewer if a training
    sample within a quarter of the budget is too small for so many.

    Example:
        >>> plan_index(1_000_000, 512).factory
        'IVF4000,SQfp16'
    """
    row_bytes, budget_bytes = dimension * 2, config.budget_bytes
    sample = max(1024, budget_bytes // 4 // row_bytes)
    num_lists = 1
    if num_vectors > config.exact_rows:
        num_lists = max(1, min(round(4 * num_vectors**0.5), sample // TRAIN_ROWS_PER_LIST))
    return Plan(
        num_lists=num_lists,
        code="SQfp16" if num_vectors * row_bytes <= budget_bytes else "SQ8",
        train_rows=min(num_vectors, sample, max(TRAIN_ROWS_PER_LIST * num_lists, 8192)),
        part_rows=max(1024, budget_bytes // 16 // row_bytes),
    )
