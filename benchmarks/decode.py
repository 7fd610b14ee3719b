"""Decoding for an embedding: bytes of a JPEG to the teacher's view, one core.

Command: python -m benchmarks.decode [--images FOLDER] [--side 400] [--size 224]
Figures: images per CPU-second, rounds alternating, medians. Floor: libjpeg-turbo alone, at the
smallest scale that still covers the view, without resize. Peers: PIL, and torchvision's decoder,
each with torchvision's Resize and CenterCrop. `off`: how far our views lie from PIL's, in levels of
256, mean and the worst image's mean. Painted JPEGs where no folder is given.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image
from torchvision import io as torch_images
from torchvision.transforms import v2

from benchmarks import timing
from benchmarks.timing import Line, Sample, Target, timed
from indexes.images.decode import Geometry, load_view

CROP_FRAC = 0.875
Pixels = npt.NDArray[np.uint8]


def drawn(count: int, side: int) -> list[bytes]:
    """JPEGs of clouds, 4:3, their shorter side 3/4 of `side`; quality 90."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        noise = generator.normal(0, 8, (image.height, image.width, 3))
        pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def floor(blob: bytes, geometry: Geometry) -> Pixels:
    """libjpeg-turbo alone."""
    side = geometry.shorter_side
    pixels: Pixels = simplejpeg.decode_jpeg(blob, min_height=side, min_width=side, min_factor=1)
    return pixels


def ours(blob: bytes, geometry: Geometry) -> Pixels:
    """The product's own door."""
    return load_view(blob, geometry)[0]


def pil(blob: bytes, geometry: Geometry) -> Pixels:
    """PIL, as torchvision's reference transforms use it."""
    view = v2.functional.resize(Image.open(io.BytesIO(blob)).convert("RGB"), geometry.shorter_side)
    return np.asarray(v2.functional.center_crop(view, geometry.size))


def torchvision(blob: bytes, geometry: Geometry) -> Pixels:
    """torchvision's decoder and transforms, on tensors."""
    data = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
    pixels = torch_images.decode_jpeg(data, torch_images.ImageReadMode.RGB)
    view = v2.functional.resize(pixels, geometry.shorter_side, antialias=True)
    view = v2.functional.center_crop(view, geometry.size)
    return view.permute(1, 2, 0).numpy()


CONTESTANTS: dict[str, Callable[[bytes, Geometry], Pixels]] = {
    "floor": floor, "ours": ours, "PIL": pil, "torchvision": torchvision
}  # fmt: skip


def measured(name: str, blobs: Sequence[bytes], geometry: Geometry) -> Sample:
    """One pass over all images."""

    def job() -> int:
        for blob in blobs:
            CONTESTANTS[name](blob, geometry)
        return len(blobs)

    return timed(job)


def off(blobs: Sequence[bytes], geometry: Geometry) -> dict[str, float]:
    """Distance of our views from PIL's in levels: mean of all, and the worst image's mean."""
    levels = [
        float(np.abs(ours(blob, geometry).astype(int) - pil(blob, geometry)).mean())
        for blob in blobs
    ]
    return {"off_mean": float(np.mean(levels)), "off_worst": max(levels)}


def main(words: Sequence[str] | None = None) -> None:
    """Prints one table and writes benchmarks/decode.json."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--images", type=Path, help="a folder of JPEGs")
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--side", type=int, default=400, help="longer side of drawn images")
    options.add_argument("--size", type=int, default=224)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args(words)
    torch.set_num_threads(1)
    if args.images:
        paths = sorted(args.images.rglob("*.jp*g"))[: args.count]
        blobs = [path.read_bytes() for path in paths]
    else:
        blobs = drawn(args.count, args.side)
    geometry = Geometry(args.size, CROP_FRAC)
    for name in CONTESTANTS:
        measured(name, blobs[:10], geometry)
    table: dict[str, Any] = timing.contest(
        {name: partial(measured, name, blobs, geometry) for name in CONTESTANTS}, args.rounds
    )
    key = "images_per_cpu_second"
    peer, speed = timing.fastest(table, ("PIL", "torchvision"), key)
    row = partial(
        Line,
        unit="images per CPU-second",
        ours=table["ours"][key],
        floor=table["floor"][key],
        floor_name="libjpeg-turbo alone",
    )
    target = Target(of="peer", sense=">=", bound=1.5)
    lines = [
        row(row="decode", peer=table["PIL"][key], peer_name="PIL", target=target),
        row(row="decode, fastest peer", peer=speed, peer_name=peer),
    ]
    table["ours"] |= off(blobs, geometry)
    timing.show(table)
    side = args.side if args.images is None else None
    settings = {"count": len(blobs), "side": side, "size": args.size, "rounds": args.rounds}
    timing.write("decode", lines, contestants=table, **settings)


if __name__ == "__main__":
    main()
