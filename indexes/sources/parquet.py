"""Parquet files with a column of image bytes, as data hubs publish them, streamed in batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from indexes.sources import filesystem
from indexes.sources.sample import IMAGES, DamagedPart, Sample, SourceError, plain_key, suffix

BATCH_ROWS = 64
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
KEY_COLUMNS = ("key", "__key__")
LABEL_COLUMNS = ("label", "cls")
MAGIC = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"),
         (b"II*\0", "tif"), (b"MM\0*", "tif"), (b"P6", "ppm"), (b"P5", "ppm"))  # fmt: skip


@dataclass(frozen=True)
class ParquetPart:
    """One Parquet file; the offset of a sample is its row number."""

    name: str
    location: str
    random_access: bool = False

    def fingerprint(self) -> str:
        """Return size and mtime of a file, or size and ETag of a URL."""
        return filesystem.identity(self.location)

    def __iter__(self) -> Iterator[Sample]:
        """Yield one sample per row; a null image gives a sample without image.

        Raises DamagedPart if the file is missing or damaged.
        """
        with self._opened() as file:
            image, *others = self._columns(file.schema_arrow)
            rows, seen = itertools.count(), set[str]()
            for batch in self._batches(file, [image, *(name for name in others if name)]):
                try:
                    values = [
                        batch.column(name).to_pylist() if name else [None] * batch.num_rows
                        for name in (image, *others)
                    ]
                except ValueError as error:  # for example text that is not UTF-8
                    raise DamagedPart(f"{self.name}: {error}") from None
                for cell, key, label in zip(*values, strict=True):
                    sample = _sample(next(rows), image, cell, key, label)
                    if key is None and sample.key in seen:  # base names of several folders
                        sample = dataclasses.replace(sample, key=f"{sample.key}-{sample.offset}")
                    seen.add(sample.key)
                    yield sample

    def fetch(self, key: str, offset: int, size: int) -> bytes:
        """Raises SourceError always: rows are read in order only."""
        raise SourceError(
            f"{self.name}: a Parquet file is read in order, so {key!r} cannot be fetched"
        )

    def check(self) -> None:
        """Check that a column holds images; damage is reported only when the file is read.

        Raises SourceError if there is no such column.
        """
        try:
            with self._opened() as file:
                self._columns(file.schema_arrow)
        except DamagedPart:
            return

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with filesystem.opened(self.location) as handle:
                try:
                    file = pq.ParquetFile(handle)
                except (pa.ArrowException, OSError) as error:
                    raise DamagedPart(
                        f"{self.name}: this is not a complete Parquet file: {error}"
                    ) from None
                with file:
                    yield file
        except FileNotFoundError:
            raise DamagedPart(
                f"{self.name}: no such file: {filesystem.redacted(self.location)}"
            ) from None

    def _batches(self, file: Any, columns: list[str]) -> Iterator[Any]:
        import pyarrow as pa

        try:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise DamagedPart(f"{self.name}: {error}") from None

    def _columns(self, schema: Any) -> tuple[str, str | None, str | None]:
        """The columns of image, key and label."""
        holders = [field.name for field in schema if _holds_bytes(field.type)]
        image = next((name for name in IMAGE_COLUMNS if name in holders), None)
        if image is None and len(holders) == 1:
            image = holders[0]
        if image is None:
            raise SourceError(
                f"{self.name}: none of the columns {', '.join(schema.names)} is known to hold "
                f"images: call the column {IMAGE_COLUMNS[0]!r} and store binary values, or structs "
                "with a binary field 'bytes'"
            )
        key, label = (
            next((name for name in names if name in schema.names and name != image), None)
            for names in (KEY_COLUMNS, LABEL_COLUMNS)
        )
        return image, key, label


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _sample(row: int, column: str, cell: Any, key: Any, label: Any) -> Sample:
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    path = path if isinstance(path, str) else None
    extras = {} if label is None else {"cls": str(label).encode()}
    name = plain_key((path if key is None else str(key)) or "") or f"{row:08d}"
    if data is None:
        return Sample(name, "", b"", row, extras)
    ext = suffix(path or "")
    if ext not in IMAGES:
        ext = _suffix_of(data, column)
    return Sample(name, ext, data, row, extras)


def _suffix_of(data: bytes, column: str) -> str:
    """The suffix for image bytes without a file name, by their first bytes."""
    if data[:4] == b"RIFF":
        return "webp"
    ext = next((ext for magic, ext in MAGIC if data.startswith(magic)), None)
    return ext or (column if column in IMAGES else "jpg")
