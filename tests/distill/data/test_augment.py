"""A view depends only on seed, key and number; crops are per image, exact and in range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import augment
from distill.recipe import Crop


def hashes(num: int) -> augment.Uint64:
    return np.random.default_rng(5).integers(0, 2**64, num, np.uint64)


def images(num: int, size: int) -> torch.Tensor:
    side = augment.stored_side(size)
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, side, side, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [32, 64, 72, 224])
def test_boxes_depend_only_on_seed_key_and_number(size: int) -> None:
    key, number = hashes(50), np.arange(50) % 3
    boxes = augment.draw_boxes(7, key, number, size)
    order = np.random.default_rng(0).permutation(50)[:20]
    assert np.array_equal(augment.draw_boxes(7, key[order], number[order], size), boxes[order])
    for other in (
        augment.draw_boxes(8, key, number, size),
        augment.draw_boxes(7, key, number + 1, size),
        augment.draw_boxes(7, hashes(51)[1:], number, size),
    ):
        assert not np.array_equal(other, boxes)


@pytest.mark.parametrize("size", [32, 96])
def test_boxes_cover_their_range(size: int) -> None:
    boxes = augment.draw_boxes(0, hashes(20_000), np.zeros(20_000, np.int64), size)
    flips = boxes[:, 4].mean()
    assert 0.48 < flips < 0.52
    if size == 32:
        counts = np.bincount((boxes[:, 0] + 4).astype(int), minlength=9)
        assert len(counts) == 9
        assert counts.min() > 0.9 * 20_000 / 9
        assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.03
    else:
        side = augment.stored_side(size)
        area = boxes[:, 2] * boxes[:, 3] / side**2
        assert area.min() >= 0.35 - 1e-4
        assert area.max() <= 1 + 1e-6
        ratio = boxes[:, 3] / boxes[:, 2]
        assert ratio.min() >= 0.75 - 1e-4
        assert ratio.max() <= 4 / 3 + 1e-4
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:4] <= side + 1e-3).all()


def test_small_views_are_reflected_crops() -> None:
    stored = images(40, 32)
    boxes = augment.draw_boxes(3, hashes(40), np.arange(40), 32)
    views = augment.crop_views(stored, boxes, 32, "pad")
    assert views.is_contiguous(memory_format=torch.channels_last)
    for row, (top, left, _, _, flip) in enumerate(boxes.astype(int).tolist()):
        padded = np.pad(stored[row].numpy(), ((4, 4), (4, 4), (0, 0)), mode="reflect")
        crop = padded[top + 4 : top + 36, left + 4 : left + 36]
        crop = crop[:, ::-1] if flip else crop
        wanted = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255
        assert torch.equal(views[row], wanted)


@pytest.mark.parametrize(
    ("size", "crop"), [(32, "pad"), (32, "zeros"), (32, "resized"), (96, "resized")]
)
def test_a_view_does_not_depend_on_its_batch(size: int, crop: Crop) -> None:
    stored, key = images(12, size), hashes(12)
    boxes = augment.draw_boxes(1, key, np.arange(12), size, crop, 0.08)
    boxes[3, :4] = [0, 0, size, size]  # alone, it could also be cut without sampling
    views = augment.crop_views(stored, boxes, size, crop)
    assert views.min() >= 0
    assert views.max() <= 1
    for rows in ([3], [7, 2, 5], list(range(11, -1, -1))):
        assert torch.equal(augment.crop_views(stored[rows], boxes[rows], size, crop), views[rows])


@pytest.mark.parametrize("size", [32, 96])
def test_the_canonical_view_is_the_center(size: int) -> None:
    stored = images(3, size)
    start = (augment.stored_side(size) - size) // 2
    center = stored[:, start : start + size, start : start + size].permute(0, 3, 1, 2).float() / 255
    assert torch.equal(
        augment.crop_views(stored, augment.center_view(3, size), size, "pad"), center
    )


def test_large_views_are_mirrored_and_zoomed() -> None:
    stored = images(1, 96)
    box = np.array([[10.0, 20.0, 70.0, 60.0, 0.0]], np.float32)
    straight = augment.crop_views(stored, box, 96, "resized")
    box[0, 4] = 1
    torch.testing.assert_close(augment.crop_views(stored, box, 96, "resized"), straight.flip(3))
    boxes = np.array([[4.0, 4.0, 96.0, 96.0, 0.0], [4.5, 4.0, 96.0, 96.0, 0.0]], np.float32)
    exact, half = augment.crop_views(stored.repeat(2, 1, 1, 1), boxes, 96, "resized")
    pixels = stored[0].permute(2, 0, 1).float() / 255
    torch.testing.assert_close(exact, pixels[:, 4:100, 4:100], atol=1e-4, rtol=0)
    between = (pixels[:, 4:100, 4:100] + pixels[:, 5:101, 4:100]) / 2
    torch.testing.assert_close(half, between, atol=1e-4, rtol=0)


def test_images_of_another_size_or_number_are_refused() -> None:
    with pytest.raises(ValueError, match="need images"):
        augment.crop_views(images(2, 32), augment.center_view(2, 64), 64, "pad")
    with pytest.raises(ValueError, match="need images"):
        augment.crop_views(images(2, 32), augment.center_view(3, 32), 32, "pad")


@pytest.mark.parametrize("size", [8, 32, 64])
def test_zeros_surround_an_image(size: int) -> None:
    stored, margin = images(40, size), size // 8
    boxes = augment.draw_boxes(3, hashes(40), np.arange(40), size, "zeros")
    assert np.array_equal(boxes, augment.draw_boxes(3, hashes(40), np.arange(40), size, "pad"))
    views = augment.crop_views(stored, boxes, size, "zeros")
    for row, (top, left, _, _, flip) in enumerate(boxes.astype(int).tolist()):
        padded = np.pad(stored[row].numpy(), ((margin, margin), (margin, margin), (0, 0)))
        crop = padded[top + margin :, left + margin :][:size, :size]
        crop = crop[:, ::-1] if flip else crop
        assert torch.equal(views[row], torch.from_numpy(crop.copy()).permute(2, 0, 1) / 255)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**64 - 1),
    size=st.sampled_from([8, 32, 64, 96, 224]),
    area=st.floats(0.01, 1.0),
)
def test_resized_boxes_lie_within_the_image_and_are_large_enough(
    seed: int, size: int, area: float
) -> None:
    side, key, number = augment.stored_side(size), hashes(200), np.arange(200)
    boxes = augment.draw_boxes(seed, key, number, size, "resized", area)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:4] <= side * (1 + 1e-6)).all()
    areas = boxes[:, 2] * boxes[:, 3] / side**2
    assert areas.min() >= area * (1 - 1e-5)
    ratio = boxes[:, 3] / boxes[:, 2]
    assert ratio.min() >= 3 / 4 - 1e-5
    assert ratio.max() <= 4 / 3 + 1e-5
    rows = np.random.default_rng(seed).permutation(200)[:7]
    alone = augment.draw_boxes(seed, key[rows], number[rows], size, "resized", area)
    assert np.array_equal(alone, boxes[rows])


def test_resized_views_of_small_images_show_their_box() -> None:
    """A ramp stays a ramp: a pixel of the view has the value of the place that it shows."""
    ramp = torch.arange(32, dtype=torch.uint8) * 8
    stored = torch.stack(
        [ramp[:, None].expand(32, 32), ramp.expand(32, 32), ramp.expand(32, 32)], -1
    )
    boxes = augment.draw_boxes(0, hashes(50), np.arange(50), 32, "resized", 0.08)
    views = augment.crop_views(stored.repeat(50, 1, 1, 1), boxes, 32, "resized") * 255
    centers = (np.arange(32) + 0.5) / 32
    for view, (top, left, height, width, flip) in zip(views, boxes.tolist(), strict=True):
        rows = (8 * (top + height * centers - 0.5)).clip(0, 248)
        columns = (8 * (left + width * (1 - centers if flip else centers) - 0.5)).clip(0, 248)
        np.testing.assert_allclose(view[0], rows[:, None].repeat(32, 1), atol=0.01)
        np.testing.assert_allclose(view[1], columns[None].repeat(32, 0), atol=0.01)


def test_the_crop_follows_the_size_and_fits_it() -> None:
    stored, key, number = images(9, 32), hashes(9), np.arange(9)
    views = {
        crop: augment.Augmentation(size=32, seed=1, crop=crop)(stored, key, number)
        for crop in (None, "pad", "zeros", "resized")
    }
    assert torch.equal(views[None], views["pad"])
    assert not torch.equal(views["pad"], views["zeros"])
    assert not torch.equal(views["pad"], views["resized"])
    lower = augment.Augmentation(size=32, seed=1, crop="resized", crop_area=0.08)
    assert not torch.equal(lower(stored, key, number), views["resized"])
    for crop in ("pad", "zeros"):
        with pytest.raises(ValueError, match=f"crop={crop} is for views of at most 64 pixels"):
            augment.Augmentation(size=65, seed=1, crop=crop)
    assert augment.resolve_crop(None, 65) == augment.resolve_crop("resized", 65) == "resized"


def gray_of(pixel: np.ndarray) -> float:
    return float(0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2])


def test_jitter_applies_brightness_contrast_and_saturation() -> None:
    pixels = augment.crop_views(images(3, 32), augment.center_view(3, 32), 32, "pad")
    factors = np.array([[1.3, 0.6, 1.5], [0.7, 1.4, 0.2], [1, 1, 1]], np.float32)
    jittered = augment.apply_jitter(pixels, factors)
    for view, (brightness, contrast, saturation), result in zip(
        pixels, factors, jittered, strict=True
    ):
        wanted = (view.numpy() * brightness).clip(0, 1)
        mean = np.mean([gray_of(wanted[:, y, x]) for y in range(32) for x in range(32)])
        wanted = (mean + contrast * (wanted - mean)).clip(0, 1)
        for y in range(32):
            for x in range(32):
                gray = gray_of(wanted[:, y, x])
                wanted[:, y, x] = (gray + saturation * (wanted[:, y, x] - gray)).clip(0, 1)
        np.testing.assert_allclose(result.numpy(), wanted, atol=2e-6)
    torch.testing.assert_close(jittered[2], pixels[2])


@pytest.mark.parametrize(
    ("size", "crop"), [(32, "pad"), (32, "zeros"), (32, "resized"), (96, "resized")]
)
def test_a_view_is_the_crop_and_the_jitter_of_its_seed(size: int, crop: Crop) -> None:
    stored, key, number = images(40, size), hashes(40), np.arange(40) % 3
    chosen = augment.Augmentation(size=size, seed=7, crop=crop, crop_area=0.2)
    plain = chosen(stored, key, number)
    boxes = augment.draw_boxes(7, key, number, size, crop, 0.2)
    assert torch.equal(plain, augment.crop_views(stored, boxes, size, crop))
    augmentation = replace(chosen, color_jitter=0.4)
    jittered = augmentation(stored, key, number)
    assert torch.equal(
        jittered, augment.apply_jitter(plain, augment.draw_jitter(7, key, number, 0.4))
    )
    assert jittered.is_contiguous(memory_format=torch.channels_last)
    order = np.random.default_rng(0).permutation(40)[:9]
    again = augmentation(stored[torch.from_numpy(order)], key[order], number[order])
    torch.testing.assert_close(again, jittered[torch.from_numpy(order)], atol=1e-6, rtol=0)


def test_jitter_is_independent_of_the_boxes() -> None:
    key, number = hashes(20_000), np.zeros(20_000, np.int64)
    factors = augment.draw_jitter(0, key, number, 0.4)
    assert factors.min() >= np.float32(0.6)
    assert factors.max() <= np.float32(1.4)
    assert np.allclose(factors.mean(0), 1, atol=0.01)
    for size in (32, 96):
        boxes = augment.draw_boxes(0, key, number, size)
        together = np.concatenate([factors, boxes[:, [0, 1, 4]]], 1)
        correlation = np.corrcoef(together.T) - np.eye(6)
        assert np.abs(correlation[:3]).max() < 0.03
    assert not np.array_equal(augment.draw_jitter(1, key, number, 0.4), factors)
