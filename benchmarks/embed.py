"""Embedding, compared with its floor: the same teacher in a bare loop of decode and forward.

Command: python -m benchmarks.embed --corpus 'POOL/*.tar.gz' --teacher DIR [--parts 3]
The figure is images per CPU-second (this process and its children), ours / floor, the median over
the rounds. The rounds alternate, so a busy machine slows both alike. The floor reads the same tars
of JPEGs with tarfile and runs the teacher with the same batch size, threads and precision. It
decodes with simplejpeg, or as winnow does if the stored size differs from the input size.
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
    """Decode the JPEGs and run the teacher, without storing anything; return the image count."""
    count, size, pending = 0, teacher.geometry.size, []

    def forward() -> None:
        pixels = torch.from_numpy(np.stack(pending)).to(device)
        with torch.inference_mode(), devices.autocast(device):
            teacher(pixels.permute(0, 3, 1, 2).float().div_(255))
        pending.clear()

    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None or not member.name.lower().endswith((".jpg", ".jpeg")):
                    continue
                blob = file.read()
                fits = simplejpeg.decode_jpeg_header(blob)[:2] == (size, size)
                pending.append(
                    simplejpeg.decode_jpeg(blob) if fits else load_view(blob, teacher.geometry)[0]
                )
                count += 1
                if len(pending) == BATCH:
                    forward()
    if pending:
        forward()
    return count


def ours(pool: list[Part], teacher: Teacher, device: str, workers: int) -> int:
    """Run the embed stage of `winnow select` in a scratch directory; return the image count."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        embedder = Embedder(teacher=teacher, device=device, workers=workers)
        embed_parts(pool, embedder, directory, body={})
        card = json.loads((directory / "card.json").read_text())
        return int(card["num_samples"])


def main() -> None:
    """Print the table and write benchmarks/embed.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="local tars of JPEGs")
    parser.add_argument("--teacher", required=True, help="a teacher directory")
    parser.add_argument("--parts", type=int, default=2, help="parts of the corpus to embed")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each loop")
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, devices.cores() - 1),
        help="decoding processes of ours",
    )
    arguments = parser.parse_args()
    device = devices.choose()
    teacher = load_teacher(arguments.teacher, device=device)
    pool = open_parts(arguments.corpus)[: arguments.parts]
    paths = [Path(part.location) for part in pool if isinstance(part, TarPart) and not part.start]
    if len(paths) < len(pool) or not all(path.is_file() for path in paths):
        parser.error(f"{arguments.corpus}: the floor reads only local tars of JPEGs")
    floor(paths[:1], teacher, device)  # warm-up
    rows: dict[str, list[dict[str, float]]] = {"floor": [], "ours": []}
    for _ in range(arguments.rounds):
        rows["floor"].append(timing.timed(lambda: floor(paths, teacher, device)).rates())
        rows["ours"].append(
            timing.timed(lambda: ours(pool, teacher, device, arguments.workers)).rates()
        )
    table = {
        name: {key: statistics.median(rates[key] for rates in rounds) for key in rounds[0]}
        for name, rounds in rows.items()
    }
    ratio = table["ours"]["images_per_cpu_second"] / table["floor"]["images_per_cpu_second"]
    for name, row in table.items():
        print(name, " ".join(f"{key}={value:,.1f}" for key, value in row.items()))
    print(f"ours / floor per CPU-second: {ratio:.3f}")
    result = {**table, "ratio": ratio, "rounds": arguments.rounds, "device": device}
    Path("benchmarks/embed.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
