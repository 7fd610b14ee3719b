"""Find how a net's library prepares pixels: size, crop, interpolation, mean and deviation."""

from __future__ import annotations

import logging
from typing import Any

from indexes.models.net import IMAGENET_MEAN, IMAGENET_STD, STUDENTS, Net

log = logging.getLogger(__name__)


def default_view(net: Net, *, needs_crop: bool) -> dict[str, Any]:
    """Return the input settings that the net's library states.

    They are some of `mean`, `std`, `input_size` (pixels), `crop_frac` (0-1) and `interpolation`.
    `needs_crop` says whether the caller will use the crop; only then an ambiguous crop is warned
    about.
    """
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
        view |= torchvision_view(name, getattr(module, "image_size", None), needs_crop=needs_crop)
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


def torchvision_view(name: str, size: int | None, *, needs_crop: bool) -> dict[str, Any]:
    """Return size, crop and interpolation of the first weights that torchvision lists for a net.

    `size` is the input side in pixels of a net that is built for one size, else None. A state dict
    does not say which of torchvision's weights it holds. If those differ in their input settings, a
    warning lists the alternatives.
    """
    from torchvision import models

    views: dict[tuple[int, int, str], str] = {}
    for weights in models.get_model_weights(name):
        preset = weights.transforms()
        (crop,), (resize,) = preset.crop_size, preset.resize_size
        if size in (None, crop):
            views.setdefault((crop, resize, preset.interpolation.value), weights.name)
    if not views:
        return {"input_size": size or 224, "crop_frac": 0.875}
    if len(views) > 1 and needs_crop:
        listed = "; ".join(
            f"{label}: --input-size {crop} --crop-frac {crop / resize:.4g} --interpolation {method}"
            for (crop, resize, method), label in views.items()
        )
        log.warning(
            "torchvision has weights of %s with different input settings (%s): the first are "
            "used unless you give others",
            name,
            listed,
        )
    crop, resize, method = next(iter(views))
    return {"input_size": crop, "crop_frac": crop / resize, "interpolation": method}
