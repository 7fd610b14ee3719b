"""Turn a checkpoint and its class names into a teacher directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distill.teachers.clip import PROMPTS, load_clip
from distill.teachers.config import ImportTeacherConfig
from distill.teachers.files import class_names, read_weights
from distill.teachers.preprocessing import default_view
from indexes import artifact
from indexes.models.net import Net, build_net
from indexes.models.teacher import Teacher, TeacherError, load_teacher, save_teacher
from indexes.models.weights import load_weights

NUM_IMAGES = 2
# Both sides run the same kernels, so they differ far less; a missing layer differs far more.
MAX_LOGIT_GAP = 1e-3


def import_teacher(config: ImportTeacherConfig) -> Teacher:
    """Write the teacher directory `config.out` and open it.

    Weights may have any float type; they are never unpickled. For `open_clip:` the file is the
    whole CLIP model, whose text tower turns `classes` and `prompts` into a classifier. Input
    settings that you do not give come from the library: timm's configuration of the net, or the
    first weights that torchvision lists for it. A net of winnow or of your own needs `mean` and
    `std`, because a wrong guess would cost accuracy silently.

    Before anything is written, it raises NetError for an unknown or untrusted builder, ValueError
    if `mean`, `std` or `builder_args` cannot be read, and TeacherError for all else that does not
    fit.

    Example::

        import_teacher(
            ImportTeacherConfig(
                builder="torchvision:resnet50",
                weights="r50.safetensors",
                classes="names.txt",
                out="runs/teachers/r50",
            )
        )
    """
    weights, names = config.weights, class_names(config.classes)
    arguments = _arguments(config.builder_args)
    if not weights.is_file():
        raise TeacherError(f"there is no weights file {weights}")
    is_clip = config.builder.startswith("open_clip:")
    if config.prompts and not is_clip:
        raise TeacherError(
            f"--prompt works only with open_clip: builders, not with {config.builder}"
        )
    net = build_net(
        config.builder, num_classes=len(names), arguments=arguments, trust=config.trust_builder
    )
    view = _view(net, config)
    net.normalize(view.pop("mean"), view.pop("std"))
    record: dict[str, Any] = {"weights": weights.name, "weights_sha256": artifact.sha256(weights)}
    if is_clip:
        record["prompts"] = list(config.prompts or PROMPTS)
        load_clip(net, weights, names, record["prompts"])
    else:
        load_weights(net, read_weights(weights), weights)
    check_forward(net, view["input_size"])
    save_teacher(config.out, net, classes=names, accuracy=config.accuracy, record=record, **view)
    return load_teacher(config.out, trust_builder=config.trust_builder)


def _view(net: Net, config: ImportTeacherConfig) -> dict[str, Any]:
    """How pixels are prepared: the given settings, else those of the net's library.

    Raises TeacherError if a setting is in neither.
    """
    given = {
        "mean": _three("mean", config.mean),
        "std": _three("std", config.std),
        "input_size": config.input_size,
        "crop_frac": config.crop_frac,
        "interpolation": config.interpolation,
    }
    view = default_view(net, needs_crop=config.crop_frac is None)
    view |= {key: value for key, value in given.items() if value is not None}
    absent = [key for key in given if key not in view]
    if absent:
        raise TeacherError(
            f"{config.builder} does not say how its input is prepared: give "
            f"{' and '.join(absent)} as they were when these weights were trained"
        )
    return view


def _three(name: str, values: Sequence[float] | str | None) -> Sequence[float] | None:
    """Parse `0.5 0.5 0.5` or `0.5,0.5,0.5`; raises ValueError unless it holds three numbers."""
    if not isinstance(values, str):
        return values
    try:
        numbers = [float(word) for word in values.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise ValueError(f"--{name} takes three numbers, as in '0.49 0.48 0.45', not {values!r}")
    return numbers


def _arguments(given: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
    """The builder's arguments, parsed as a JSON object if they are text."""
    if not isinstance(given, str):
        return given
    try:
        arguments = json.loads(given)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ValueError(f"--args takes a JSON object, as in '{{\"img_size\": 32}}', not {given}")
    return arguments


def check_forward(net: Net, input_size: int) -> None:
    """Check, by running the net once, that its head is a Linear layer on its features.

    Two images of noise must give finite logits [2, C] that equal the net's own output.

    Raises TeacherError if the net does not run at `input_size` pixels, if its logits have another
    shape or are not finite, or if its output is not a Linear layer of its features.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_IMAGES, 3, input_size, input_size, generator=generator)
    net.eval()
    try:
        with torch.no_grad():
            _, _, logits_BC = net(pixels)
            direct_BC = logits_BC
            if not net.builder.startswith("open_clip:"):
                mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (net.mean, net.std))
                direct_BC = net.module((pixels - mean) / std)
    except Exception as error:
        raise TeacherError(
            f"{net.builder} does not run at {input_size} pixels: {error}. Give the input size at "
            "which it was trained, or its builder arguments (for a ViT: img_size=..., "
            "patch_size=...)"
        ) from error
    if tuple(logits_BC.shape) != (NUM_IMAGES, net.num_classes):
        raise TeacherError(
            f"{net.builder} gives logits of shape {list(logits_BC.shape)}, not "
            f"{[NUM_IMAGES, net.num_classes]}: the builder must return one logit per class"
        )
    if not torch.isfinite(logits_BC).all():
        raise TeacherError(
            f"{net.builder} gives logits that are not finite with these weights: the file holds "
            "infinity or NaN, or it belongs to another net"
        )
    scale = direct_BC.abs().amax().clamp_min(1.0)
    if not torch.isfinite(direct_BC).all() or (
        (logits_BC - direct_BC).abs().amax() > MAX_LOGIT_GAP * scale
    ):
        raise TeacherError(
            f"the output of {net.builder} is not a Linear layer of its features: winnow cannot "
            "use a net that computes anything after its last Linear layer"
        )
