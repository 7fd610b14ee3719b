"""Small corpora with planted defects, and a small teacher, for end-to-end tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

import winnow
from indexes.models.net import build_net
from indexes.models.teacher import save_teacher

CLASSES = ("red", "green", "blue")


def picture(seed: int, mode: str = "RGB", side: int = 32) -> Image.Image:
    """Draw a noisy image of one dominant color."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 120, (side, side, 3))
    pixels[..., seed % 3] += 130
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(seed: int, mode: str = "RGB", form: str = "JPEG", side: int = 32) -> bytes:
    """Encode `picture`."""
    buffer = io.BytesIO()
    picture(seed, mode, side).save(buffer, form)
    return buffer.getvalue()


def tar_of(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write a tar, gzipped if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def good_tar(path: Path, count: int, first: int = 0) -> Path:
    """Write a tar of `count` intact images with the keys im00000, im00001, ..."""
    members = [(f"im{seed:05d}.jpg", encoded(seed)) for seed in range(first, first + count)]
    return tar_of(path, members)


def small_teacher(directory: Path, *, seed: int = 0, input_size: int = 32) -> Path:
    """Save an untrained ResNet-8 over CLASSES as a teacher directory."""
    torch.manual_seed(seed)
    net = build_net("resnet8", num_classes=len(CLASSES))
    save_teacher(directory, net, classes=CLASSES, input_size=input_size)
    return directory


def files_of(directory: Path) -> dict[str, bytes]:
    """Return every file of a shard set by name."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def select(corpus: str | Path, runs: Path, *more: str, teacher: Path | None = None) -> Any:
    """Run `winnow select` in this process."""
    if teacher is None and not (runs / "teachers").exists():
        small_teacher(runs / "teachers" / "t")
    arguments = ["select", "--corpus", str(corpus), "--runs", str(runs), "--workers", "0"]
    arguments += ["--teacher", str(teacher)] if teacher else []
    return CliRunner().invoke(winnow.app, [*arguments, *more], catch_exceptions=False)


def shards_of(runs: Path) -> Path:
    return Path(json.loads((runs / "last-shards.json").read_text())["shards"])


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(
        winnow.app, [str(argument) for argument in arguments], catch_exceptions=False
    )
    return result.exit_code, result.output
