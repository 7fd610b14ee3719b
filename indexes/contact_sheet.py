"""A contact sheet: a picture with each query on the left and its matches to the right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indexes import artifact
from indexes.images.decode import BadImage, Geometry, load_view

if TYPE_CHECKING:
    from PIL import Image

SIDE, GAP, CAPTION = 160, 8, 30
COLUMNS = 10
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
GROUND, INK = (255, 255, 255), (40, 40, 40)


def check(path: Path) -> None:
    """Check the file name of a sheet; raises ValueError if its suffix is not .jpg, .jpeg or .png.

    Example:
        >>> check(Path("like-cat.jpg"))
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--sheet {path}: name a file that ends in one of {', '.join(FORMATS)}")


def draw(
    path: Path, queries: Sequence[bytes | str], matches: Sequence[Sequence[tuple[bytes, str]]]
) -> None:
    """Write the sheet: each query (image bytes or text), then its (image, caption) pairs.

    A line holds ten matches. An image that cannot be decoded is replaced by the reason.
    """
    from PIL import Image

    check(path)
    lines = [
        (query if start == 0 else None, cells[start : start + COLUMNS])
        for query, cells in zip(queries, matches, strict=True)
        for start in range(0, max(len(cells), 1), COLUMNS)
    ]
    width = 1 + max((len(cells) for _, cells in lines), default=0)
    height = SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (width * (SIDE + GAP) + GAP, len(lines) * height + GAP), GROUND)
    for number, (query, cells) in enumerate(lines):
        top = GAP + number * height
        if isinstance(query, str):
            _write(sheet, GAP, top, "\n".join(textwrap.wrap(query, 24)))
        elif query is not None:
            _paste(sheet, GAP, top, query, "query")
        for column, (image, caption) in enumerate(cells, start=1):
            _paste(sheet, GAP + column * (SIDE + GAP), top, image, caption)
    with artifact.writing(path) as aside:
        sheet.save(aside, FORMATS[path.suffix.lower()])


def _paste(sheet: Image.Image, left: int, top: int, data: bytes, caption: str) -> None:
    from PIL import Image

    try:
        pixels = load_view(data, Geometry(SIDE, 1.0, "bicubic"))[0]
        sheet.paste(Image.fromarray(pixels), (left, top))
    except BadImage as error:
        caption = f"{error}\n{caption}"
    _write(sheet, left, top + SIDE + 2, caption)


def _write(sheet: Image.Image, left: int, top: int, text: str) -> None:
    from PIL import ImageDraw, ImageFont

    # Pillow's built-in font has ASCII letters only.
    plain = text.encode("ascii", "replace").decode()
    ImageDraw.Draw(sheet).multiline_text((left, top), plain, INK, ImageFont.load_default())
