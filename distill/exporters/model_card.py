"""The MODEL_CARD.md of an export: description, usage, training, data, results and limitations.

Unknown facts are left out. The card says so if a reader would miss them.
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
    image = ImageOps.exif_transpose(Image.open(path))  # turn it upright
    if image.has_transparency_data:  # blend it with white
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB")  # scale 16-bit images to 8 bits before this line
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
    """The facts for a model card. `bytes_of` and `parity` are by file name.

    `record`: the training record of the student. `origins`: the shard sets that it was trained on.
    `evaluation`: its evaluation.json. `gain`: what the 8-bit file gains and loses.
    """

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
    """Write the model card as Markdown."""
    sections = {
        "Description": _summary(facts),
        "Usage": _usage(facts),
        "Training": _training(facts),
        "Training data": _data(facts),
        "Results": _results(facts),
        "Difference from PyTorch": _parity(facts),
        "Limitations": _limits(facts),
    }
    blocks = [f"# {facts.name}\n"]
    for title, lines in sections.items():
        text = "\n".join(lines)
        if text:
            blocks.append(f"## {title}\n\n{text}\n")
    return "\n".join(blocks)


def architecture(card: Card) -> str:
    """Describe the net; a reused classifier is named, because the builder's name hides it."""
    builder = card.builder.removeprefix("reused:")
    is_reused = builder != card.builder
    inner = card.arguments.get("arguments", {}) if is_reused else card.arguments
    text = f"`{builder}`" + "".join(f", {key}={value}" for key, value in inner.items())
    if is_reused:
        text += ", a projector and the teacher's classifier, as one net"
    return text


def _summary(facts: CardFacts) -> Iterator[str]:
    card = facts.card
    size, num = card.input_size, len(card.classes)
    yield "An image classifier" + (", distilled from a teacher." if _inputs(facts) else ".")
    yield ""
    yield f"- Architecture: {architecture(card)}"
    yield f"- Parameters: {facts.num_parameters:,}"
    yield f"- Input: `pixels`, uint8 [batch, {size}, {size}, 3], RGB; any batch size"
    yield (
        f"- Preparation: turn the image upright, resize its shorter side to "
        f"{round(size / card.crop_frac)} pixels ({card.interpolation}), and crop the central "
        f"{size} x {size} pixels. Scaling and normalization are inside the file"
    )
    yield f"- Output: `logits`, float32 [batch, {num}], before softmax"
    named = "; ".join(_inline(name) for name in card.classes[:NUM_NAMED])
    more = f"; and {num - NUM_NAMED:,} more; the file holds all names" if num > NUM_NAMED else ""
    yield f"- Classes ({num:,}): {named}{more}"
    for name, size in facts.bytes_of.items():
        yield f"- `{name}`: {size / 1e6:.2f} MB"
    yield f"- Digest of the student: `{card.digest}`"


def _usage(facts: CardFacts) -> Iterator[str]:
    yield "The file holds the class names and the geometry. This function prepares an image:"
    yield from ("", "```python", *PREPARE.splitlines(), "```")
    for name, (runtime, code) in SAMPLES.items():
        if name in facts.bytes_of:
            yield from ("", f"Run `{name}` with {runtime}:", "")
            yield from ("```python", *code.splitlines(), "```")
    if facts.gain is not None:
        yield from ("", "Run `model.int8.onnx` in the same way as `model.onnx`.")


def _inputs(facts: CardFacts) -> Mapping[str, Any]:
    """Return the inputs of the distillation; empty if the net was not distilled."""
    inputs = facts.record.get("inputs")
    if isinstance(inputs, Mapping) and "teacher_digest" in inputs:
        return inputs
    return {}


def _training(facts: CardFacts) -> Iterator[str]:
    inputs = _inputs(facts)
    if "labeled" in (facts.record.get("inputs") or {}):
        yield "- Trained with cross-entropy on labeled images by `winnow train-teacher`"
    if not inputs:
        return
    yield f"- Distillation method: `{inputs.get('method', 'unknown')}`"
    for title, key in (("Settings", "config"), ("Training recipe", "recipe")):
        if inputs.get(key):
            yield f"- {title}: {_settings(inputs[key])}"
    if inputs.get("mix_frac"):
        yield f"- Fraction of each batch from the second shard set: {inputs['mix_frac']}"
    if inputs.get("teacher_digest"):
        yield f"- Digest of the teacher: `{inputs['teacher_digest']}`"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _data(facts: CardFacts) -> Iterator[str]:
    if not facts.origins:
        yield "Unknown: the exported directory has no record of training on shards."
    for number, origin in enumerate(facts.origins):
        if number:
            yield ""
        yield from _origin(origin)


def _origin(origin: Origin) -> Iterator[str]:
    summary = origin.summary
    if "name" not in summary:
        yield f"Shards with digest `{origin.digest}`, which were not found at the time of export."
        return
    yield f"Shards `{summary['name']}`, digest `{origin.digest}`:"
    yield ""
    if "num_samples" in summary:
        yield f"- Images: {summary['num_samples']:,}"
    if "corpus" in summary:
        yield f"- Corpus: {_inline(str(summary['corpus']))}"
    if "method" in summary:
        yield f"- Selection method: `{summary['method']}`"
    if summary.get("config"):
        yield f"- Settings: {_settings(summary['config'])}"
    if isinstance(summary.get("generator"), Mapping):
        yield f"- Synthetic images from a generator: {_settings(summary['generator'])}"
    teacher = summary.get("teacher", {})
    if teacher:
        known = [f"`{teacher[key]}`" for key in ("name", "builder") if teacher.get(key)]
        yield "- Labeled by the teacher " + ", ".join([*known, f"digest `{teacher['digest']}`"])
    if "funnel" in summary:
        yield from ("- Images after each step of the selection:", "", "```")
        yield from (*funnel_lines(summary["funnel"]), "```")


def _results(facts: CardFacts) -> Iterator[str]:
    agreement = facts.record.get("agreement")
    if agreement is not None:
        yield (
            f"- Agreement with the teacher: {100 * agreement:.1f} % on images of the shards that "
            "were held out from training"
        )
    evaluation = facts.evaluation
    if evaluation is not None:
        labeled = _inline("/".join(str(evaluation["labeled"]).rstrip("/").split("/")[-2:]))
        num = evaluation["num_images"]
        yield f"- Top-1 accuracy on {labeled}: {100 * evaluation['top1']:.2f} % of {num:,} images"
        if evaluation.get("top5") is not None:
            yield f"- Top-5 accuracy on these images: {100 * evaluation['top5']:.2f} %"
        if evaluation.get("agreement") is not None:
            agreement = 100 * evaluation["agreement"]
            yield f"- Agreement with the teacher on these images: {agreement:.2f} %"
        known = sorted((v, k) for k, v in evaluation.get("per_class", {}).items() if v is not None)
        if len(known) > 1:
            weakest = "; ".join(f"{_inline(k)} {100 * v:.1f} %" for v, k in known[:3])
            yield f"- Weakest classes: {weakest}"
    elif facts.card.accuracy is not None:
        yield f"- Accuracy stated by the vendor: {100 * facts.card.accuracy:.2f} %"
    else:
        yield "- Accuracy on labeled images: not measured"
    if facts.gain is not None:
        gain = facts.gain
        yield (
            f"- 8 bits ({gain.kind}): the same class as in float32 for {100 * gain.agreement:.1f} "
            f"% of {gain.num_measured:,} images, {gain.int8_bytes / gain.float_bytes:.2f} times "
            f"the bytes, {gain.speedup:.2f} times the images per second "
            f"({gain.int8_images_per_second:,.0f} against {gain.float_images_per_second:,.0f}, "
            "measured with onnxruntime, one image at a time, on one thread of the machine that "
            "exported the files)"
        )


def _parity(facts: CardFacts) -> Iterator[str]:
    yield "The largest difference between the logits of the file and those of the student in"
    yield f"PyTorch, relative to the largest logit, on {facts.parity_images}:"
    yield ""
    yield from (f"- `{name}`: {value:.2g}" for name, value in facts.parity.items())


def _limits(facts: CardFacts) -> Iterator[str]:
    if _inputs(facts):
        yield (
            "- The student learned from the predictions of a teacher and from no human label. It "
            "repeats the teacher's mistakes and adds its own."
        )
    yield (
        "- The licenses of the training images are not recorded. Ask the holders of the images "
        "before you publish the model."
    )
    if facts.evaluation is None:
        yield "- No accuracy was measured on labeled images. Measure it before you use the model."
    yield (
        f"- The model knows {len(facts.card.classes):,} classes and assigns one of them to every "
        "image, even to an image that shows none of them."
    )
    if facts.gain is not None and facts.gain.kind == "static":
        yield (
            "- The sums of the 8-bit file may saturate on x86 processors without VNNI. Measure "
            "its accuracy on the device."
        )
    yield (
        "- Libraries resize images slightly differently, which changes the logits slightly. The "
        "results are for torch's antialiased resize; Pillow's pixels differ from it by at most two "
        "of 256 levels."
    )


def _inline(text: str) -> str:
    """Escape text for one line of Markdown; class names and paths are not trusted."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|" else letter for letter in plain)
