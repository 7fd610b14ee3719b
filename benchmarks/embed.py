"""Embed against its floor: the same teacher in a bare decode + forward loop.

Command: python -m benchmarks.embed --corpus 'POOL/*.tar.gz' --teacher DIR [--parts 3]
Figure: images per CPU-second (this process and its children), ours / floor, median of the rounds,
which alternate so that a noisy machine is noisy for both. The floor reads the same tars of JPEGs
with tarfile, decodes with simplejpeg (where the size is another one, as winnow does) and runs the
teacher with the same batch, threads and precision.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from benchmarks import timing
from indexes import devices
from indexes.images.decode import load_view
from indexes.models.teacher import Teacher, load_teacher
from indexes.sources.spec import Part, open_parts
from indexes.sources.tar import TarPart
from pipeline.embedding.embed import Embedder, embed_parts

BATCH = 128


def floor(paths: list[Path], teacher: Teacher, device: str) -> int:
    """Decode and forward, nothing kept."""
    count, size, waiting = 0, teacher.geometry.size, []

    def forward() -> None:
        pixels = torch.from_numpy(np.stack(waiting)).to(device)
        with torch.inference_mode(), devices.autocast(device):
            teacher(pixels.permute(0, 3, 1, 2).float().div_(255))
        waiting.clear()

    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None or not member.name.lower().endswith((".jpg", ".jpeg")):
                    continue
                blob = file.read()
                fits = simplejpeg.decode_jpeg_header(blob)[:2] == (size, size)
                waiting.append(
                    simplejpeg.decode_jpeg(blob) if fits else load_view(blob, teacher.geometry)[0]
                )
                count += 1
                if len(waiting) == BATCH:
                    forward()
    if waiting:
        forward()
    return count


def ours(pool: list[Part], teacher: Teacher, device: str, workers: int) -> int:
    """The embed stage as `winnow select` runs it, written to a scratch directory."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        embedder = Embedder(teacher=teacher, device=device, workers=workers)
        embed_parts(pool, embedder, directory, body={})
        card = json.loads((directory / "card.json").read_text())
        return int(card["num_samples"])


def main() -> None:
    """Prints one table and writes benchmarks/embed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=max(1, devices.cores() - 1))
    arguments = parser.parse_args()
    device = devices.choose()
    teacher = load_teacher(arguments.teacher, device=device)
    pool = open_parts(arguments.corpus)[: arguments.parts]
    paths = [Path(part.location) for part in pool if isinstance(part, TarPart) and not part.start]
    if len(paths) < len(pool) or not all(path.is_file() for path in paths):
        parser.error(f"{arguments.corpus}: the floor reads local tars of JPEGs alone")
    floor(paths[:1], teacher, device)  # warm-up
    rows: dict[str, list[dict[str, float]]] = {"floor": [], "ours": []}
    for _ in range(arguments.rounds):
        rows["floor"].append(timing.timed(lambda: floor(paths, teacher, device)).rates())
        rows["ours"].append(
            timing.timed(lambda: ours(pool, teacher, device, arguments.workers)).rates()
        )
    table = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for name, found in rows.items()
    }
    ratio = table["ours"]["images_per_cpu_second"] / table["floor"]["images_per_cpu_second"]
    for name, row in table.items():
        print(name, " ".join(f"{key}={value:,.1f}" for key, value in row.items()))
    print(f"ours / floor per CPU-second: {ratio:.3f}")
    result = {**table, "ratio": ratio, "rounds": arguments.rounds, "device": device}
    Path("benchmarks/embed.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
