"""From a vendor's weights and class names to a teacher directory; the body of `import-teacher`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexes import artifact
from indexes.models.net import IMAGENET_MEAN, IMAGENET_STD, STUDENTS, Net, NetError, build_net
from indexes.models.teacher import Card, TeacherError, load_weights, read_safetensors, save_teacher

if TYPE_CHECKING:
    from torch import Tensor

PROMPTS = ("a photo of a {}.",)
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "_orig_mod.")
NUM_TRIED = 2
# A net and its tapped copy run the same kernels; a forgotten layer moves logits far more.
MAX_LOGIT_GAP = 1e-3


def import_teacher(
    builder: str,
    weights: str | Path,
    classes: str | Path,
    out: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    crop_frac: float | None = None,
    interpolation: str | None = None,
    builder_args: Mapping[str, Any] | None = None,
    prompts: Sequence[str] | None = None,
    accuracy: float | None = None,
    trust_builder: bool = False,
) -> Card:
    """Writes the teacher directory `out` and returns its card.

    `weights` is a .safetensors file or a .pt, .pth or .bin state dict (read with weights_only;
    nothing is unpickled), float16 or bfloat16 included; for `open_clip:` the whole CLIP model,
    whose text tower turns `classes` and `prompts` into a classifier. `classes` is a text file of
    one name per line, or a JSON list. What is None comes from the library: timm's configuration
    of the net, ImageNet's usual values for torchvision; a net of ours or of the user's own
    needs mean and std, because a wrong guess there costs accuracy silently.
    Raises TeacherError for anything that does not fit, before anything is written.
    """
    weights, names = Path(weights), read_classes(Path(classes))
    if not weights.is_file():
        raise TeacherError(f"no weights file {weights}")
    library = builder.partition(":")[0]
    if prompts and library != "open_clip":
        raise TeacherError(f"prompts are for open_clip: builders, not for {builder}")
    try:
        net = build_net(
            builder, num_classes=len(names), arguments=builder_args, trust=trust_builder
        )
    except NetError as error:
        raise TeacherError(str(error)) from error
    known = _defaults(net, is_asked=crop_frac is None)
    given = {
        "mean": mean,
        "std": std,
        "input_size": input_size,
        "crop_frac": crop_frac,
        "interpolation": interpolation,
    }
    view = {**known, **{key: value for key, value in given.items() if value is not None}}
    absent = [key for key in given if key not in view]
    if absent:
        raise TeacherError(
            f"{builder} does not say how its pixels are prepared; give {' and '.join(absent)} as "
            "in the training of these weights"
        )
    try:
        net.normalize(view.pop("mean"), view.pop("std"))
    except NetError as error:
        raise TeacherError(str(error)) from error
    record: dict[str, Any] = {"weights": weights.name, "weights_sha256": artifact.sha256(weights)}
    if library == "open_clip":
        record["prompts"] = list(prompts or PROMPTS)
        _load_clip(net, weights, names, record["prompts"])
    else:
        load_weights(net, read_weights(weights), weights)
    _try_out(net, view["input_size"])
    return save_teacher(out, net, classes=names, accuracy=accuracy, record=record, **view)


def read_classes(path: Path) -> list[str]:
    """Class names in the order of the head's rows: one per line, or a JSON list of strings."""
    if not path.is_file():
        raise TeacherError(f"no file of class names {path}")
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        names = json.loads(text) if text.startswith("[") else text.splitlines()
    except ValueError as error:
        raise TeacherError(f"{path} is not text or a JSON list: {error}") from error
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise TeacherError(
            f"{path} must hold one class name per line without empty lines, or a JSON list of "
            "strings"
        )
    return [name.strip() for name in names]


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict by parameter name, out of the wrappers and prefixes that trainers leave.

    Raises TeacherError for a damaged file, one with more than tensors in it (never unpickled)
    and one without a state dict.
    """
    import torch

    if path.suffix == ".safetensors":
        return _unprefixed(read_safetensors(path))
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damage and forbidden content raise several types, and their texts advise unsafe loading.
        raise TeacherError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}). It is damaged, or "
            "holds pickled code, which is never run here: save model.state_dict() alone where you "
            "trust the file, best as .safetensors"
        ) from error
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(value, torch.Tensor) for value in found.values())
    ):
        raise TeacherError(
            f"{path} holds no state dict, neither itself nor under {', '.join(WRAPPERS)}"
        )
    return _unprefixed(found)


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _defaults(net: Net, *, is_asked: bool) -> dict[str, Any]:
    """How the library of a net prepares pixels, as far as it says; whether anyone asks."""
    library, _, name = net.builder.partition(":")
    view: dict[str, Any] = {"crop_frac": 1.0, "interpolation": "bilinear"}
    module: Any = net.module
    if library == "timm":
        config = module.pretrained_cfg
        size = net.arguments.get("img_size", config["input_size"][-1])
        view["input_size"] = size if isinstance(size, int) else size[-1]
        view |= {key: config[key] for key in ("mean", "std", "interpolation")}
        view["crop_frac"] = config["crop_pct"]
    elif library == "torchvision":
        view |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        view |= _torchvision_view(name, getattr(module, "image_size", None), is_asked)
    elif library == "open_clip":
        import open_clip

        size = module["visual"].image_size
        tags = open_clip.list_pretrained_tags_by_model(name)
        config = open_clip.get_pretrained_cfg(name, tags[0]) if tags else {}
        view["input_size"] = size if isinstance(size, int) else size[-1]
        view["mean"] = config.get("mean") or open_clip.OPENAI_DATASET_MEAN
        view["std"] = config.get("std") or open_clip.OPENAI_DATASET_STD
        view["interpolation"] = config.get("interpolation") or "bicubic"
    elif library.startswith(STUDENTS):
        view["input_size"] = 32
    return view


def _torchvision_view(name: str, size: int | None, is_asked: bool) -> dict[str, Any]:
    """Size, crop and interpolation as of the first weights that torchvision offers for a net.

    `size` is that of a net which is made for one. Where its other weights want other ways, which a
    state dict does not tell, that is said.
    """
    from torchvision import models

    ways: dict[tuple[int, int, str], str] = {}
    for weights in models.get_model_weights(name):
        preset = weights.transforms()
        (crop,), (resize,) = preset.crop_size, preset.resize_size
        if size in (None, crop):
            ways.setdefault((crop, resize, preset.interpolation.value), weights.name)
    if not ways:
        return {"input_size": size or 224, "crop_frac": 0.875}
    if len(ways) > 1 and is_asked:
        told = "; ".join(
            f"{one}: --input-size {crop} --crop-frac {crop / resize:.4g} --interpolation {how}"
            for (crop, resize, how), one in ways.items()
        )
        print(f"torchvision's weights of {name} want several views ({told}): "
              "the first is taken unless you say another", file=sys.stderr)  # fmt: skip
    crop, resize, how = next(iter(ways))
    return {"input_size": crop, "crop_frac": crop / resize, "interpolation": how}


def _load_clip(net: Net, weights: Path, names: Sequence[str], prompts: Sequence[str]) -> None:
    """The image tower's weights, and the text tower's embedding of the prompts as the head.

    weight = exp(logit_scale) * mean over prompts of the unit text embeddings, made unit again;
    bias = the model's logit bias where it has one, else zero.
    """
    import open_clip
    import torch

    name = net.builder.partition(":")[2]
    for prompt in prompts:
        if "{}" not in prompt:
            raise TeacherError(f"prompt {prompt!r} has no {{}} where the class name goes")
    try:
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()
        open_clip.load_checkpoint(model, str(weights), weights_only=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        reason = "; ".join(str(error).strip().splitlines()[:4])[:400]
        raise TeacherError(
            f"{weights} cannot be read as the weights of {net.builder}: {reason}. It must be the "
            "whole CLIP model as plain tensors (.safetensors or a .pt state dict)"
        ) from error
    # Not str.format: a class name or prompt with braces stays what it is.
    templates = [lambda text, prompt=prompt: prompt.replace("{}", text) for prompt in prompts]
    with torch.no_grad():
        text_DC = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
        weight_CD, bias_C = net.head
        weight_CD.copy_(model.logit_scale.exp() * text_DC.T)
        bias_C.fill_(0.0 if model.logit_bias is None else model.logit_bias.item())
    net.module.get_submodule("visual").load_state_dict(model.visual.state_dict())


def _try_out(net: Net, input_size: int) -> None:
    """A dry forward: finite logits [2, C], the same through the taps as by the net itself."""
    import torch

    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(NUM_TRIED, 3, input_size, input_size, generator=generator)
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
            f"{net.builder} does not run at {input_size} pixels: {error}. Give the input_size it "
            "was trained at, or its builder arguments (img_size=..., patch_size=... for a ViT)"
        ) from error
    if tuple(logits_BC.shape) != (NUM_TRIED, net.num_classes):
        raise TeacherError(f"{net.builder} gives logits of shape {list(logits_BC.shape)}")
    if not torch.isfinite(logits_BC).all():
        raise TeacherError(
            f"{net.builder} with these weights gives logits that are not finite: the file holds "
            "infinities or NaN, or belongs to another net"
        )
    scale = direct_BC.abs().amax().clamp_min(1.0)
    if not torch.isfinite(direct_BC).all() or (
        (logits_BC - direct_BC).abs().amax() > MAX_LOGIT_GAP * scale
    ):
        raise TeacherError(
            f"{net.builder} is not a Linear of its features: its own logits differ from those"
        )


def three(name: str, text: str | None) -> list[float] | None:
    """`'0.5 0.5 0.5'` or `'0.5,0.5,0.5'` as numbers; ValueError unless they are three."""
    if text is None:
        return None
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != 3:
        raise ValueError(f"--{name} takes three numbers, as in '0.49 0.48 0.45', not {text!r}")
    return values


def json_object(name: str, text: str | None) -> dict[str, Any] | None:
    """A JSON object of an option; ValueError when it is not one."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"--{name} takes a JSON object, as in '{{\"img_size\": 32}}', not {text}")
    return value
