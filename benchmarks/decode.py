"""Decoding for embedding: from the bytes of a JPEG to the teacher's view, on one core.

Command: python -m benchmarks.decode [--images FOLDER] [--side 400] [--size 224]
The figures are images per CPU-second, medians over alternating rounds. The floor is libjpeg-turbo
alone, at the smallest scale that still covers the view, without a resize. The peers are PIL and
torchvision's decoder, each with torchvision's Resize and CenterCrop. `off` is the distance of our
views from PIL's in levels of 256: the mean over all images, and the mean of the worst image. The
JPEGs are generated if no folder is given.
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


def generate_jpegs(count: int, side: int) -> list[bytes]:
    """Generate JPEGs of clouds at quality 90, `side` wide and 3/4 of `side` high."""
    generator = np.random.default_rng(0)
    blobs = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        noise = generator.normal(0, 8, (image.height, image.width, 3))
        pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        blobs.append(buffer.getvalue())
    return blobs


def floor(blob: bytes, geometry: Geometry) -> Pixels:
    """Decode with libjpeg-turbo alone."""
    side = geometry.shorter_side
    pixels: Pixels = simplejpeg.decode_jpeg(blob, min_height=side, min_width=side, min_factor=1)
    return pixels


def ours(blob: bytes, geometry: Geometry) -> Pixels:
    """Decode as winnow does."""
    return load_view(blob, geometry)[0]


def pil(blob: bytes, geometry: Geometry) -> Pixels:
    """Decode with PIL, as torchvision's reference transforms do."""
    view = v2.functional.resize(Image.open(io.BytesIO(blob)).convert("RGB"), geometry.shorter_side)
    return np.asarray(v2.functional.center_crop(view, geometry.size))


def torchvision(blob: bytes, geometry: Geometry) -> Pixels:
    """Decode and transform with torchvision, on tensors."""
    data = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
    pixels = torch_images.decode_jpeg(data, torch_images.ImageReadMode.RGB)
    view = v2.functional.resize(pixels, geometry.shorter_side, antialias=True)
    view = v2.functional.center_crop(view, geometry.size)
    return view.permute(1, 2, 0).numpy()


CONTESTANTS: dict[str, Callable[[bytes, Geometry], Pixels]] = {
    "floor": floor, "ours": ours, "PIL": pil, "torchvision": torchvision
}  # fmt: skip


def measured(name: str, blobs: Sequence[bytes], geometry: Geometry) -> Sample:
    """Measure one pass over all images."""

    def job() -> int:
        for blob in blobs:
            CONTESTANTS[name](blob, geometry)
        return len(blobs)

    return timed(job)


def off(blobs: Sequence[bytes], geometry: Geometry) -> dict[str, float]:
    """Return the distance of our views from PIL's in levels: overall mean, and worst image."""
    levels = [
        float(np.abs(ours(blob, geometry).astype(int) - pil(blob, geometry)).mean())
        for blob in blobs
    ]
    return {"off_mean": float(np.mean(levels)), "off_worst": max(levels)}


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/decode.json."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--images", type=Path, help="a folder of JPEGs")
    options.add_argument("--count", type=int, default=300, help="number of images")
    options.add_argument("--side", type=int, default=400, help="longer side of generated images")
    options.add_argument("--size", type=int, default=224, help="input size of the teacher")
    options.add_argument("--rounds", type=int, default=5, help="rounds over all contestants")
    args = options.parse_args(words)
    torch.set_num_threads(1)
    if args.images:
        paths = sorted(args.images.rglob("*.jp*g"))[: args.count]
        blobs = [path.read_bytes() for path in paths]
    else:
        blobs = generate_jpegs(args.count, args.side)
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
