"""Building an index: trained on a random sample, added part by part, merged, measured.

A killed build goes on after the last whole part; an older index of the same kind gives its training
and its unchanged parts. Inverted lists over half floats while these fit the stated memory budget,
over 8-bit codes above it; a single list, which is exact, while the corpus is small. N vectors, D
features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.embeddings import Block, Embeddings
from indexes.progress import Progress
from indexes.vectors import autotune, invlists, kmeans
from indexes.vectors.index import (
    INDEX,
    deserialize_index,
    empty_index,
    normalize_rows,
    serialize_index,
)

Array = npt.NDArray[Any]
TRAINED, TRAINING, PARTS = "trained.faiss", "training.json", "parts"
EXACT_ROWS = 16_384
TRAIN_ROWS_PER_LIST = 32
CODE_ROWS = 4096  # that 8-bit codes are trained on
STEP_BYTES = 1 << 26  # of float32 rows that are worked on at a time, at most
NUM_QUERIES = 500


@dataclass(frozen=True)
class VectorPart:
    """Rows [num_rows, D] that `rows` gives, memory-mapped perhaps; `digest` tells their content."""

    digest: str
    num_rows: int
    rows: Callable[[], Array]


@dataclass(frozen=True)
class Plan:
    """What an index is: inverted lists, FAISS code, rows to train on, rows of a part at most."""

    lists: int
    code: str
    train_rows: int
    part_rows: int

    @property
    def factory(self) -> str:
        """The FAISS factory string."""
        return f"IVF{self.lists},{self.code}"


def plan_index(num_vectors: int, dimension: int, budget_bytes: int) -> Plan:
    """The index for N vectors of width D within a memory budget.

    4 sqrt(N) lists (OURS; FAISS' own advice is 4 to 16), as far as a training sample in a
    quarter of the budget can feed them.
    """
    row_bytes = dimension * 2
    sample = max(1024, budget_bytes // 4 // row_bytes)
    num_lists = 1
    if num_vectors > EXACT_ROWS:
        num_lists = max(1, min(round(4 * num_vectors**0.5), sample // TRAIN_ROWS_PER_LIST))
    return Plan(
        lists=num_lists,
        code="SQfp16" if num_vectors * row_bytes <= budget_bytes else "SQ8",
        train_rows=min(num_vectors, sample, max(TRAIN_ROWS_PER_LIST * num_lists, 8192)),
        part_rows=max(1024, budget_bytes // 16 // row_bytes),
    )


def build_index(
    directory: str | Path,
    parts: Sequence[VectorPart],
    *,
    seed: int = 0,
    budget_bytes: int = 4 << 30,
    recall: float = 0.95,
    close: float = 0.9,
    previous: str | Path | None = None,
    body: Mapping[str, Any] | None = None,
) -> None:
    """Builds an index of all rows of `parts`, in their order, into a directory; resumable.

    recall: share of the 10 nearest neighbors that a search is to find; the lists that it looks
    into are chosen for it on held-out rows, and the card says what was reached.
    close: similarity above which `Vectors.neighbors` is to find .999 of these ten.
    previous: an older index whose training (while N is within half and twice of what it was
    trained on) and whose parts of equal digest are taken over.
    Memory: the larger of `budget_bytes` and 100 MiB, whatever N.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    parts = [part for part in parts if part.num_rows]
    if not parts:
        raise ArtifactError(f"{directory}: no vectors to index")
    total, dimension = sum(part.num_rows for part in parts), parts[0].rows().shape[1]
    asked = plan_index(total, dimension, budget_bytes)
    if previous is not None and not (directory / TRAINING).exists():
        _adopt_training(Path(previous), directory, asked, total, dimension)
    if not (directory / TRAINING).exists():
        _train(directory, parts, asked, seed)
    index, training = _trained(directory)
    files = []
    with Progress("index", total, "vectors") as progress:
        for part in _split(parts, asked.part_rows):
            name = artifact.digest([part.digest, training["sha256"]])[:32]
            files.append((directory / PARTS / f"{name}.lists", part.num_rows))
            size = part.num_rows * (8 + index.sq.code_size)
            if not _adopted(files[-1][0], size, previous):
                _add(index, part, files[-1][0], budget_bytes)
            progress.add(part.num_rows)
    index.ntotal = total
    where, head = directory / INDEX, serialize_index(index)
    invlists.merge(where, head, files, index.nlist, index.sq.code_size, budget_bytes // 8)
    own, queries = random_rows(parts, min(NUM_QUERIES, total), np.random.default_rng([seed, 1]))
    blocks = (block for part in parts for block in _blocks(part, budget_bytes))
    card = {
        "factory": f"IVF{index.nlist},{asked.code}",
        "num_vectors": total,
        "dimension": dimension,
        "budget_bytes": budget_bytes,
        "trained_on": training["num_vectors"],
        "bytes": where.stat().st_size,
        **autotune.tuned(where, own, normalize_rows(queries), blocks, recall, close),
    }
    artifact.write_card(directory, "vectors", {**(body or {}), **card})


def embedding_parts(whole: Embeddings, matrix: str) -> list[VectorPart]:
    """The parts of an index over one matrix of an embedded corpus: its blocks."""
    parts = []
    for block in whole.blocks:
        note = whole.card["parts"][block.part]
        made_from = [note["name"], note["fingerprint"], note["settings"], block.stem.suffix, matrix]

        def rows(block: Block = block) -> Array:
            return block.matrix(matrix)

        parts.append(VectorPart(artifact.digest(made_from), len(block), rows))
    return parts


def newest_index(folder: Path, made_by: Mapping[str, Any]) -> Path | None:
    """The index in `folder` that was written last of those whose card says `made_by`."""
    found = []
    for card in folder.glob(f"*/{artifact.CARD}"):
        with contextlib.suppress(ArtifactError):  # one of another version, or damaged
            body = artifact.read_card(card.parent, "vectors")
            if all(body.get(name) == value for name, value in made_by.items()):
                found.append(card)
    return max(found, key=lambda card: card.stat().st_mtime_ns).parent if found else None


def _split(parts: Iterable[VectorPart], most: int) -> Iterator[VectorPart]:
    """Parts of at most `most` rows: a larger one is cut, each piece with a digest of its own."""
    for part in parts:
        for start in range(0, part.num_rows, most):
            stop = min(start + most, part.num_rows)

            def rows(part: VectorPart = part, start: int = start, stop: int = stop) -> Array:
                return part.rows()[start:stop]

            digest = f"{part.digest}[{start}:{stop}]"
            yield VectorPart(digest, stop - start, rows)


def _adopt_training(
    previous: Path, directory: Path, asked: Plan, total: int, dimension: int
) -> None:
    """Takes over the training of an older index where it still suits."""
    try:
        card = artifact.read_card(previous, "vectors")
        training = artifact.read_json(previous / TRAINING)
    except (ArtifactError, OSError):
        return
    num_lists, _, code = card["factory"].removeprefix("IVF").partition(",")
    same = (card["dimension"], code, int(num_lists) == 1) == (
        dimension,
        asked.code,
        asked.lists == 1,
    )
    if same and training["num_vectors"] / 2 <= total < training["num_vectors"] * 2:
        _link(previous / TRAINED, directory / TRAINED)
        artifact.write_json(directory / TRAINING, training)


def _adopted(path: Path, size: int, previous: str | Path | None) -> bool:
    """Whether a part's file is there in full, taken over from an older index if need be."""
    if previous is not None and not artifact.is_whole(path, size):
        older = Path(previous) / PARTS / path.name
        if artifact.is_whole(older, size):
            _link(older, path)
    return artifact.is_whole(path, size)


def _link(source: Path, target: Path) -> None:
    with artifact.writing(target) as aside:
        artifact.link(source, aside)


def _train(directory: Path, parts: Sequence[VectorPart], asked: Plan, seed: int) -> None:
    """Trains an empty index on a random sample of all parts."""
    _, sample = random_rows(parts, asked.train_rows, np.random.default_rng([seed, 0]))
    means = kmeans.train(sample, asked.lists, seed)
    index = empty_index(asked.factory, means, normalize_rows(sample[:CODE_ROWS]))
    with artifact.writing(directory / TRAINED) as aside:
        aside.write_bytes(serialize_index(index))
    total, sha256 = sum(part.num_rows for part in parts), artifact.sha256(directory / TRAINED)
    artifact.write_json(directory / TRAINING, {"num_vectors": total, "sha256": sha256})


def _trained(directory: Path) -> tuple[Any, dict[str, Any]]:
    """The trained, empty index, and the record of its training."""
    training = artifact.read_json(directory / TRAINING)
    path = directory / TRAINED
    if not path.is_file() or artifact.sha256(path) != training.get("sha256"):
        raise ArtifactError(f"{path} is damaged: delete its folder and rerun")
    return deserialize_index(path), training


def random_rows(
    parts: Sequence[VectorPart], num_rows: int, generator: np.random.Generator
) -> tuple[Array, Array]:
    """(row numbers int64 [m], unit rows float16 [m, D]): drawn evenly over all parts, shuffled."""
    sizes = np.array([part.num_rows for part in parts])
    drawn = generator.multivariate_hypergeometric(sizes, num_rows, method="marginals")
    place = np.split(generator.permutation(num_rows), np.cumsum(drawn)[:-1])
    rows, sample = np.empty(num_rows, np.int64), None
    for part, first, count, at in zip(parts, np.cumsum(sizes) - sizes, drawn, place, strict=True):
        if count:
            local = np.sort(generator.choice(part.num_rows, count, replace=False))
            found = normalize_rows(part.rows()[local]).astype(np.float16)
            sample = np.empty((num_rows, found.shape[1]), np.float16) if sample is None else sample
            rows[at], sample[at] = first + local, found
    assert sample is not None
    return rows, sample


def _blocks(part: VectorPart, budget_bytes: int) -> Iterator[Array]:
    """A part's unit rows float32, a few at a time."""
    rows = part.rows()
    step = max(1, min(STEP_BYTES, budget_bytes // 16) // (4 * rows.shape[1]))
    for start in range(0, part.num_rows, step):
        yield normalize_rows(rows[start : start + step])


def _add(index: Any, part: VectorPart, path: Path, budget_bytes: int) -> None:
    """Assigns a part's rows to lists and writes their codes."""
    where, codes = [], []
    means = index.quantizer.reconstruct_n(0, index.nlist)
    for block in _blocks(part, budget_bytes):
        where.append(kmeans.nearest(block, means))
        codes.append(index.sq.compute_codes(block))
    found = sum(map(len, codes))
    if found != part.num_rows:
        raise ArtifactError(f"part {part.digest}: {found:,} vectors, not {part.num_rows:,}")
    invlists.write_part(path, np.concatenate(where), np.concatenate(codes))
