"""What an index is: how many lists, which codes, within a memory budget. N vectors, D features."""

from __future__ import annotations

from dataclasses import dataclass

TRAIN_ROWS_PER_LIST = 32


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How an index is built."""

    seed: int = 0
    budget_bytes: int = 4 << 30
    """Memory of the build and of an all-pairs search, at least 100 MiB, whatever N."""
    recall: float = 0.95
    """Share of the 10 nearest neighbors that a search is to find; the lists that it looks into are
    chosen for it on held-out rows, and the card says what was reached."""
    close: float = 0.9
    """Similarity above which `Vectors.neighbors` is to find .999 of these ten."""
    exact_rows: int = 16_384
    """Up to so many vectors there is a single list, which is exact."""


DEFAULTS = IndexConfig()


@dataclass(frozen=True)
class Plan:
    """An index to build: inverted lists, FAISS code, rows to train on, rows of a part at most."""

    num_lists: int
    code: str
    train_rows: int
    part_rows: int

    @property
    def factory(self) -> str:
        """The FAISS factory string."""
        return f"IVF{self.num_lists},{self.code}"


def plan_index(num_vectors: int, dimension: int, config: IndexConfig = DEFAULTS) -> Plan:
    """The index for N vectors of width D within a memory budget.

    4 sqrt(N) lists (OURS; FAISS' own advice is 4 to 16), as far as a training sample in a
    quarter of the budget can feed them.
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
