"""Small corpora for the tests: images, tars, files and Parquet tables with known content."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexes.sources.spec import DamagedPart, Part, Sample, open_parts

Files = Sequence[tuple[str, bytes]]


def tar(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def put(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def files(count: int, start: int = 0, size: int = 700) -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(start)
    return [(f"{n:05d}.jpg", rng.bytes(size + n)) for n in range(start, start + count)]


def damaged(part: Part) -> tuple[list[Sample], str]:
    samples: list[Sample] = []
    with pytest.raises(DamagedPart) as raised:
        samples.extend(part)
    return samples, str(raised.value)


def only(spec: str) -> Part:
    (part,) = open_parts(spec)
    return part


def fetch_all(part: Part, locations: list[tuple[str, int, int]]) -> list[bytes]:
    return [part.fetch(*location) for location in locations]


def hub(path: Path, rows: int = 5, **columns: list[object]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = [
        {"bytes": f"\x89PNG{n}".encode("latin-1"), "path": f"n{n}/im.{n}.JPEG"} for n in range(rows)
    ]
    table = {"image": pa.array(image, kind), "label": pa.array(range(rows), pa.int64())}
    table |= {name: pa.array(values) for name, values in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=2)
    return str(path)


def smooth(width: int, height: int) -> Image.Image:
    """Draw a smooth image that depends only on its size."""
    generator = np.random.default_rng((width, height))
    coarse = generator.integers(0, 255, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
