"""Decoding: every defect has a drop reason, and every color mode gives the right pixels."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexes.images.decode import BadImage, Geometry, decode_view, load_view
from tests.support.lakes import saved, smooth

PHOTO = smooth(90, 70)


def reason(data: bytes) -> str:
    with pytest.raises(BadImage) as raised:
        decode_view(data)
    with pytest.raises(BadImage):
        load_view(data, Geometry(8))
    return raised.value.reason


def test_empty_bytes_are_refused() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_truncated_files_are_refused(kind: str) -> None:
    data = saved(PHOTO, kind)
    assert reason(data[: len(data) * 6 // 10]) == "truncated"


def test_truncated_jpegs_of_all_kinds() -> None:
    for data in (
        saved(PHOTO, "JPEG", progressive=True),
        saved(PHOTO.convert("L"), "JPEG"),
        saved(PHOTO.convert("CMYK"), "JPEG"),
    ):
        assert decode_view(data).shape == (70, 90, 3)
        assert reason(data[: len(data) * 6 // 10]) == "truncated"
    assert reason(saved(PHOTO, "JPEG")[:-2]) == "truncated"


@pytest.mark.parametrize("data", [b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(999)])
def test_corrupt_bytes_are_refused(data: bytes) -> None:
    assert reason(data) in {"corrupt", "truncated"}


def test_corrupt_image_data_is_refused() -> None:
    data = bytearray(saved(PHOTO, "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == "corrupt"


def test_unsupported_formats_are_refused() -> None:
    assert reason(b"8BPS" + bytes(50)) == "unsupported"
    assert reason(b"\0\0\0\x1cftypavif" + bytes(50)) == "unsupported"
    assert reason(b"<svg></svg>") == "unsupported"


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_001, 10_000)])
def test_decompression_bombs_are_refused_before_decoding(size: tuple[int, int]) -> None:
    assert reason(png(*size)) == "too_large"
    jpeg = bytearray(saved(PHOTO, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", size[1], size[0])
    assert reason(bytes(jpeg)) == "too_large"


def test_images_between_the_limit_of_pillow_and_ours_are_decoded_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PHOTO.width * PHOTO.height - 1)
    assert decode_view(saved(PHOTO, "PNG")).shape == (70, 90, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)
    assert reason(saved(PHOTO, "PNG")) == "too_large"


def test_the_reason_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImage("corrupt", "why")))
    assert (error.reason, str(error)) == ("corrupt", "corrupt: why")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_kinds_are_exact(kind: str) -> None:
    assert np.array_equal(decode_view(saved(PHOTO, kind)), np.asarray(PHOTO))


def test_webp_and_jpeg_agree_with_pillow() -> None:
    assert np.array_equal(decode_view(saved(PHOTO, "WEBP", lossless=True)), np.asarray(PHOTO))
    data = saved(PHOTO, "JPEG")
    assert np.array_equal(decode_view(data), np.asarray(Image.open(io.BytesIO(data))))
    assert decode_view(data).flags.writeable


def test_gray_and_one_bit_images_become_rgb() -> None:
    gray = PHOTO.convert("L")
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decode_view(saved(gray, kind)), np.asarray(gray.convert("RGB")))
    bits = PHOTO.convert("1")
    assert np.array_equal(decode_view(saved(bits, "PNG")), np.asarray(bits.convert("RGB")))
    assert np.unique(decode_view(saved(gray, "JPEG")).std(axis=2)).tolist() == [0.0]


def test_transparency_is_blended_with_white() -> None:
    clear, half = Image.new("RGBA", (4, 4), (9, 9, 9, 0)), Image.new("RGBA", (4, 4), (0, 0, 0, 127))
    assert decode_view(saved(clear, "PNG")).min() == 255
    assert np.unique(decode_view(saved(half, "PNG"))).tolist() == [128]
    assert decode_view(saved(clear.convert("LA"), "PNG")).min() == 255
    assert decode_view(saved(clear, "WEBP", lossless=True)).min() == 255
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert decode_view(saved(palette, "PNG"))[0, 0].tolist() == [40, 50, 60]
    assert decode_view(saved(palette, "PNG", transparency=1)).min() == 255
    assert decode_view(saved(palette, "PNG", transparency=b"\xff\x00")).min() == 255
    assert decode_view(saved(palette, "GIF", transparency=1)).min() == 255
    for keyed in (Image.new("RGB", (4, 4), (1, 2, 3)), Image.new("L", (4, 4), 7)):
        color = (1, 2, 3) if keyed.mode == "RGB" else 7
        assert decode_view(saved(keyed, "PNG", transparency=color)).min() == 255


def test_cmyk_and_ycck_are_not_inverted() -> None:
    for color in ((250, 5, 5), (5, 250, 5), (255, 255, 255), (0, 0, 0)):
        cmyk = Image.new("RGB", (16, 16), color).convert("CMYK")
        data = saved(cmyk, "JPEG", quality=95)
        assert np.abs(decode_view(data)[8, 8].astype(int) - color).max() < 12
        # The last byte of the Adobe marker gives the coding of the four channels: 2 is YCCK.
        offset = data.index(b"Adobe") + 11
        ycck = data[:offset] + b"\x02" + data[offset + 1 :]
        assert np.array_equal(
            decode_view(ycck), np.asarray(Image.open(io.BytesIO(ycck)).convert("RGB"))
        )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_values_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = decode_view(saved(Image.fromarray(ramp), kind))
    assert np.abs(pixels[:, :, 0].astype(float) - ramp / 257).max() <= 1
    assert pixels.std(axis=2).max() == 0


def test_sixteen_bit_color_png_is_scaled() -> None:
    raw = b"".join(b"\0" + np.array([[0, 32768, 65535]] * 4, ">u2").tobytes() for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"tRNS", struct.pack(">HHH", 9999, 1, 2)),
                       (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):  # fmt: skip
        crc = struct.pack(">I", zlib.crc32(name + body))
        data += struct.pack(">I", len(body)) + name + body + crc
    assert decode_view(data)[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-3.0, 1e6)])
def test_float_tiff_is_scaled_to_eight_bits(low: float, high: float) -> None:
    ramp = np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8)
    pixels = decode_view(saved(Image.fromarray(ramp), "TIFF"))
    assert np.array_equal(pixels[:, :, 0], np.rint(np.linspace(0, 255, 64)).reshape(8, 8))
    broken = ramp.copy()
    broken[0, 0] = np.nan
    assert decode_view(saved(Image.fromarray(broken), "TIFF")).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_view(data)[4, 4].tolist() == [255, 0, 0]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]), st.data())
def test_damage_raises_only_bad_image(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(saved(PHOTO.resize((20, 16)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(BadImage):
        assert load_view(cut, Geometry(8))[0].shape == (8, 8, 3)


def test_threads_do_not_change_the_warning_filters() -> None:
    before, data = list(warnings.filters), saved(PHOTO, "PNG")
    threads = [
        threading.Thread(target=lambda: [decode_view(data) for _ in range(30)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
