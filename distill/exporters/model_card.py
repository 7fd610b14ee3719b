"""MODEL_CARD.md of an exported student: what it is, how it is run, what it was made of, its limits.

A section of which nothing is known is left out, or says so where a reader would miss it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.exporters.quantize import Gain
from distill.provenance import Origin
from indexes.command.describe import funnel_lines
from indexes.models.teacher import Card

PREPARE = """\
import numpy as np
from PIL import Image, ImageOps


def prepare(path, geometry):
    image = ImageOps.exif_transpose(Image.open(path))  # upright
    if image.has_transparency_data:  # on white
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB")  # of 8 bits; scale 16 bits to that before
    size, shorter = geometry["size"], geometry["shorter_side"]
    scaled = [shorter * side // min(image.size) for side in image.size]
    image = image.resize(scaled, Image.Resampling[geometry["interpolation"].upper()])
    left, top = (round((side - size) / 2) for side in image.size)
    return np.array(image.crop((left, top, left + size, top + size)))[None]  # uint8 [1, S, S, 3]
"""
ONNX = """\
import json
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
pixels = prepare("photo.jpg", json.loads(facts["geometry"]))
logits = session.run(["logits"], {"pixels": pixels})[0]
print(json.loads(facts["classes"])[logits[0].argmax()])
"""
PT2 = """\
import json
import torch

facts = {"classes": "", "geometry": ""}
model = torch.export.load("model.pt2", extra_files=facts).module()
pixels = prepare("photo.jpg", json.loads(facts["geometry"]))
logits = model(torch.from_numpy(pixels))
print(json.loads(facts["classes"])[logits[0].argmax()])
"""
SAMPLES = {"model.onnx": ("onnxruntime", ONNX), "model.pt2": ("PyTorch", PT2)}
NUM_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a model card is written from. `bytes_of` and `parity` are by file name."""

    name: str
    card: Card
    num_parameters: int
    record: Mapping[str, Any]
    origins: Sequence[Origin]
    evaluation: Mapping[str, Any] | None
    bytes_of: Mapping[str, int]
    parity: Mapping[str, float]
    parity_images: str
    gain: Gain | None


def write(facts: CardFacts) -> str:
    """The card as Markdown."""
    sections = {
        "What it is": _summary(facts),
        "How to run it": _usage(facts),
        "How it was trained": _training(facts),
        "What it was trained on": _data(facts),
        "Figures": _figures(facts),
        "Do the files give the student's logits": _parity(facts),
        "Known limits": _limits(facts),
    }
    blocks = [f"# {facts.name}\n"]
    for title, lines in sections.items():
        text = "\n".join(lines)
        if text:
            blocks.append(f"## {title}\n\n{text}\n")
    return "\n".join(blocks)


def architecture(card: Card) -> str:
    """The net in words; a reused classifier is named, which a builder's name hides."""
    builder = card.builder.removeprefix("reused:")
    is_reused = builder != card.builder
    inner = card.arguments.get("arguments", {}) if is_reused else card.arguments
    text = f"`{builder}`" + "".join(f", {key}={value}" for key, value in inner.items())
    if is_reused:
        text += ", a projector and its teacher's own classifier, as one net"
    return text


def _summary(facts: CardFacts) -> Iterator[str]:
    card = facts.card
    size, num = card.input_size, len(card.classes)
    yield "An image classifier" + (", distilled from a larger teacher." if _inputs(facts) else ".")
    yield ""
    yield f"- Net: {architecture(card)}"
    yield f"- Parameters: {facts.num_parameters:,}"
    yield f"- Input: `pixels`, uint8 [batch, {size}, {size}, 3], RGB; any batch"
    yield (
        f"- Preparation: upright, shorter side to {round(size / card.crop_frac)} pixels "
        f"({card.interpolation}), then the central {size} x {size}. Scaling and normalization "
        "are inside the file"
    )
    yield f"- Output: `logits`, float32 [batch, {num}], before softmax"
    named = ", ".join(_inline(name) for name in card.classes[:NUM_NAMED])
    more = f", and {num - NUM_NAMED:,} more, all inside the file" if num > NUM_NAMED else ""
    yield f"- Classes ({num:,}): {named}{more}"
    for name, size in facts.bytes_of.items():
        yield f"- `{name}`: {size / 1e6:.2f} MB"
    yield f"- Digest of the student: `{card.digest}`"


def _usage(facts: CardFacts) -> Iterator[str]:
    yield "Both the class names and the preparation are read from the file itself."
    yield from ("", "```python", *PREPARE.splitlines(), "```")
    for name, (runtime, code) in SAMPLES.items():
        if name in facts.bytes_of:
            yield from ("", f"`{name}` by {runtime}:", "", "```python", *code.splitlines(), "```")
    if facts.gain is not None:
        yield from ("", "`model.int8.onnx` is run as `model.onnx` is.")


def _inputs(facts: CardFacts) -> Mapping[str, Any]:
    """The inputs of a distillation; empty for a net that was trained on labels or imported."""
    inputs = facts.record.get("inputs")
    if isinstance(inputs, Mapping) and "teacher_digest" in inputs:
        return inputs
    return {}


def _training(facts: CardFacts) -> Iterator[str]:
    inputs = _inputs(facts)
    if "labeled" in (facts.record.get("inputs") or {}):
        yield "- By cross-entropy on the labels of images, by `winnow train-teacher`"
    if not inputs:
        return
    yield f"- Method of distillation: `{inputs.get('method', 'not known')}`"
    for title, key in (("Its settings", "config"), ("Training", "recipe")):
        if inputs.get(key):
            yield f"- {title}: {_settings(inputs[key])}"
    if inputs.get("mix_frac"):
        yield f"- Share of the second set of images in each batch: {inputs['mix_frac']}"
    if inputs.get("teacher_digest"):
        yield f"- Digest of the teacher: `{inputs['teacher_digest']}`"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _data(facts: CardFacts) -> Iterator[str]:
    if not facts.origins:
        yield "Not known: the directory that was exported has no record of a training on shards."
    for number, origin in enumerate(facts.origins):
        if number:
            yield ""
        yield from _origin(origin)


def _origin(origin: Origin) -> Iterator[str]:
    summary = origin.summary
    if "name" not in summary:
        yield f"A set of shards that was not found again, of digest `{origin.digest}`."
        return
    yield f"Shards `{summary['name']}`, digest `{origin.digest}`:"
    yield ""
    if "num_samples" in summary:
        yield f"- Images: {summary['num_samples']:,}"
    if "corpus" in summary:
        yield f"- Taken from: {_inline(str(summary['corpus']))}"
    if "method" in summary:
        yield f"- Method of selection: `{summary['method']}`"
    if summary.get("config"):
        yield f"- Its settings: {_settings(summary['config'])}"
    if isinstance(summary.get("generator"), Mapping):
        yield f"- Synthetic, by a generator: {_settings(summary['generator'])}"
    teacher = summary.get("teacher", {})
    if teacher:
        known = [f"`{teacher[key]}`" for key in ("name", "builder") if teacher.get(key)]
        yield "- Labeled by the teacher " + ", ".join([*known, f"digest `{teacher['digest']}`"])
    if "funnel" in summary:
        yield from ("- From the first look to what was kept:", "", "```")
        yield from (*funnel_lines(summary["funnel"]), "```")


def _figures(facts: CardFacts) -> Iterator[str]:
    agreement = facts.record.get("agreement")
    if agreement is not None:
        yield (
            f"- Agreement with the teacher: {100 * agreement:.1f} % of images of its shards that "
            "were held out of the training"
        )
    evaluation = facts.evaluation
    if evaluation is not None:
        where = _inline("/".join(str(evaluation["labeled"]).rstrip("/").split("/")[-2:]))
        num = evaluation["num_images"]
        yield f"- Top-1 on {where}: {100 * evaluation['top1']:.2f} % of {num:,} images"
        if evaluation.get("top5") is not None:
            yield f"- Top-5 there: {100 * evaluation['top5']:.2f} %"
        if evaluation.get("agreement") is not None:
            yield f"- Agreement with the teacher there: {100 * evaluation['agreement']:.2f} %"
        known = sorted((v, k) for k, v in evaluation.get("per_class", {}).items() if v is not None)
        if len(known) > 1:
            weakest = ", ".join(f"{_inline(k)} {100 * v:.1f} %" for v, k in known[:3])
            yield f"- Weakest classes there: {weakest}"
    elif facts.card.accuracy is not None:
        yield f"- Accuracy as its vendor states it: {100 * facts.card.accuracy:.2f} %"
    else:
        yield "- Accuracy on labeled images: not measured"
    if facts.gain is not None:
        gain = facts.gain
        yield (
            f"- 8 bits ({gain.kind}): the same class as in float32 for {100 * gain.agreement:.1f} "
            f"% of {gain.num_measured:,} images, {gain.int8_bytes / gain.float_bytes:.2f} of the "
            f"bytes, {gain.speedup:.2f} of the images per second "
            f"({gain.int8_images_per_second:,.0f} "
            f"against {gain.float_images_per_second:,.0f}; onnxruntime, one image at a time, one "
            "thread of the machine that exported it)"
        )


def _parity(facts: CardFacts) -> Iterator[str]:
    yield f"Largest difference of a logit from PyTorch's, relative, on {facts.parity_images}:"
    yield ""
    yield from (f"- `{name}`: {value:.2g}" for name, value in facts.parity.items())


def _limits(facts: CardFacts) -> Iterator[str]:
    if _inputs(facts):
        yield (
            "- It learned from a teacher's predictions and from no human label: it repeats its "
            "teacher's mistakes, and adds its own."
        )
    yield (
        "- The licences of the images that it was trained on are not known here; ask whoever "
        "holds them before you publish it."
    )
    if facts.evaluation is None:
        yield "- No accuracy was measured on labeled images: measure it before you rely on it."
    yield (
        f"- It knows {len(facts.card.classes):,} classes and puts every image into one of them, "
        "also one that shows none."
    )
    if facts.gain is not None and facts.gain.kind == "static":
        yield (
            "- In 8 bits sums may saturate on x86 processors without VNNI: measure it on the "
            "device."
        )
    yield (
        "- Another library's resize gives slightly other pixels, and so slightly other logits: "
        "the figures are of torch's antialiased one, Pillow's lies within two levels of 256 of it."
    )


def _inline(text: str) -> str:
    """Untrusted text for one line of Markdown: class names and paths come from anywhere."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|" else letter for letter in plain)
