"""
An engineer with a checkpoint and a folder of photographs
=========================================================

You have a trained classifier and a folder of photographs without labels. This notebook goes from
there to a small student that runs on a device: import the checkpoint, look at the photographs,
select, look at what was selected, distill, evaluate, export, and run the exported file.

The :doc:`quickstart </quickstart>` does the same with commands in a terminal. Here every step is
a call from Python. A command and its function take the same options.

The photographs are drawn by code, so the notebook needs no data and no network. It keeps
everything in the folder ``runs/engineer`` and deletes that folder when it starts. Its figures
show how to read the results. They say nothing about real photographs.
"""

import colorsys
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

from distill import (
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    ImportTeacherConfig,
    TrainTeacherConfig,
    distill,
    evaluate,
    export,
    import_teacher,
    train_teacher,
)
from indexes import open_parts
from pipeline import SelectConfig, select

HOME = Path("runs/engineer")
shutil.rmtree(HOME, ignore_errors=True)

# %%
# What you bring
# --------------
#
# This section stands in for your own files. It draws photographs of fruit and of clutter, trains
# a classifier on labeled fruit, and then deletes the labeled photographs: only the weights and
# the class names remain. Skip it if you have a checkpoint, a folder of photographs and a labeled
# test set.

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
    """Draw `count` labeled photographs of each class, with a folder for each class."""
    for name in FRUIT:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            draw(name, rng).save(folder / name / f"{number:04d}.png")


def draw_photographs(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Draw `count` photographs without labels, of which 40 % show fruit and few show plums.

    Some are copies, some are smaller copies, and one file is damaged.
    """
    subjects = rng.choice([*FRUIT, "clutter"], count, p=[0.15, 0.12, 0.1, 0.03, 0.6])
    for number, subject in enumerate(subjects):
        path = folder / f"{2020 + number % 3}" / f"IMG_{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph = draw(subject, rng)
        photograph.save(path, quality=92)
        if number % 40 == 0:
            shutil.copy(path, path.with_stem(f"{path.stem}-copy"))
        if number % 40 == 1:
            smaller = photograph.resize((40, 40), Image.Resampling.LANCZOS)
            smaller.save(path.with_stem(f"{path.stem}-small"), quality=85)
    path.write_bytes(path.read_bytes()[:400])


rng = np.random.default_rng(0)
draw_labeled(HOME / "lost", 150, rng)
draw_labeled(HOME / "test", 50, rng)
draw_photographs(HOME / "photos", 1_000, rng)

original = train_teacher(
    TrainTeacherConfig(
        labeled=HOME / "lost",
        classes=list(FRUIT),
        builder="resnet14",
        size=16,
        epochs=4,
        batch_size=32,
        lr=0.1,
        out=HOME / "original",
    )
)
shutil.copy(HOME / "original" / "model.safetensors", HOME / "fruit.safetensors")
(HOME / "names.txt").write_text("\n".join(FRUIT) + "\n")
shutil.rmtree(HOME / "lost")
shutil.rmtree(HOME / "original")

# %%
# Import the checkpoint
# ---------------------
#
# A checkpoint holds weights only. You add what it does not say: the net, the class names in the
# order of the logits, the input size in pixels, and the mean and standard deviation that
# normalized the pixels in training. ``winnow import-teacher`` is the command. :doc:`Import a
# checkpoint </how-to/import-a-checkpoint>` covers timm, torchvision, open_clip and your own code.

teacher = import_teacher(
    ImportTeacherConfig(
        builder="resnet14",
        weights=HOME / "fruit.safetensors",
        classes=HOME / "names.txt",
        input_size=16,
        mean=original.card.mean,
        std=original.card.std,
        out=HOME / "teachers" / "fruit",
    )
)
print(teacher.card.builder, teacher.card.classes, teacher.card.input_size)

# %%
# Look at the photographs
# -----------------------
#
# Winnow reads a corpus part by part. Each sub-folder is a part. A change in one part does not
# affect the work that is already done for the others.

for part in open_parts(str(HOME / "photos")):
    print(part.name, sum(1 for _ in part), "files")

# %%
# Select
# ------
#
# ``select`` runs the teacher on every photograph and keeps the 200 that suit distillation best.
# With ``workers=0`` this process decodes the images itself. The default decodes in other processes.
# These import the main file first, so a script then needs ``if __name__ == "__main__":``.

shards = select(
    SelectConfig(corpus=str(HOME / "photos"), teacher=teacher, n=200, runs=HOME, workers=0)
)

# %%
# The funnel accounts for every file: it was kept, or it was dropped for one reason.
# :doc:`Selecting images </troubleshooting/selecting>` explains each reason.

print("in", shards.funnel["in"])
for reason, count in shards.funnel["dropped"].items():
    print(f"  {reason:20s} {-count:5d}")
print("kept", shards.funnel["kept"])

# %%
# The certificate describes the selection without any label. Compare it with the certificate of
# another selection from the same photographs. :doc:`Certificate </concepts/certificate>` explains
# all of its figures.

for name in ("frechet", "information", "unsure_frac", "soft_class_entropy", "effective_frac"):
    print(f"{name:20s} {shards.certificate[name]:.3f}")

# %%
# Look at the images
# ------------------
#
# The shards keep the bytes of each photograph. The table of the shards holds everything else: the
# key, the class that the teacher predicts, the weight and every score. The figure shows the six
# most confident and the six least confident photographs of each class.
#
# The last row has clutter among the plums. The selection takes 50 photographs of each class, but
# this folder holds only about 30 plums. The classifier has never seen clutter and is confident
# nevertheless: ``unsure_frac`` does not warn you. Look at the least confident images of every
# selection. If they do not show their class, ask for fewer images or find more photographs.

table = shards.to_pandas()
print(table.groupby("class").agg(images=("key", "size"), weight=("weight", "sum")).round(1))

figure, axes = plt.subplots(len(FRUIT), 12, figsize=(9, 3.4), layout="constrained")
for row, name in zip(axes, FRUIT, strict=True):
    ranked = table[table["class"] == name].sort_values("log_odds", ascending=False)
    chosen = [*ranked.index[:6], *ranked.index[-6:]]
    for axis, number in zip(row, chosen, strict=False):
        axis.imshow(Image.open(io.BytesIO(shards.read(number))))
    for axis in row:
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
axes[0][0].set_title("most confident", loc="left", fontsize=9)
axes[0][6].set_title("least confident", loc="left", fontsize=9)
figure.savefig(HOME / "selected.png")

# %%
# The card of the shards records the whole selection. The command ``winnow inspect`` prints the
# card:


def winnow(*words: object) -> str:
    """Run a command of winnow and return the output."""
    command = [sys.executable, "-m", "winnow", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


print(winnow("inspect", shards.directory)[:1_500], "...")

# %%
# Distill a student
# -----------------
#
# The student learns from the teacher's logits on the selected photographs. ``kd`` is plain
# distillation and adds nothing to the student. :doc:`Methods </methods/index>` compares the
# others. Sixty steps are enough for this page; a real training takes thousands.

(run,) = distill(
    DistillConfig(
        shards=shards,
        teacher=teacher,
        students=["resnet8"],
        method="kd",
        steps=60,
        batch_size=64,
        runs=HOME,
    )
)
print(run.state, run.directory.name)

# %%
# Evaluate
# --------
#
# Only this cell reads the labeled test set. ``agreement`` is the share of images for which the
# student predicts the class that the teacher predicts. The last two columns are the cost: the
# number of parameters, and of multiply-adds for one image.

comparison = evaluate(
    EvaluateConfig(
        students=[run.directory, teacher],
        labeled=HOME / "test",
        teacher=teacher,
        out=HOME / "report",
        runs=HOME,
    )
)
columns = ["top1", "agreement", "num_parameters", "num_macs"]
print(comparison.to_pandas().set_index(np.array(["student", "teacher"]))[columns].to_string())

# %%
# Export to a device
# ------------------
#
# The exported file takes pixels as a decoder gives them and returns logits. Normalization is
# inside. Winnow keeps a file only if its logits are those of the student in PyTorch. :doc:`Export
# to a device </how-to/export-to-a-device>` adds 8 bits.

exported = export(ExportConfig(student=run.directory, formats=["onnx"], runs=HOME))
for name, size in exported.files.items():
    print(f"{name:15s} {size:8,} bytes")
print(f"largest difference of a logit: {exported.parity['model.onnx']:.1e}")

# %%
# Use the exported file
# ---------------------
#
# The device needs onnxruntime and the one file. It does not need winnow, PyTorch or the teacher.
# The file also holds the class names and the size of the images.

session = onnxruntime.InferenceSession(exported.directory / "model.onnx")
facts = session.get_modelmeta().custom_metadata_map
classes, size = json.loads(facts["classes"]), json.loads(facts["geometry"])["size"]

for path in sorted((HOME / "test").glob("*/0000.png")):
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    (logits,) = session.run(["logits"], {"pixels": np.asarray(image)[None]})
    print(f"{path.parent.name:6s} is predicted as {classes[logits[0].argmax()]}")

# %%
# What to do next
# ---------------
#
# - Find out whether the selection helps: select again with ``method="random"`` and compare the
#   students. :doc:`The researcher's notebook <researcher>` does this.
# - Keep copies of your test images out of the selection: :doc:`exclude an evaluation set
#   </how-to/exclude-an-evaluation-set>`.
# - Run it as a job that survives interruptions: :doc:`the platform engineer's notebook
#   <platform_engineer>`.
