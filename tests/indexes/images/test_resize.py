"""Resized views equal the eval view of torchvision for every size, shape and JPEG scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from indexes.images import decode, resize
from indexes.images.decode import Geometry, decode_view, load_view
from tests.support.lakes import saved, smooth


def torchvision_view(pixels: np.ndarray[Any, Any], geometry: Geometry) -> np.ndarray[Any, Any]:
    """Resize and center crop the whole image as torchvision does."""
    from torchvision.transforms import InterpolationMode, functional

    interpolation = InterpolationMode(geometry.interpolation)
    resized = functional.resize(Image.fromarray(pixels), [geometry.shorter_side], interpolation)
    return np.asarray(functional.center_crop(resized, [geometry.size, geometry.size]))


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (33, 200), (8, 9), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_frac", [1.0, 0.875])
def test_load_equals_the_eval_view_of_torchvision(
    size: tuple[int, int], interpolation: str, crop_frac: float
) -> None:
    photo, geometry = smooth(*size), Geometry(32, crop_frac, interpolation)
    pixels, width, height = load_view(saved(photo, "PNG"), geometry)
    assert (width, height) == size
    expected = torchvision_view(np.asarray(photo), geometry)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@settings(max_examples=60, deadline=None)
@example(98, 132 / 98, "bilinear", (96, 0.95), 0)  # The crop ends where the stored image ends.
@given(
    st.integers(20, 260),
    st.floats(0.3, 3),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([(16, 1.0), (32, 0.875), (96, 0.95)]),
    st.integers(0, 99),
)
def test_noise_is_resized_as_by_torchvision(
    width: int, ratio: float, interpolation: str, look: tuple[int, float], seed: int
) -> None:
    """Resize noise of any shape up and down: sharp images reveal differences in the resize.

    The noise is too weak for values to be clipped. With clipping, the order of the axes would
    matter.
    """
    shape = (max(round(ratio * width), 8), width, 3)
    noise = np.random.default_rng(seed).integers(80, 176, shape, dtype=np.uint8)
    geometry = Geometry(*look, interpolation)
    pixels = load_view(saved(Image.fromarray(noise), "PNG"), geometry)[0]
    difference = np.abs(pixels.astype(int) - torchvision_view(noise, geometry))
    assert difference.max() <= 2  # Each of the two implementations rounds once.
    assert (difference > 1).mean() < 1e-3


def test_images_of_the_target_size_are_untouched() -> None:
    photo = smooth(32, 32)
    assert np.array_equal(load_view(saved(photo, "PNG"), Geometry(32))[0], np.asarray(photo))
    data = saved(photo, "JPEG")
    assert np.array_equal(load_view(data, Geometry(32))[0], decode_view(data))
    wide = smooth(48, 32)
    assert np.array_equal(load_view(saved(wide, "PNG"), Geometry(32))[0], np.asarray(wide)[:, 8:40])


@pytest.mark.parametrize("operator", ["_absent", "relu"])
def test_pillow_replaces_a_missing_operator_of_torch(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator is absent in one case and has another signature in the other."""
    data, geometry = saved(smooth(90, 70), "PNG"), Geometry(32, 0.875)
    expected = load_view(data, geometry)[0]
    monkeypatch.setattr(resize, "OPERATORS", {"bilinear": operator})
    resize._operator.cache_clear()
    assert resize._operator("bilinear") is None
    pixels = load_view(data, geometry)[0]
    resize._operator.cache_clear()
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_torch_has_the_operators() -> None:
    assert resize._operator("bilinear") is not None
    assert resize._operator("bicubic") is not None
    assert resize._operator("lanczos") is None


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1000, 751), (333, 1999), (640, 640)])
@pytest.mark.parametrize("side", [16, 32, 100, 224])
def test_dct_scaling_stays_close_to_a_full_decode(size: tuple[int, int], side: int) -> None:
    geometry, data = Geometry(side, 0.9), saved(smooth(*size), "JPEG", quality=92)
    pixels, width, height = load_view(data, geometry)
    assert (width, height) == size
    plain = decode._view(decode_view(data), width, height, geometry)
    difference = np.abs(pixels.astype(int) - plain)
    assert difference.mean() < 2.0  # At the target size, the texture is noise.
    assert difference.max() <= 12


def test_dct_scaling_is_used_and_keeps_the_shorter_side() -> None:
    data = saved(smooth(800, 600), "JPEG")
    assert decode_view(data, min_side=70).shape == (75, 100, 3)
    assert decode_view(data, min_side=76).shape == (150, 200, 3)
    assert decode_view(data, min_side=601).shape == (600, 800, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (3, 5000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("side", [1, 2, 224])
def test_extreme_shapes_are_resized(size: tuple[int, int], kind: str, side: int) -> None:
    data = saved(Image.new("RGB", size, (200, 100, 50)), kind)
    pixels, width, height = load_view(data, Geometry(side, 0.875))
    assert pixels.shape == (side, side, 3)
    assert (width, height) == size
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize(
    "make",
    [lambda: Geometry(0), lambda: Geometry(8, 0.0), lambda: Geometry(8, 1.5),
     lambda: Geometry(8, 1.0, "bilinaer")],
)  # fmt: skip
def test_bad_geometry_raises(make: Callable[[], Geometry]) -> None:
    with pytest.raises(ValueError, match=r"size must be|no interpolation"):
        make()
