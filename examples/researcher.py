"""
A researcher who compares methods
=================================

You want to know which images to select and how to distill from them. This notebook compares three
selections and two methods of distillation with two seeds each. It shows the certificates of the
selections, the images that they share, and the accuracy of the students.

**The figures on this page mean nothing.** The world has four classes, a thousand images of 48
pixels and trainings of a few seconds. Differences of several points between two seeds are normal
here. The page shows the way. :doc:`Results </results>` has figures of real images, and
:doc:`Benchmarks </benchmarks>` shows how to repeat them on your data.

The images are drawn by code, so the notebook needs no data and no network. It keeps everything in
the folder ``runs/researcher`` and deletes that folder when it starts.
"""

import colorsys
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from distill import (
    DistillConfig,
    EvaluateConfig,
    TrainTeacherConfig,
    distill,
    evaluate,
    list_methods,
    train_teacher,
)
from pipeline import SelectConfig, select

HOME = Path("runs/researcher")
shutil.rmtree(HOME, ignore_errors=True)

# %%
# Draw a world
# ------------
#
# A controlled experiment knows the data that a real teacher has lost. Here it is drawn: labeled
# fruit for the teacher, labeled fruit for the test, and a corpus of which 40 % shows fruit.
# ``train_teacher`` is made for such experiments.

FRUIT = {"apple": (0.0, 1.0), "lemon": (0.14, 1.5), "lime": (0.3, 1.3), "plum": (0.8, 0.8)}
"""Class -> hue in 0-1, and width relative to height."""


def draw(subject: str, rng: np.random.Generator, side: int = 48) -> Image.Image:
    """Draw a fruit, or clutter for any other subject, on a plain background with noise."""
    image = Image.new("RGB", (side, side), tuple(rng.integers(40, 216, 3).tolist()))
    pen = ImageDraw.Draw(image)
    if subject in FRUIT:
        hue, aspect = FRUIT[subject]
        saturation, value = rng.uniform(0.4, 1.0, 2)
        color = colorsys.hsv_to_rgb(hue + rng.normal(0, 0.04), saturation, value)
        x, y = rng.uniform(0.4, 0.6, 2) * side
        height = rng.uniform(0.15, 0.3) * side
        width = height * aspect * rng.uniform(0.9, 1.1)
        ink = tuple(round(255 * channel) for channel in color)
        pen.ellipse((x - width, y - height, x + width, y + height), fill=ink)
    else:
        for _ in range(rng.integers(2, 9)):
            ink = tuple(rng.integers(0, 256, 3).tolist())
            pen.line(rng.uniform(0, side, 4).tolist(), fill=ink, width=int(rng.integers(1, 9)))
    noise = rng.normal(0, 12, (side, side, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def draw_labeled(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Draw `count` labeled images of each class, with a folder for each class."""
    for name in FRUIT:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            draw(name, rng).save(folder / name / f"{number:04d}.png")


def draw_corpus(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Draw `count` images without labels."""
    folder.mkdir()
    subjects = rng.choice([*FRUIT, "clutter"], count, p=[0.1, 0.1, 0.1, 0.1, 0.6])
    for number, subject in enumerate(subjects):
        draw(subject, rng).save(folder / f"{number:04d}.jpg", quality=92)


rng = np.random.default_rng(1)
draw_labeled(HOME / "lost", 150, rng)
draw_labeled(HOME / "test", 60, rng)
draw_corpus(HOME / "corpus", 1_000, rng)

teacher = train_teacher(
    TrainTeacherConfig(
        labeled=HOME / "lost",
        classes=list(FRUIT),
        builder="resnet14",
        size=16,
        epochs=4,
        batch_size=32,
        lr=0.1,
        out=HOME / "teachers" / "fruit",
    )
)

# %%
# Select by three methods
# -----------------------
#
# ``random`` and ``entropy_top`` are controls: a selection is worth something if it beats a random
# draw of the same size. The first call runs the teacher on the corpus. The others reuse its
# :doc:`embeddings </concepts/embeddings>` and compute only what differs.
#
# This corpus is too small for the probes by which the method ``winnow`` finds hard images: they
# need 1,280 candidates. Here it ranks by confidence and by the distance to the teacher's
# BatchNorm statistics.
#
# With ``workers=0`` this process decodes the images itself. The default decodes in other processes.
# These import the main file first, so a script then needs ``if __name__ == "__main__":``.

selections = {
    method: select(
        SelectConfig(
            corpus=str(HOME / "corpus"),
            teacher=teacher,
            method=method,
            n=160,
            runs=HOME,
            workers=0,
        )
    )
    for method in ("winnow", "random", "entropy_top")
}

# %%
# Compare the certificates
# ------------------------
#
# A certificate needs no label and no training, so it is the first thing to compare.
# :doc:`Certificate </concepts/certificate>` says which direction is better for each figure, and
# which figures predicted the accuracy of students.

certificates = pd.DataFrame({name: shards.certificate for name, shards in selections.items()})
print(certificates.round(3).to_string())

# %%
# Compare the images
# ------------------
#
# The overlap is the share of the images of one selection that are also in the other. Two random
# draws of 160 images out of 1,000 share 16 % on average. A key is unique within its part of the
# corpus, so the part belongs to the identity of an image.

tables = {name: shards.to_pandas() for name, shards in selections.items()}
images = {name: set(zip(table.source, table.key, strict=True)) for name, table in tables.items()}
overlap = pd.DataFrame(
    {a: {b: len(images[a] & images[b]) / len(images[b]) for b in images} for a in images}
)
print((100 * overlap).round(1).to_string())

# %%
# The side-car table also shows what the teacher thinks of each selection:

confidence = pd.concat(tables, names=["selection"]).groupby(["selection", "class"])
print(confidence.log_odds.agg(["size", "median"]).round(2).unstack().to_string())

# %%
# Choose the methods of distillation
# ----------------------------------
#
# ``list_methods`` gives what the command ``winnow methods`` prints. You can combine any method
# with any selection.

for entry in list_methods():
    print(f"{entry.name:8s} {entry.summary}")

# %%
# Train every cell
# ----------------
#
# One factor changes at a time. First the selection changes and the method stays ``kd``. Then the
# method of distillation changes and the images stay those of ``winnow``. Everything else is
# equal, above all the number of steps. Each cell has two seeds.

STEPS, SEEDS = 36, (0, 1)
CELLS = [
    ("winnow", "kd"),
    ("random", "kd"),
    ("entropy_top", "kd"),
    ("winnow", "winnow"),
]

rows = []
for selection, method in CELLS:
    for seed in SEEDS:
        (run,) = distill(
            DistillConfig(
                shards=selections[selection],
                teacher=teacher,
                students=["resnet8"],
                method=method,
                steps=STEPS,
                batch_size=32,
                seed=seed,
                runs=HOME,
            )
        )
        rows.append((selection, method, seed, str(run.directory)))
students = pd.DataFrame(rows, columns=["selection", "method", "seed", "directory"])

# %%
# Measure all students in one pass
# --------------------------------
#
# The test set is read once, after all trainings have ended. No choice above depends on it. The
# table has the mean, the lowest and the highest accuracy of each cell in percent. Look at the
# spread over the seeds first: a difference that is smaller than the spread is not a finding.

comparison = evaluate(
    EvaluateConfig(
        students=[*students.directory, teacher],
        labeled=HOME / "test",
        teacher=teacher,
        out=HOME / "report",
        runs=HOME,
    )
)
measured = comparison.to_pandas().set_index("directory")
students = students.join(measured[["top1", "agreement", "num_macs"]], on="directory")
cells = students.groupby(["selection", "method"], sort=False)
summary = cells.top1.agg(["mean", "min", "max"]).mul(100).round(1)
summary["num_macs"] = cells.num_macs.first()
print(summary.to_string())
teacher_top1 = 100 * measured.top1[str(teacher.directory)]
print(f"teacher {teacher_top1:.1f}")

# %%
# Plot
# ----
#
# Each dot is one student. The line is the mean of a cell.

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for place, (_, cell) in enumerate(cells):
    axis.plot([place] * len(cell), 100 * cell.top1, "o", color="tab:blue", alpha=0.6)
    mean = 100 * cell.top1.mean()
    axis.plot([place - 0.2, place + 0.2], [mean, mean], color="tab:blue")
axis.axhline(teacher_top1, color="gray", linestyle=":", label="teacher")
axis.set_xticks(range(len(CELLS)), ["\n".join(cell) for cell in CELLS])
axis.set(xlabel="selection, method of distillation", ylabel="top-1 accuracy in %")
axis.legend()
figure.savefig(HOME / "accuracy.png")

# %%
# From here to a finding
# ----------------------
#
# - Take a corpus of at least a hundred thousand images, thousands of steps, and five seeds.
# - Compare methods at the same number of steps and with their own optimizer: ``winnow`` trains
#   with Muon by default, the others with SGD. :doc:`The page of each method </methods/index>`
#   names its preset.
# - Compare the cost too. ``winnow`` adds a projector to the student, which shows in ``num_macs``.
# - Write a method of your own in one file: :doc:`Extend winnow </extend/index>`.
