"""Near duplicates: recall and precision on planted copies, compared with fastdup and cleanvision.

The images are real if the environment variable WINNOW_BENCH names the benchmark images, and
generated otherwise. Base images that resemble an earlier one (correlation of the pixels above 0.9,
also mirrored) are left out first, so every pair that was not planted counts as false. A pair is two
images that a tool puts into one group.

    WINNOW_BENCH=... python -m benchmarks.dedup --peer /path/to/python-with-fastdup-and-cleanvision
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageEnhance

from indexes.images.decode import decode_view
from indexes.models.net import build_net
from indexes.models.teacher import save_teacher
from indexes.shards.tar_writer import HashedTar
from indexes.sources.spec import open_parts
from pipeline.config import SelectConfig
from pipeline.stage import open_run
from pipeline.stages import dedup_pool, embed_corpus

Pair = frozenset[str]
Draw = np.random.Generator
TOO_SIMILAR = 0.9
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
PEERS = {
    "cleanvision": """
import json, sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
sets = lab.info["near_duplicates"]["sets"] + lab.info["exact_duplicates"]["sets"]
json.dump([[str(p) for p in group] for group in sets], open(sys.argv[2], "w"))
""",
    # By default fastdup lists similarities from 0.9 and joins components from 0.96.
    **{
        f"fastdup {threshold}": f"""
import json, sys, tempfile, fastdup
fd = fastdup.create(work_dir=tempfile.mkdtemp(), input_dir=sys.argv[1])
fd.run(num_threads=1, print_summary=False, verbose=False)
same = fd.similarity()
same = same[same.distance >= {threshold}]
json.dump(same[["filename_from", "filename_to"]].values.tolist(), open(sys.argv[2], "w"))
"""
        for threshold in (0.9, 0.96)
    },
}


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode an image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resized(image: Image.Image, draw: Draw) -> Image.Image:
    """Resize to 50 to 200 % of the size."""
    frac = draw.uniform(0.5, 2)
    width, height = (max(1, round(side * frac)) for side in image.size)
    return image.resize((width, height), FILTERS[draw.integers(3)])


def cropped(image: Image.Image, draw: Draw) -> Image.Image:
    """Cut 3 to 10 % off each side, at any position; half of the time, resize to the old size."""
    width, height = image.size
    frac = draw.uniform(0.03, 0.1)
    cut_x, cut_y = max(1, round(width * frac)), max(1, round(height * frac))
    left, top = draw.integers(0, cut_x + 1), draw.integers(0, cut_y + 1)
    part = image.crop((left, top, left + width - cut_x, top + height - cut_y))
    return part.resize((width, height), FILTERS[draw.integers(3)]) if draw.random() < 0.5 else part


def mirrored(image: Image.Image, draw: Draw) -> Image.Image:
    """Mirror left and right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def recolored(image: Image.Image, draw: Draw) -> Image.Image:
    """Change brightness or contrast by up to 20 %, saturation by 30 %, or hue by 11 degrees."""
    kind = draw.integers(4)
    if kind == 3:
        hsv = np.array(image.convert("HSV"))
        hsv[..., 0] += np.uint8(draw.integers(-8, 9) % 256)
        return Image.fromarray(hsv, "HSV").convert("RGB")
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
    reach = 0.3 if kind == 2 else 0.2
    return enhance(image).enhance(draw.uniform(1 - reach, 1 + reach))


def combined(image: Image.Image, draw: Draw) -> Image.Image:
    """Apply some of the other changes, one after the other."""
    for change in (mirrored, cropped, resized, recolored):
        if draw.random() < 0.6:
            image = change(image, draw)
    return image


KINDS: dict[str, Callable[[Image.Image, Draw], Image.Image]] = {
    "re-encode q40-q95": lambda image, draw: image,
    "resize 50-200 %": resized,
    "crop 3-10 %": cropped,
    "flip": mirrored,
    "color": recolored,
    "combined": combined,
}


def base(count: int, side: int) -> list[Image.Image]:
    """Return `count` images; generated ones have `side` pixels on each side."""
    bench = Path(os.environ.get("WINNOW_BENCH", "")) / "cifar10" / "openworld"
    if os.environ.get("WINNOW_BENCH") and bench.is_dir():
        samples = itertools.chain.from_iterable(open_parts(str(bench)))
        return [Image.fromarray(decode_view(s.data)) for s in itertools.islice(samples, count)]
    from pipeline.corpora.demo import corpus

    samples = itertools.islice(itertools.chain.from_iterable(corpus()), 2 * count)
    intact = [s.data for s in samples if s.data[:2] == b"\xff\xd8" and s.data[-2:] == b"\xff\xd9"]
    images = [Image.fromarray(decode_view(data)) for data in intact[:count]]
    return [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]


def drop_similar(images: list[Image.Image]) -> list[Image.Image]:
    """Return the images that correlate with no earlier image."""
    pixels = np.stack([np.asarray(i.convert("RGB").resize((32, 32))) for i in images])
    both = [torch.from_numpy(p.copy()).float().flatten(1) for p in (pixels, pixels[:, :, ::-1])]
    both = [torch.nn.functional.normalize(p - p.mean(1, keepdim=True)) for p in both]
    unique = []
    for at in range(len(images)):
        before = max(float((p[:at] @ both[0][at]).max()) if at else 0.0 for p in both)
        unique.append(before < TOO_SIMILAR)
    return [image for image, is_unique in zip(images, unique, strict=True) if is_unique]


def plant(
    images: list[Image.Image], copies: int, seed: int
) -> tuple[dict[str, bytes], dict[Pair, str]]:
    """Return the files by key and the kind of each planted pair; no two kinds share an original."""
    draw = np.random.default_rng(seed)
    files = {f"base{at:06d}": jpeg(image, 92) for at, image in enumerate(images)}
    planted = {}
    originals = draw.permutation(len(images))[: copies * len(KINDS)].reshape(len(KINDS), copies)
    for (kind, change), rows in zip(KINDS.items(), originals, strict=True):
        for row in rows.tolist():
            key = f"copy{len(planted):06d}"
            low = 40 if kind.startswith("re-encode") or kind == "combined" else 75
            files[key] = jpeg(change(images[row], draw), int(draw.integers(low, 96)))
            planted[frozenset((f"base{row:06d}", key))] = kind
    return files, planted


def ours(files: dict[str, bytes], scratch: Path) -> set[Pair]:
    """Return the pairs of the groups that `winnow select` finds."""
    with (scratch / "all.tar").open("wb") as file:
        tar = HashedTar(file)
        for key, data in files.items():
            tar.add(f"{key}.jpg", data)
        tar.close()
    net = build_net("resnet8", num_classes=2)
    save_teacher(scratch / "teacher", net, classes=("a", "b"), input_size=32)
    config = SelectConfig(
        corpus=str(scratch / "all.tar"),
        runs=scratch / "runs",
        teacher=scratch / "teacher",
        method="all",
        workers=0,
    )
    run = open_run(config)
    embedded = embed_corpus(run)
    begin = time.process_time()
    deduped = dedup_pool(run, embedded)
    print(f"the dedup stage alone: {len(files) / (time.process_time() - begin):,.0f} images/CPU-s")
    table = pq.read_table(deduped.directory / "pairs.parquet").to_pydict()
    groups: dict[str, list[str]] = {}
    for key, kept_key in zip(table["key"], table["kept_key"], strict=True):
        groups.setdefault(kept_key, [kept_key]).append(key)
    return set(pairs_of(groups.values()))


def peer(name: str, python: str, files: dict[str, bytes], scratch: Path) -> set[Pair] | None:
    """Return the pairs that a peer reports; None if it does not run."""
    folder = scratch / "files"
    folder.mkdir(exist_ok=True)
    for key, data in files.items():
        (folder / f"{key}.jpg").write_bytes(data)
    out = scratch / f"{name}.json"
    command = [python, "-c", PEERS[name], str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
    if not out.exists():
        print(f"{name}: skipped ({done.stderr.strip().splitlines()[-1:] or done.returncode})")
        return None
    groups = json.loads(out.read_text())
    return set(pairs_of([Path(path).stem for path in group] for group in groups))


def pairs_of(groups: Iterable[list[str]]) -> Iterator[Pair]:
    """Yield every pair of images within a group."""
    for group in groups:
        for pair in itertools.combinations(sorted(set(group)), 2):
            yield frozenset(pair)


def figures(
    pairs: set[Pair], planted: dict[Pair, str], seconds: float, count: int
) -> dict[str, Any]:
    """Return the recall of each kind and of all, the precision, and the images per CPU-second."""
    hits, total = Counter(planted[p] for p in pairs & planted.keys()), Counter(planted.values())
    right = len(pairs & planted.keys())
    return {
        **{kind: hits[kind] / total[kind] for kind in KINDS},
        "recall": right / len(planted),
        "precision": right / max(len(pairs), 1),
        "images_per_cpu_second": count / seconds,
    }


def measured(job: Callable[[], set[Pair] | None]) -> tuple[set[Pair] | None, float]:
    """Return the pairs that a job finds, and the CPU-seconds of the job and its children."""
    begin = sum(os.times()[:4])
    pairs = job()
    return pairs, sum(os.times()[:4]) - begin


def main() -> None:
    """Print the table and write benchmarks/dedup.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000, help="base images")
    parser.add_argument("--copies", type=int, default=200, help="planted copies of each kind")
    parser.add_argument(
        "--side", type=int, default=128, help="side of the generated images in pixels"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the planted copies")
    parser.add_argument("--peer", help="a Python that has fastdup and cleanvision")
    arguments = parser.parse_args()
    images = drop_similar(base(arguments.images, arguments.side))
    files, planted = plant(images, arguments.copies, arguments.seed)
    print(f"{len(images):,} base images, {len(planted):,} planted copies")
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        jobs: dict[str, Callable[[], set[Pair] | None]] = {"winnow": lambda: ours(files, scratch)}
        for name in PEERS if arguments.peer else ():
            jobs[name] = lambda name=name: peer(name, arguments.peer, files, scratch)
        for tool, job in jobs.items():
            pairs, seconds = measured(job)
            if pairs is not None:
                rows[tool] = figures(pairs, planted, seconds, len(files))
    for name in next(iter(rows.values())):
        print(f"{name:<24}" + "".join(f"{rows[tool][name]:>14.3f}" for tool in rows))
    print(f"{'':<24}" + "".join(f"{tool:>14}" for tool in rows))
    result = {"images": len(images), "planted": len(planted), "side": arguments.side, "tools": rows}
    Path("benchmarks/dedup.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
