"""The corpus `demo`: 12,000 unlabeled images that are rendered on the fly, without a download.

About 30 % of the images show one of ten classes, in one of ten styles. One style is that of the
lost original, which `render_labeled` renders. The other images show near misses, crowds of things
and patterns. The classes are imbalanced; some images are exact or near duplicates, and some are
damaged. Image i of a part is a pure function of (seed, i): its bytes are the same in every run and
in any order. OURS.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from indexes.artifact import digest, hash64, writing
from indexes.shards.tar_writer import HashedTar
from pipeline.corpora._misfits import CROWDS, NEAR_MISSES, PATTERNS
from pipeline.corpora._renderer import DRAWS, LOOKS, SIDE, render
from pipeline.corpora._shapes import CLASS_SHAPES

if TYPE_CHECKING:
    from indexes.sources.spec import Part, Sample

CLASSES: tuple[str, ...] = tuple(CLASS_SHAPES)
NUM_PARTS = 6
PART_IMAGES = 2_000
NUM_IMAGES = NUM_PARTS * PART_IMAGES
SEED = 0
# Part of every fingerprint: increase it whenever a pixel changes.
WORLD = 1

# The subjects of the images, as shares of the corpus.
SUBJECTS = {"class": 0.3, "near miss": 0.22, "crowd": 0.14, "pattern": 0.34}
# In the order of CLASSES: trees, cars and fish are plentiful, keys and umbrellas rare.
CLASS_SHARES = (0.08, 0.17, 0.06, 0.14, 0.11, 0.03, 0.1, 0.07, 0.2, 0.04)
# In the order of LOOKS: a fifth in the lost style, a quarter near it.
LOOK_SHARES = (0.2, 0.25, 0.09, 0.09, 0.06, 0.06, 0.06, 0.08, 0.06, 0.05)
# The number of images that are altered or damaged, by alteration.
ODDITIES = {
    "truncated": 20,  # a JPEG cut off in the middle
    "empty": 20,  # a file without any byte
    "garbage": 20,  # a web page (404) or noise in a file with an image's name
    "gray": 40,  # a JPEG of one channel
    "alpha": 40,  # a PNG with transparency
    "palette": 40,  # a PNG of 64 colors
    "large": 40,  # four times the pixels
    "copy": 300,  # the same bytes as another image of the corpus
    "echo": 400,  # another image, shifted by a pixel, brightened and encoded again
}
PNG_FRAC = 0.08
# The number of images rendered at once: large enough for vector registers, small enough for caches.
BLOCK = 500
SHARD_IMAGES = 2_000
_WEB_PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth of an image, which no part ever yields."""

    key: str
    subject: str  # a key of SUBJECTS
    thing: str  # the shape that is drawn: a class if `subject` is "class"
    look: str  # a key of LOOKS; "lost" is the style of the lost original
    oddity: str  # a key of ODDITIES, or ""
    source: int  # the row of the census that a copy or an echo repeats, else its own row


def _key(part: int, index: int) -> str:
    return f"ocean-{part}-{index:04d}"


def _draws(seed: int, stream: str, count: int, width: int) -> npt.NDArray[np.float32]:
    """Uniform draws [count, width]; row i does not depend on `count`."""
    key = hash64(f"demo/{WORLD}/{seed}/{stream}".encode())
    return np.random.Generator(np.random.Philox(key)).random((count, width), np.float32)


def _pick(shares: Iterable[float], draw: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return an index into `shares`, which sum to 1, for every draw."""
    edges = np.cumsum(list(shares))[:-1]
    return np.searchsorted(edges, draw, "right")


@cache
def census(seed: int = SEED) -> tuple[Truth, ...]:
    """Return the ground truth of every image of the corpus, in the order of its parts."""
    draws = _draws(seed, "census", NUM_IMAGES, 3)
    subjects = [list(SUBJECTS)[i] for i in _pick(SUBJECTS.values(), draws[:, 0])]
    looks = [list(LOOKS)[i] for i in _pick(LOOK_SHARES, draws[:, 1])]
    classes = _pick(CLASS_SHARES, draws[:, 2])
    others = {"near miss": NEAR_MISSES, "crowd": CROWDS, "pattern": PATTERNS}
    rng = np.random.Generator(np.random.Philox(hash64(f"demo/{WORLD}/{seed}/odd".encode())))
    shuffled = rng.permutation(NUM_IMAGES).tolist()
    oddity: dict[int, str] = {}
    for name, count in ODDITIES.items():
        oddity |= dict.fromkeys(shuffled[len(oddity) : len(oddity) + count], name)
    regular = shuffled[len(oddity) :]

    def show(i: int) -> tuple[str, str, str]:
        if subjects[i] == "class":
            return "class", CLASSES[classes[i]], looks[i]
        names = list(others[subjects[i]])
        return subjects[i], names[int(draws[i, 2] * len(names))], looks[i]

    result = []
    for i in range(NUM_IMAGES):
        odd = oddity.get(i, "")
        source = regular[int(rng.integers(len(regular)))] if odd in ("copy", "echo") else i
        result.append(Truth(_key(i // PART_IMAGES, i % PART_IMAGES), *show(source), odd, source))
    return tuple(result)


def corpus() -> list[Part]:
    """Return 6 parts of 2,000 unlabeled images each; all but a few images are 32 x 32."""
    return [DemoPart(number) for number in range(NUM_PARTS)]


class DemoPart:
    """A part of 2,000 images that are rendered as they are read; see indexes.sources.spec.Part."""

    def __init__(self, number: int, seed: int = SEED) -> None:
        self.number, self.seed = number, seed
        self.name = f"ocean-{number}"
        self.random_access = False

    def fingerprint(self) -> str:
        """Return the digest of everything that determines the pixels."""
        return digest(["demo", WORLD, self.seed, self.number, PART_IMAGES])

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, PART_IMAGES, BLOCK):
            yield from self._render(range(start, min(start + BLOCK, PART_IMAGES)))

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """Render image `offset` again and return its bytes.

        Raises SourceError if `key` is not the key of that image.
        """
        from indexes.sources.spec import SourceError

        if not 0 <= offset < PART_IMAGES or key != _key(self.number, offset):
            raise SourceError(
                f"{self.name} has no image {key!r} at position {offset}: delete the embeddings of "
                "the demo corpus under RUNS/embeddings and run `winnow select` again"
            )
        return next(self._render(range(offset, offset + 1))).data

    def _render(self, indexes: range) -> Iterator[Sample]:
        from indexes.sources.spec import Sample

        truth = census(self.seed)
        rows = [truth[self.number * PART_IMAGES + i] for i in indexes]
        draws = _ocean_draws(self.seed)[np.array([row.source for row in rows])]
        images = render([row.thing for row in rows], [row.look for row in rows], draws[:, 1:])
        for index, row, image, draw in zip(indexes, rows, images, draws, strict=True):
            png = bool(draw[0] < PNG_FRAC) and row.oddity in ("", "copy", "echo")
            png = png or row.oddity in ("alpha", "palette")
            data = _spoil(_encode(image, row.oddity, png), row.oddity, float(draw[0]))
            ext = "png" if png else "jpg"
            yield Sample(key=row.key, ext=ext, data=data, offset=index, extras={})


@cache
def _ocean_draws(seed: int) -> npt.NDArray[np.float32]:
    return _draws(seed, "ocean", NUM_IMAGES, 1 + DRAWS)


def _encode(image: npt.NDArray[np.uint8], oddity: str, png: bool) -> bytes:
    """Encode one image [32, 32, 3] in the form that its oddity requires."""
    if oddity == "echo":
        image = np.clip(np.roll(image, 1, axis=1) * np.float32(1.05), 0, 255).astype(np.uint8)
    elif oddity == "large":
        image = image.repeat(2, axis=0).repeat(2, axis=1)
    return _png(image, oddity) if png else _jpeg(image, oddity)


def _jpeg(image: npt.NDArray[np.uint8], oddity: str) -> bytes:
    import simplejpeg

    quality = 75 if oddity == "echo" else 90
    if oddity == "gray":
        gray = image.mean(2, keepdims=True, dtype=np.float32).astype(np.uint8)
        return bytes(simplejpeg.encode_jpeg(gray, quality, "GRAY", "Gray"))
    image = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(image, quality, "RGB", "420", fastdct=False))


def _png(image: npt.NDArray[np.uint8], oddity: str) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    if oddity == "palette":
        picture = picture.quantize(64)
    elif oddity == "alpha":
        fade = np.linspace(255, 128, SIDE).astype(np.uint8)
        picture.putalpha(Image.fromarray(np.tile(fade, (SIDE, 1))))
    file = io.BytesIO()
    picture.save(file, "png", compress_level=1)
    return file.getvalue()


def _spoil(data: bytes, oddity: str, draw: float) -> bytes:
    if oddity == "truncated":
        return data[: int(len(data) * (0.3 + 0.4 * draw))]
    if oddity == "empty":
        return b""
    if oddity == "garbage":
        return _WEB_PAGE if draw < 0.5 else bytes(byte ^ 0x5A for byte in data)
    return data


def render_labeled(
    directory: str | Path, split: Literal["train", "test"], count: int, seed: int
) -> None:
    """Render `count` labeled images of the lost original, balanced over classes, into `directory`.

    The images are stored in WebDataset tars `<split>-00000.tar`, ... of 2,000 samples each:
    `<key>.jpg` [32, 32, 3] and `<key>.cls`, the index into CLASSES as text. The two splits and the
    corpus have no image in common.
    """
    draws = _draws(seed, f"original/{split}", count, 1 + DRAWS)
    # Each group of ten images shows every class once, in a random order.
    rounds = -(-count // len(CLASSES))
    orders = _draws(seed, f"labels/{split}", rounds, len(CLASSES)).argsort(1, kind="stable")
    labels = orders.reshape(-1)[:count]
    for number, first in enumerate(range(0, count, SHARD_IMAGES)):
        last = min(first + SHARD_IMAGES, count)
        path = Path(directory) / f"{split}-{number:05d}.tar"
        with writing(path) as aside, aside.open("wb") as file:
            tar = HashedTar(file)
            for start in range(first, last, BLOCK):
                rows = range(start, min(start + BLOCK, last))
                things = [CLASSES[labels[row]] for row in rows]
                images = render(things, ["lost"] * len(rows), draws[rows.start : rows.stop, 1:])
                for row, image in zip(rows, images, strict=True):
                    tar.add(f"{split}-{row:06d}.jpg", _jpeg(image, ""))
                    tar.add(f"{split}-{row:06d}.cls", str(labels[row]).encode())
            tar.close()
