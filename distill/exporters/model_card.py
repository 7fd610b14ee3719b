"""MODEL_CARD.md of an exported student: what it is, how it is run, what it was made of, its limits.

A section of which nothing is known is left out, or says so where a reader would miss it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.exporters.quantize import Gain
from distill.provenance import Origin
from indexes.describe import funnel_lines
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
    """All that a card is written from. `bytes_of` and `parity` are by file name."""

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


def write(told: CardFacts) -> str:
    """The card as Markdown."""
    sections = {
        "What it is": _what(told),
        "How to run it": _how(told),
        "How it was trained": _method(told),
        "What it was trained on": _images(told),
        "Figures": _figures(told),
        "Do the files answer as the student does": _parity(told),
        "Known limits": _limits(told),
    }
    blocks = [f"# {told.name}\n"]
    for title, lines in sections.items():
        text = "\n".join(lines)
        if text:
            blocks.append(f"## {title}\n\n{text}\n")
    return "\n".join(blocks)


def architecture(card: Card) -> str:
    """The net in words: a reused classifier is told, which a builder's name hides."""
    builder = card.builder.removeprefix("reused:")
    said = {**card.arguments}
    inner = said.get("arguments", {}) if card.builder != builder else said
    text = f"`{builder}`" + "".join(f", {key}={value}" for key, value in inner.items())
    if card.builder != builder:
        text += ", a projector and its teacher's own classifier, as one net"
    return text


def _what(told: CardFacts) -> Iterator[str]:
    card = told.card
    size, num = card.input_size, len(card.classes)
    yield "An image classifier" + (", distilled from a larger teacher." if _inputs(told) else ".")
    yield ""
    yield f"- Net: {architecture(card)}"
    yield f"- Parameters: {told.num_parameters:,}"
    yield f"- Input: `pixels`, uint8 [batch, {size}, {size}, 3], RGB; any batch"
    yield (
        f"- Preparation: upright, shorter side to {round(size / card.crop_frac)} pixels "
        f"({card.interpolation}), then the central {size} x {size}. Scaling and normalization "
        "are inside the file"
    )
    yield f"- Output: `logits`, float32 [batch, {num}], before softmax"
    named = ", ".join(_inline(one) for one in card.classes[:NUM_NAMED])
    more = f", and {num - NUM_NAMED:,} more, all inside the file" if num > NUM_NAMED else ""
    yield f"- Classes ({num:,}): {named}{more}"
    for name, size in told.bytes_of.items():
        yield f"- `{name}`: {size / 1e6:.2f} MB"
    yield f"- Digest of the student: `{card.digest}`"


def _how(told: CardFacts) -> Iterator[str]:
    yield "Both the class names and the preparation are read from the file itself."
    yield from ("", "```python", *PREPARE.splitlines(), "```")
    for name, (runtime, code) in SAMPLES.items():
        if name in told.bytes_of:
            yield from ("", f"`{name}` by {runtime}:", "", "```python", *code.splitlines(), "```")
    if told.gain is not None:
        yield from ("", "`model.int8.onnx` is run as `model.onnx` is.")


def _inputs(told: CardFacts) -> Mapping[str, Any]:
    """What a distillation was given; of a net that was trained on labels, or imported, nothing."""
    inputs = told.record.get("inputs")
    if isinstance(inputs, Mapping) and "teacher_digest" in inputs:
        return inputs
    return {}


def _method(told: CardFacts) -> Iterator[str]:
    inputs = _inputs(told)
    if "labeled" in (told.record.get("inputs") or {}):
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


def _images(told: CardFacts) -> Iterator[str]:
    if not told.origins:
        yield "Not known: the directory that was exported has no record of a training on shards."
    for number, origin in enumerate(told.origins):
        if number:
            yield ""
        yield from _origin(origin)


def _origin(origin: Origin) -> Iterator[str]:
    said = origin.summary
    if "name" not in said:
        yield f"A set of shards that was not found again, of digest `{origin.digest}`."
        return
    yield f"Shards `{said['name']}`, digest `{origin.digest}`:"
    yield ""
    if "num_samples" in said:
        yield f"- Images: {said['num_samples']:,}"
    if "corpus" in said:
        yield f"- Taken from: {_inline(str(said['corpus']))}"
    if "method" in said:
        yield f"- Method of selection: `{said['method']}`"
    if said.get("config"):
        yield f"- Its settings: {_settings(said['config'])}"
    if isinstance(said.get("generator"), Mapping):
        yield f"- Painted by a generator: {_settings(said['generator'])}"
    teacher = said.get("teacher", {})
    if teacher:
        known = [f"`{teacher[key]}`" for key in ("name", "builder") if teacher.get(key)]
        yield "- Labeled by the teacher " + ", ".join([*known, f"digest `{teacher['digest']}`"])
    if "funnel" in said:
        yield from ("- From the first look to what was kept:", "", "```")
        yield from (*funnel_lines(said["funnel"]), "```")


def _figures(told: CardFacts) -> Iterator[str]:
    agreement = told.record.get("agreement")
    if agreement is not None:
        yield (
            f"- Agreement with the teacher: {100 * agreement:.1f} % of images of its shards that "
            "were held out of the training"
        )
    found = told.evaluation
    if found is not None:
        where = _inline("/".join(str(found["labeled"]).rstrip("/").split("/")[-2:]))
        yield f"- Top-1 on {where}: {100 * found['top1']:.2f} % of {found['num_images']:,} images"
        if found.get("top5") is not None:
            yield f"- Top-5 there: {100 * found['top5']:.2f} %"
        if found.get("agreement") is not None:
            yield f"- Agreement with the teacher there: {100 * found['agreement']:.2f} %"
        known = sorted((v, k) for k, v in found.get("per_class", {}).items() if v is not None)
        if len(known) > 1:
            weakest = ", ".join(f"{_inline(k)} {100 * v:.1f} %" for v, k in known[:3])
            yield f"- Weakest classes there: {weakest}"
    elif told.card.accuracy is not None:
        yield f"- Accuracy as its vendor states it: {100 * told.card.accuracy:.2f} %"
    else:
        yield "- Accuracy on labeled images: not measured"
    if told.gain is not None:
        gain = told.gain
        ratio = gain.int8_images_per_second / gain.float_images_per_second
        yield (
            f"- 8 bits ({gain.kind}): the same class as in float32 for {100 * gain.agreement:.1f} "
            f"% of {gain.num_measured:,} images, {gain.int8_bytes / gain.float_bytes:.2f} of the "
            f"bytes, {ratio:.2f} of the images per second ({gain.int8_images_per_second:,.0f} "
            f"against {gain.float_images_per_second:,.0f}; onnxruntime, one image at a time, one "
            "thread of the machine that exported it)"
        )


def _parity(told: CardFacts) -> Iterator[str]:
    yield f"Largest difference of a logit from PyTorch's, relative, on {told.parity_images}:"
    yield ""
    yield from (f"- `{name}`: {value:.2g}" for name, value in told.parity.items())


def _limits(told: CardFacts) -> Iterator[str]:
    if _inputs(told):
        yield (
            "- It learned from a teacher's answers and from no human label: it repeats its "
            "teacher's mistakes, and adds its own."
        )
    yield (
        "- The licences of the images that it was trained on are not known here; ask whoever "
        "holds them before you publish it."
    )
    if told.evaluation is None:
        yield "- No accuracy was measured on labeled images: measure it before you rely on it."
    yield (
        f"- It knows {len(told.card.classes):,} classes and puts every image into one of them, "
        "also one that shows none."
    )
    if told.gain is not None and told.gain.kind == "static":
        yield (
            "- In 8 bits sums may saturate on x86 processors without VNNI: measure it on the "
            "device."
        )
    yield (
        "- Another library's resize gives slightly other pixels, and so slightly other answers: "
        "the figures are of torch's antialiased one, Pillow's lies within two levels of 256 of it."
    )


def _inline(text: str) -> str:
    """Untrusted text for one line of Markdown: class names and paths come from anywhere."""
    plain = "".join(one if one.isprintable() else " " for one in text)
    return "".join(f"\\{one}" if one in "\\`*_[]<>#|" else one for one in plain)
