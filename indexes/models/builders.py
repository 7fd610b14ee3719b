"""Builder names and the functions behind them, from timm, torchvision, open_clip and winnow."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from indexes import plugins

if TYPE_CHECKING:
    from torch import nn

STUDENTS = "indexes.zoo"
LEGACY = re.compile(r"^distill\.students\.")  # the module of winnow's nets in older cards


class NetError(ValueError):
    """A builder is unknown or not trusted, or it makes no net with a linear classifier."""


def maker(builder: str, trust: bool) -> tuple[str, Callable[..., nn.Module]]:
    """Return the long form of a builder, and its function (num_classes, arguments) -> net.

    Raises NetError for an unknown name (with the nearest) and for external code without `trust`.

    Example:
        >>> maker("resnet8x4", trust=False)[0]
        'indexes.zoo.cifar_resnet:resnet8x4'
    """
    builder = LEGACY.sub(f"{STUDENTS}.", builder)
    library, _, name = builder.partition(":")
    if name and library in LIBRARIES:
        return builder, LIBRARIES[library](name)
    if not name or library in plugins.modules(STUDENTS).values():
        return _student(builder)
    return builder, _foreign(builder, trust)


def split_arguments(builder: str) -> tuple[str, dict[str, Any]]:
    """Split `timm:NAME:key=value` into the name and the arguments, parsed as Python literals.

    Example:
        >>> split_arguments("timm:vit_tiny_patch16_224:patch_size=4")
        ('timm:vit_tiny_patch16_224', {'patch_size': 4})
    """
    words = builder.split(":")
    arguments: dict[str, Any] = {}
    while len(words) > 1 and words[-1].partition("=")[0].isidentifier() and "=" in words[-1]:
        key, _, text = words.pop().partition("=")
        try:
            arguments = {key: ast.literal_eval(text), **arguments}
        except (ValueError, SyntaxError):
            arguments = {key: text, **arguments}
    return ":".join(words), arguments


def has_fixed_size(builder: str) -> bool:
    """Return whether the builder is a timm net for images of one size only (`img_size`)."""
    library, _, name = builder.partition(":")
    if library != "timm":
        return False
    import timm

    settings = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(settings and settings.fixed_input_size)


def students() -> dict[str, str]:
    """Map the short name of each zoo net to the first line of its family; imports no family.

    Example:
        >>> "resnet8x4" in students()
        True
    """
    return {name: family for name, (_, family) in sorted(_families().items())}


def _families() -> dict[str, tuple[str, str]]:
    """Net -> (module, family), read from the `__all__` of each file without running it."""
    families: dict[str, tuple[str, str]] = {}
    for file, module in sorted(plugins.modules(STUDENTS).items()):
        tree = plugins.source(STUDENTS, file)
        family = plugins.first_line(tree) or file
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                for name in ast.literal_eval(node.value):
                    if name in families:
                        raise NetError(
                            f"the net {name} exists in both {families[name][0]} and {module}: "
                            "rename one of them"
                        )
                    families[name] = module, family
    return families


def _student(builder: str) -> tuple[str, Callable[..., nn.Module]]:
    families = _families()
    stated, _, name = builder.rpartition(":")
    if name not in families:
        name = name.lower().replace("-", "_")
    if name not in families or stated not in ("", families[name][0]):
        raise NetError(
            f"no net {builder!r}.{plugins.nearest(name, list(families))} Available: "
            f"{', '.join(sorted(families))}; and timm:NAME, torchvision:NAME, open_clip:NAME."
        )
    module = families[name][0]
    return f"{module}:{name}", getattr(importlib.import_module(module), name)


def _unknown(library: str, name: str, known: Sequence[str]) -> NetError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"similar names: {', '.join(near)}" if near else f"none of its {len(known)} is similar"
    return NetError(f"{library} has no net {name!r}; {hint}")


def _timm(name: str) -> Callable[..., nn.Module]:
    import timm

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    return lambda **settings: timm.create_model(name, pretrained=False, **settings)


def _torchvision(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    # The auxiliary classifiers of these nets, used in training only, would return a tuple.
    extra = {"aux_logits": False, "init_weights": True}
    fixed = extra if name in ("googlenet", "inception_v3") else {}
    return lambda **settings: models.get_model(name, weights=None, **{**fixed, **settings})


def _open_clip(name: str) -> Callable[..., nn.Module]:
    import open_clip
    from torch import nn

    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise _unknown("open_clip", name, open_clip.list_models())

    def make(num_classes: int) -> nn.Module:
        # The image tower alone: create_model would also build a text tower, some by a download.
        visual = open_clip.model._build_vision_tower(
            config["embed_dim"],
            {**config["vision_cfg"], "timm_model_pretrained": False},
            config.get("quick_gelu", False),
        )
        if isinstance(visual, open_clip.transformer.VisionTransformer) and not visual.attn_pool:
            visual.output_tokens = True
        head = nn.Linear(config["embed_dim"], num_classes).requires_grad_(False)
        return nn.ModuleDict({"visual": visual, "head": head})

    return make


LIBRARIES: dict[str, Callable[[str], Callable[..., Any]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "open_clip": _open_clip,
}


def _foreign(builder: str, trust: bool) -> Callable[..., nn.Module]:
    if not trust:
        raise NetError(
            f"builder {builder!r} is code from outside timm, torchvision, open_clip and winnow, "
            "and building the net runs it. If you trust it, add --trust-builder (trust=True)"
        )
    path, _, name = builder.rpartition(":")
    try:
        file = plugins.find(STUDENTS, path) if path.endswith(".py") else None
        function = getattr(file or importlib.import_module(path), name)
    except (ImportError, AttributeError, plugins.UnknownName) as error:
        raise NetError(f"there is no function {builder!r}: {error}") from error
    make: Callable[..., nn.Module] = function
    return make
