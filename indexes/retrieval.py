"""Search: find the images of an embedded corpus that are nearest to given images or a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from indexes import artifact, contact_sheet, devices
from indexes.artifact import ArtifactError
from indexes.command.options import CommandConfig, Option
from indexes.embeddings import Block, Embeddings, open_embeddings
from indexes.images.decode import BadImage, load_view, to_unit
from indexes.models.teacher import find_teacher, load_teacher
from indexes.models.text import encode_texts
from indexes.sources import locations
from indexes.sources.sample import SourceError, text_key
from indexes.vectors.build import newest_index
from indexes.vectors.index import Vectors


@dataclass(frozen=True, kw_only=True)
class SearchConfig(CommandConfig):
    """Find the images of an embedded corpus that are nearest to your images or to a text.

    Example: winnow search cat.jpg -k 20 --sheet like-cat.jpg
    """

    images: Annotated[Sequence[Path | str], Option(argument=True)] = ()
    """Image files; the nearest images of the corpus are found for each."""
    text: Sequence[str] = ()
    """A text to search for; it needs embeddings made with winnow select --tower."""
    k: Annotated[int, Option(flags=("-k",), min=1)] = 10
    """Matches per query."""
    sheet: Path | None = None
    """A .jpg or .png file to write: a contact sheet of the matches."""
    index: Path | None = None
    """The index, a directory under RUNS/vectors. Default: the newest."""
    runs: Path = Path("runs")
    """The directory of all artifacts."""


@dataclass(frozen=True)
class Match:
    """A match: its cosine similarity to the query, and its key, part and row in the corpus."""

    similarity: float
    key: str
    part: str
    row: int


class EmbeddedCorpus:
    """An index and the embedded corpus that it was built from."""

    def __init__(self, index: Path, runs: Path) -> None:
        self.vectors, self.runs = Vectors(index), runs
        self.embedded: Embeddings = open_embeddings(
            runs / "embeddings" / self.vectors.card["embeddings"]
        )

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Iterator[list[Match]]:
        """Yield the k nearest images of each of the queries [q, D], nearest first."""
        for values, rows in zip(*self.vectors.search(queries, k), strict=True):
            values, rows = values[rows >= 0], rows[rows >= 0]
            keys = self.embedded.keys_of(rows)
            yield [
                Match(value, key, part, row)
                for value, (key, part), row in zip(
                    values.tolist(), keys, rows.tolist(), strict=True
                )
            ]

    def originals(self, rows: Sequence[int]) -> dict[int, bytes]:
        """Map each row to the bytes of its image, read from the corpus itself.

        Raises SourceError if the corpus has moved or changed.
        """
        images: dict[int, bytes] = {}
        for block, local in self.embedded.by_block(np.unique(np.array(rows, np.int64))):
            images |= self._read(block, (local + block.start).tolist())
        return images

    def _read(self, block: Block, rows: list[int]) -> dict[int, bytes]:
        offsets, sizes, hashes = block.columns("offset", "size", "content_hash")
        keys = block.strings("key")
        part = locations.open_part(self.runs, self.embedded.directory.name, block.part)
        row_of = {(keys[row - block.start], int(offsets[row - block.start])): row for row in rows}
        images: dict[int, bytes] = {}
        if part.random_access:
            for (key, offset), row in row_of.items():
                images[row] = part.fetch(key, offset, int(sizes[row - block.start]))
        else:
            for sample in part:
                row = row_of.get((text_key(sample.key), sample.offset), -1)
                if row >= 0:
                    images[row] = sample.data
                if len(images) == len(rows):
                    break
        for (key, _), row in row_of.items():
            if artifact.hash64(images.get(row, b"")) != int(hashes[row - block.start]):
                raise SourceError(
                    f"{block.source}: image {key!r} has changed since it was embedded; "
                    f"{locations.AGAIN}"
                )
        return images


def search(config: SearchConfig) -> dict[str, list[Match]]:
    """Map each query to its `k` nearest images, nearest first; draw the contact sheet if named.

    Raises ValueError if both images and text are given, or neither, and ArtifactError if there is
    no index.

    Example: `search(SearchConfig(images=["cat.jpg"], k=5))["cat.jpg"][0].similarity`
    """
    if bool(config.images) == bool(config.text):
        raise ValueError("give either image files or --text WORDS, and not both")
    if config.sheet:
        contact_sheet.check(config.sheet)
    images = [Path(image) for image in config.images]
    matrix = "tower" if config.text else "features"
    corpus = EmbeddedCorpus(config.index or latest_index(config.runs, matrix), config.runs)
    if config.text:
        results = list(search_text(corpus, config.text, config.k))
    else:
        results = list(search_image(corpus, images, config.k))
    queries = [str(query) for query in (*images, *config.text)]
    if config.sheet:
        originals = corpus.originals([match.row for matches in results for match in matches])
        cells = [
            [(originals[m.row], f"{m.similarity:.4f}\n{m.key[-26:]}") for m in matches]
            for matches in results
        ]
        headings = [image.read_bytes() for image in images] or queries
        contact_sheet.draw(config.sheet, headings, cells)
    return dict(zip(queries, results, strict=True))


def search_image(corpus: EmbeddedCorpus, images: Sequence[Path], k: int) -> Iterator[list[Match]]:
    """Yield the k nearest of each image, by the features of the teacher that embedded the corpus.

    Raises ValueError if the index is over the tower's vectors, or an image cannot be decoded.
    """
    import torch

    if corpus.vectors.card["matrix"] != "features":
        raise ValueError("this index holds the CLIP tower's vectors: search it with --text")
    digest = corpus.embedded.card["teacher"]["digest"]
    teacher = load_teacher(find_teacher(digest, corpus.runs))
    views = []
    for path in images:
        try:
            views.append(load_view(path.read_bytes(), teacher.geometry)[0])
        except BadImage as error:
            raise ValueError(f"{path}: {error}") from None
    pixels = to_unit(torch.from_numpy(np.stack(views)))
    with devices.autocast("cpu"):
        _, features, _ = teacher(pixels)
    yield from corpus.search(features.numpy(), k)


def search_text(corpus: EmbeddedCorpus, texts: Sequence[str], k: int) -> Iterator[list[Match]]:
    """Yield the k nearest of each text, by the CLIP tower that also embedded the corpus.

    Raises ValueError if the index is over the teacher's features, and SourceError if the tower's
    weights file is missing or has changed.
    """
    card = corpus.vectors.card
    if card["matrix"] != "tower":
        raise ValueError("this index holds the teacher's features: search it with an image")
    model, file = locations.open_tower(corpus.runs, corpus.embedded.directory.name)
    if artifact.digest([model, artifact.sha256(file)]) != card["tower"]:
        raise SourceError(
            f"{file} is not the CLIP tower that embedded the corpus: restore the original file"
        )
    yield from corpus.search(encode_texts(model, file, texts), k)


def latest_index(runs: Path, matrix: str) -> Path:
    """Return the newest index over `matrix` under runs/vectors.

    Raises ArtifactError if there is none.
    """
    index = newest_index(runs / "vectors", {"matrix": matrix})
    if index is None:
        option = " with --tower" if matrix == "tower" else ""
        raise ArtifactError(
            f"there is no index of {matrix} under {runs}/vectors: winnow select{option} makes one"
        )
    return index
