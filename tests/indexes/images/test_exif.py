"""EXIF orientations in every kind of file, and broken EXIF."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from indexes.images.decode import Geometry, decode_view, load_view
from indexes.images.exif import jpeg_orientation
from tests.support.lakes import saved, smooth

PHOTO = smooth(90, 70)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied(kind: str, orientation: int, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "maker"
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(PHOTO, kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode_view(data), np.asarray(upright))
    assert (upright.size == PHOTO.size) == (orientation <= 4)
    _, width, height = load_view(data, Geometry(8))
    assert (width, height) == upright.size


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_broken_exif_never_crashes(block: bytes) -> None:
    body = b"Exif\0\0" + block
    data = saved(PHOTO, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    assert decode_view(data[:2] + segment + data[2:]).size == 90 * 70 * 3
    assert jpeg_orientation(data[:2] + segment[:7]) == 1
