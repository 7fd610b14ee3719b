"""Decode untrusted bytes to RGB pixels: every defect has a reason, and JPEG takes a fast path."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexes.images import thumbnails
from indexes.images.exif import apply_orientation, jpeg_orientation
from indexes.images.resize import resize_window

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

REASONS = ("empty", "corrupt", "truncated", "too_large", "unsupported")
MAX_PIXELS = 100_000_000
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# An explicit list, so that no other decoder of Pillow sees untrusted bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")
# The first bytes of formats that are not decoded: "unsupported" rather than "corrupt".
FOREIGN = (
    b"8BPS",
    b"\0\0\1\0",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"\xff\x0a",
    b"<svg",
    b"%PDF",
)
# A JPEG is decoded to at least this many times the side of the view. The resize still does the
# smoothing, so the view differs from that of a full decode by about one gray level.
MARGIN = 1.5
# n of the DCT scaling n/8. Scaling by more than 4/8 costs more time than it saves.
SCALES = (1, 2, 3, 4)
TRUNCATION_WORDS = ("truncated", "premature end", "unexpected end", "end of file", "not enough")


class BadImage(ValueError):
    """The bytes are not a usable image; `reason` is one of REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return BadImage, (self.reason, self.detail)


@dataclass(frozen=True)
class Geometry:
    """Resize the shorter side to round(size / crop_frac) pixels, then crop the central square.

    `size` is its side in pixels. Raises ValueError for a value out of range.
    """

    size: int
    crop_frac: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.crop_frac <= 1:
            raise ValueError(
                f"size must be at least 1 (it is {self.size}) and crop_frac above 0 and at most 1 "
                f"(it is {self.crop_frac})"
            )
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"no interpolation {self.interpolation!r}: use one of {known}")

    @property
    def shorter_side(self) -> int:
        """The shorter side before the crop, in pixels."""
        return round(self.size / self.crop_frac)


def decode_view(data: bytes, *, min_side: int = 0) -> Pixels:
    """Decode the bytes of an image file to RGB pixels uint8 [H, W, 3], upright by EXIF.

    Only the first frame of an animation is read. Transparent pixels are put on white. 16 bits are
    scaled to 8. With `min_side` > 0 a JPEG may be decoded smaller, with a shorter side of at least
    `min_side` pixels. Raises BadImage if the bytes are not a usable image.
    """
    return _decode(data, min_side)[0]


def load_view(data: bytes, geometry: Geometry) -> tuple[Pixels, int, int]:
    """Return the view of `geometry`, uint8 [S, S, 3], and the upright image's width and height.

    With R the shorter side after the resize, the longer side becomes int(R * long / short) and the
    crop starts at round((side - S) / 2), as in torchvision's Resize and CenterCrop. Raises BadImage
    if the bytes are not a usable image.

    Example: `load_view(Path("cat.jpg").read_bytes(), Geometry(224, 0.875))[0].shape`
    """
    pixels, width, height = _decode(data, MARGIN * max(geometry.shorter_side, thumbnails.SIDE))
    return _view(pixels, width, height, geometry), width, height


def probe_image(data: bytes, geometry: Geometry) -> tuple[Pixels, Pixels, int, int]:
    """Return (view, thumbnail, width, height): `load_view` plus a thumbnail, from one decode.

    The view is uint8 [S, S, 3], the thumbnail of the whole image uint8 [thumbnails.WIDTH]. Raises
    BadImage if the bytes are not a usable image.
    """
    pixels, width, height = _decode(data, MARGIN * max(geometry.shorter_side, thumbnails.SIDE))
    return _view(pixels, width, height, geometry), thumbnails.thumb(pixels), width, height


def to_unit(pixels: Tensor) -> Tensor:
    """Convert uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1], channels_last in memory.

    Example:
        >>> import torch
        >>> to_unit(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)).max()
        tensor(1.)
    """
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def _decode(data: bytes, min_side: float) -> tuple[Pixels, int, int]:
    """Upright pixels, possibly scaled down, and the full image's upright width and height."""
    if not data:
        raise BadImage("empty", "the file has no bytes")
    jpeg = _decode_jpeg(data, min_side) if data[:2] == b"\xff\xd8" else None
    if jpeg is not None:
        pixels, width, height = jpeg
        orientation = jpeg_orientation(data)
    else:
        pixels, orientation = _decode_any(data)
        height, width = pixels.shape[:2]
    if orientation > 4:
        width, height = height, width
    return apply_orientation(pixels, orientation), width, height


def _decode_jpeg(data: bytes, min_side: float) -> tuple[Pixels, int, int] | None:
    """RGB pixels as stored and the full size; None for rare kinds (CMYK, unusual subsampling)."""
    import simplejpeg

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height)
    if space not in ("YCbCr", "RGB", "Gray"):
        return None
    eighths = _eighths(min(width, height), min_side)
    low, wide = -(-height * eighths // 8), -(-width * eighths // 8)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=low, min_width=wide)
    except ValueError as error:
        if "nsupported" in str(error):
            return None
        raise BadImage(_reason(error, data), str(error)) from None
    return pixels, width, height


def _eighths(side: int, min_side: float) -> int:
    """The smallest n whose DCT scaling n/8 leaves a side of at least `min_side`."""
    if min_side <= 0:
        return 8
    return next((n for n in SCALES if side * n >= 8 * min_side), 8)


def _decode_any(data: bytes) -> tuple[Pixels, int]:
    """RGB pixels as stored, decoded by Pillow, and the EXIF orientation that remains to apply."""
    from PIL import Image, UnidentifiedImageError

    if data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise BadImage("truncated", f"only {len(data)} bytes of a longer WebP file")
    if data[4:8] == b"ftyp" or data.lstrip()[:4] in FOREIGN or data[:12].startswith(FOREIGN):
        raise BadImage("unsupported", "this format is not supported: convert it to PNG or JPEG")
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            image.load()
            # After load(): Pillow turns TIFF upright, and a PNG may have EXIF after its pixels.
            return _rgb(image), _orientation(image)
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too_large", str(error)) from None
    except UnidentifiedImageError as error:
        raise BadImage(_reason(error, data), "this is not an image file") from None
    except MemoryError:
        raise BadImage("too_large", "the image does not fit into memory") from None
    except Exception as error:  # Pillow's decoders raise almost any type for damaged bytes
        raise BadImage(_reason(error, data), f"{type(error).__name__}: {error}") from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImage("too_large", f"{width} x {height} pixels; at most {MAX_PIXELS:,} are read")
    if width < 1 or height < 1:
        raise BadImage("corrupt", f"{width} x {height} pixels")


def _reason(error: Exception, data: bytes) -> str:
    text = str(error).lower().replace("premature end of data segment", "")
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < 0:
        return "truncated"  # there is no end mark, which the decoders do not always report
    return "truncated" if any(words in text for words in TRUNCATION_WORDS) else "corrupt"


def _rgb(image: Image.Image) -> Pixels:
    """RGB pixels uint8 [H, W, 3] of a loaded image of any mode."""
    from PIL import Image

    if image.mode[0] in "IF":
        gray = _eight_bits(np.asarray(image))
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    elif image.mode == "LAB":
        raise BadImage("unsupported", "the image has Lab colors: convert it to RGB")
    # A copy, because Pillow's own buffer is read-only and torch warns about such arrays.
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _eight_bits(values: npt.NDArray[np.integer[Any] | np.floating[Any]]) -> Pixels:
    """Scale 16 or 32-bit integers or floats [H, W] to 0..255.

    Integers from 0 to 65535 span 16 bits. Floats within [0, 1] or [0, 255] span that range. All
    other values have no agreed range and are stretched from their smallest to their largest.
    """
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
        spans: tuple[float, ...] = (1.0, 255.0)
    else:
        values, spans = values.astype(np.float64), (65535.0,)
    low, high = float(values.min()), float(values.max())
    fitting = [span for span in spans if low >= 0 and high <= span]
    low, span = (0.0, fitting[0]) if fitting else (low, (high - low) or 1.0)
    scaled: Pixels = np.rint((values - low) * (255.0 / span)).astype(np.uint8)
    return scaled


def _view(pixels: Pixels, width: int, height: int, geometry: Geometry) -> Pixels:
    """The resized central crop of a width x height image whose pixels are stored at n/8 scale."""
    size, shorter = geometry.size, geometry.shorter_side
    stored_height, stored_width = pixels.shape[:2]
    short = min(width, height)
    new_width = shorter if width == short else int(shorter * width / short)
    new_height = shorter if height == short else int(shorter * height / short)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    # Not stored/full: ceil(side * n / 8) pixels are stored, and the last is partly padding.
    scale = 1.0
    if (stored_width, stored_height) != (width, height):
        stored = (stored_width, stored_height)
        scale = next(n / 8 for n in SCALES if (-(-width * n // 8), -(-height * n // 8)) == stored)
    across, down = scale * width / new_width, scale * height / new_height
    if across == down == 1:
        return np.ascontiguousarray(pixels[top : top + size, left : left + size])
    return resize_window(pixels, (top, left), size, (down, across), geometry.interpolation)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block does not affect the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_lock = threading.Lock()
_guard: list[Any] = [0, None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute warnings while any thread is inside; `warnings.catch_warnings` is not thread-safe."""
    with _lock:
        if not _guard[0]:
            _guard[1] = warnings.catch_warnings()
            _guard[1].__enter__()
            warnings.simplefilter("ignore")
        _guard[0] += 1
    try:
        yield
    finally:
        with _lock:
            _guard[0] -= 1
            if not _guard[0]:
                _guard[1].__exit__(None, None, None)
