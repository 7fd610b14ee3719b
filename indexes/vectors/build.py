"""Build an index: train it on a random sample, add part by part, merge, and measure its recall.

A killed build resumes after the last finished part. An older index of the same kind contributes its
training and its unchanged parts. The inverted lists hold float16 codes while these fit the memory
budget, and 8-bit codes beyond it. A small corpus has a single list, whose search is exact. Legend:
N vectors, D features.
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
from indexes.command.progress import Progress
from indexes.embeddings import Block, Embeddings
from indexes.vectors import autotune, invlists, kmeans
from indexes.vectors.index import (
    INDEX,
    deserialize_index,
    empty_index,
    normalize_rows,
    serialize_index,
)
from indexes.vectors.plan import DEFAULTS, IndexConfig, Plan, plan_index

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.floating[Any]]
TRAINED, TRAINING, PARTS = "trained.faiss", "training.json", "parts"
CODE_ROWS = 4096  # rows that train the 8-bit codes
STEP_BYTES = 1 << 26  # most bytes of float32 rows in memory at a time
NUM_QUERIES = 500


@dataclass(frozen=True)
class VectorPart:
    """Rows [num_rows, D], which `rows()` returns; `digest` identifies their content."""

    digest: str
    num_rows: int
    rows: Callable[[], AnyFloats]


def build_index(
    directory: str | Path,
    parts: Sequence[VectorPart],
    config: IndexConfig = DEFAULTS,
    *,
    previous: str | Path | None = None,
    body: Mapping[str, Any] | None = None,
) -> None:
    """Builds an index of all rows of `parts`, in their order, into a directory; resumable.

    previous: an older index, whose training (while N is within half and twice of what it was
    trained on) and whose parts of equal digest are taken over. body: fields of the card.
    Raises ArtifactError where there are no vectors, or a file is damaged.

    Example::

        part = VectorPart("all", len(rows), lambda: rows)
        build_index("vectors", [part], IndexConfig(recall=0.99))
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    parts = [part for part in parts if part.num_rows]
    if not parts:
        raise ArtifactError(f"{directory}: there are no vectors to index")
    total, dimension = sum(part.num_rows for part in parts), parts[0].rows().shape[1]
    plan = plan_index(total, dimension, config)
    if previous is not None and not (directory / TRAINING).exists():
        _adopt_training(Path(previous), directory, plan, total, dimension)
    if not (directory / TRAINING).exists():
        _train(directory, parts, plan, config.seed)
    index, training = _trained(directory)
    files = []
    with Progress("index", total, "vectors") as progress:
        for part in _split(parts, plan.part_rows):
            name = artifact.digest([part.digest, training["sha256"]])[:32]
            file = directory / PARTS / f"{name}.lists"
            files.append((file, part.num_rows))
            if not _adopt_part(file, part.num_rows * (8 + index.sq.code_size), previous):
                _add(index, part, file, config.budget_bytes)
            progress.add(part.num_rows)
    index.ntotal = total
    path, head = directory / INDEX, serialize_index(index)
    chunk_bytes = config.budget_bytes // 8
    invlists.merge_parts(path, head, files, index.nlist, index.sq.code_size, chunk_bytes)
    body = {
        **(body or {}),
        "factory": f"IVF{index.nlist},{plan.code}",
        "num_vectors": total,
        "dimension": dimension,
        "budget_bytes": config.budget_bytes,
        "trained_on": training["num_vectors"],
        "bytes": path.stat().st_size,
        **_tuned(path, parts, total, config),
    }
    artifact.write_card(directory, "vectors", body)


def _tuned(
    path: Path, parts: Sequence[VectorPart], total: int, config: IndexConfig
) -> dict[str, Any]:
    """The number of lists to probe, measured on rows of the corpus itself."""
    generator = np.random.default_rng([config.seed, 1])
    row_ids, queries = random_rows(parts, min(NUM_QUERIES, total), generator)
    blocks = (block for part in parts for block in _blocks(part, config.budget_bytes))
    recall, close = config.recall, config.close
    return autotune.tune_nprobe(path, row_ids, normalize_rows(queries), blocks, recall, close)


def embedding_parts(whole: Embeddings, matrix: str) -> list[VectorPart]:
    """Return the parts of an index over one matrix of an embedded corpus: one part per block."""
    parts = []
    for block in whole.blocks:
        part = whole.card["parts"][block.part]
        made_from = [part["name"], part["fingerprint"], part["settings"], block.stem.suffix, matrix]

        def rows(block: Block = block) -> AnyFloats:
            return block.matrix(matrix)

        parts.append(VectorPart(artifact.digest(made_from), len(block), rows))
    return parts


def newest_index(folder: Path, made_by: Mapping[str, Any]) -> Path | None:
    """Return the newest index in `folder` whose card has the fields `made_by`, or None."""
    cards = []
    for card in folder.glob(f"*/{artifact.CARD}"):
        with contextlib.suppress(ArtifactError):  # an index of another version, or a damaged one
            body = artifact.read_card(card.parent, "vectors")
            if all(body.get(name) == value for name, value in made_by.items()):
                cards.append(card)
    return max(cards, key=lambda card: card.stat().st_mtime_ns).parent if cards else None


def _split(parts: Iterable[VectorPart], most: int) -> Iterator[VectorPart]:
    """Parts of at most `most` rows: a larger one is cut, each piece with a digest of its own."""
    for part in parts:
        for start in range(0, part.num_rows, most):
            stop = min(start + most, part.num_rows)

            def rows(part: VectorPart = part, start: int = start, stop: int = stop) -> AnyFloats:
                return part.rows()[start:stop]

            digest = f"{part.digest}[{start}:{stop}]"
            yield VectorPart(digest, stop - start, rows)


def _adopt_training(
    previous: Path, directory: Path, plan: Plan, total: int, dimension: int
) -> None:
    """Reuses the training of an older index if it still fits."""
    try:
        card = artifact.read_card(previous, "vectors")
        training = artifact.read_json(previous / TRAINING)
    except (ArtifactError, OSError):
        return
    num_lists, _, code = card["factory"].removeprefix("IVF").partition(",")
    same = (card["dimension"], code, int(num_lists) == 1) == (
        dimension,
        plan.code,
        plan.num_lists == 1,
    )
    if same and training["num_vectors"] / 2 <= total < training["num_vectors"] * 2:
        _link(previous / TRAINED, directory / TRAINED)
        artifact.write_json(directory / TRAINING, training)


def _adopt_part(path: Path, size: int, previous: str | Path | None) -> bool:
    """Reuses a part's file from an older index if needed; returns whether the file is whole."""
    if previous is not None and not artifact.is_whole(path, size):
        older = Path(previous) / PARTS / path.name
        if artifact.is_whole(older, size):
            _link(older, path)
    return artifact.is_whole(path, size)


def _link(source: Path, target: Path) -> None:
    with artifact.writing(target) as aside:
        artifact.link(source, aside)


def _train(directory: Path, parts: Sequence[VectorPart], plan: Plan, seed: int) -> None:
    """Trains an empty index on a random sample of all parts."""
    _, sample = random_rows(parts, plan.train_rows, np.random.default_rng([seed, 0]))
    centroids = kmeans.train_centroids(sample, plan.num_lists, seed)
    index = empty_index(plan.factory, centroids, normalize_rows(sample[:CODE_ROWS]))
    with artifact.writing(directory / TRAINED) as aside:
        aside.write_bytes(serialize_index(index))
    total, sha256 = sum(part.num_rows for part in parts), artifact.sha256(directory / TRAINED)
    artifact.write_json(directory / TRAINING, {"num_vectors": total, "sha256": sha256})


def _trained(directory: Path) -> tuple[Any, dict[str, Any]]:
    """The trained, empty index, and the record of its training."""
    training = artifact.read_json(directory / TRAINING)
    path = directory / TRAINED
    if not path.is_file() or artifact.sha256(path) != training.get("sha256"):
        raise ArtifactError(f"{path} is damaged or missing: delete its folder and rerun")
    return deserialize_index(path), training


def random_rows(
    parts: Sequence[VectorPart], num_rows: int, generator: np.random.Generator
) -> tuple[Rows, npt.NDArray[np.float16]]:
    """Draw `num_rows` = m rows uniformly over all parts, shuffled.

    Returns (row numbers int64 [m], rows float16 [m, D] of unit length).
    """
    sizes = np.array([part.num_rows for part in parts])
    drawn = generator.multivariate_hypergeometric(sizes, num_rows, method="marginals")
    positions = np.split(generator.permutation(num_rows), np.cumsum(drawn)[:-1])
    firsts = np.cumsum(sizes) - sizes
    rows, sample = np.empty(num_rows, np.int64), None
    for part, first, count, at in zip(parts, firsts, drawn, positions, strict=True):
        if count:
            local = np.sort(generator.choice(part.num_rows, count, replace=False))
            vectors = normalize_rows(part.rows()[local]).astype(np.float16)
            if sample is None:
                sample = np.empty((num_rows, vectors.shape[1]), np.float16)
            rows[at], sample[at] = first + local, vectors
    assert sample is not None
    return rows, sample


def _blocks(part: VectorPart, budget_bytes: int) -> Iterator[Floats]:
    """A part's unit rows float32, a few at a time."""
    rows = part.rows()
    step = max(1, min(STEP_BYTES, budget_bytes // 16) // (4 * rows.shape[1]))
    for start in range(0, part.num_rows, step):
        yield normalize_rows(rows[start : start + step])


def _add(index: Any, part: VectorPart, path: Path, budget_bytes: int) -> None:
    """Assigns a part's rows to lists and writes their codes."""
    lists, codes = [], []
    centroids = index.quantizer.reconstruct_n(0, index.nlist)
    for block in _blocks(part, budget_bytes):
        lists.append(kmeans.nearest_centroid(block, centroids))
        codes.append(index.sq.compute_codes(block))
    num_rows = sum(map(len, codes))
    if num_rows != part.num_rows:
        raise ArtifactError(
            f"part {part.digest} has {num_rows:,} vectors, not {part.num_rows:,}: delete the "
            "embeddings and rerun"
        )
    invlists.write_part(path, np.concatenate(lists), np.concatenate(codes))
