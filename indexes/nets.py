"""Any image classifier seen as (map, features, logits): built by name, never from a download."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indexes import names, taps

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STUDENTS = "distill.students"
# Arguments that make a library fetch or unpickle something; a card is not to be trusted with them.
FETCHING = ("pretrained", "weights", "checkpoint", "cache_dir", "num_classes")


class NetError(ValueError):
    """A builder that is unknown, not trusted, or does not give a net with a linear classifier."""


class Net:
    """A net whose logits are a Linear of its features.

    `module` is the classifier itself, `num_features` the width D of what enters its last Linear.
    Without gradient flags of its own: it trains if its parameters do.
    """

    def __init__(
        self,
        module: nn.Module,
        classifier: nn.Linear,
        tap: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
        *,
        builder: str,
        arguments: Mapping[str, Any],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.module = module
        self.builder = builder
        self.arguments = dict(arguments)
        self.num_classes = classifier.out_features
        self.num_features = classifier.in_features
        self._classifier = classifier
        self._tap = tap
        self.normalise(mean, std)

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets what is taken off pixels in [0, 1] and what they are divided by, per channel.

        Raises NetError unless there are three finite numbers each, those of `std` positive.
        """
        import torch

        values = [*mean, *std]
        if (len(mean), len(std)) != (3, 3) or not all(map(math.isfinite, values)) or min(std) <= 0:
            raise NetError(f"mean and std are three numbers each, std positive; not {mean}, {std}")
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._mean = torch.tensor(self.mean).reshape(1, -1, 1, 1)
        self._std = torch.tensor(self.std).reshape(1, -1, 1, 1)

    def __call__(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, 3, H, W] in [0, 1] -> map [B, D', h, w], features [B, D], logits [B, C].

        The map is the last one before pooling, after its ReLU (tokens as a grid; features as 1x1
        where there is neither). Features and logits are float32, also under autocast.
        """
        import torch
        from torch.nn import functional as F

        if self._mean.device != pixels_B3HW.device:
            self._mean = self._mean.to(pixels_B3HW.device)
            self._std = self._std.to(pixels_B3HW.device)
        normal = (pixels_B3HW - self._mean) / self._std
        # A net whose very weights are bfloat16 takes bfloat16 pixels.
        map_BDHW, features_BD = self._tap(self.module, normal.to(self._classifier.weight.dtype))
        features_BD = features_BD.float()
        weight_CD, bias_C = self.head
        with torch.autocast(features_BD.device.type, enabled=False):
            logits_BC = F.linear(features_BD, weight_CD.float(), bias_C.float())
        return map_BDHW, features_BD, logits_BC

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """The last Linear's own weight [C, D] and bias [C] (zeros where it has none)."""
        weight_CD, bias_C = self._classifier.weight, self._classifier.bias
        # A Linear without bias has None there, whatever its annotation says.
        return weight_CD, weight_CD.new_zeros(self.num_classes) if bias_C is None else bias_C

    @property
    def head_name(self) -> str:
        """The last Linear's name within `module`, as in "fc"."""
        named = self.module.named_modules()
        return next(str(name) for name, one in named if one is self._classifier)

    def to(self, *args: Any, **kwargs: Any) -> Net:
        """Moves or casts in place, as nn.Module.to does: a device, dtype or memory format."""
        self.module.to(*args, **kwargs)
        return self

    def train(self, mode: bool = True) -> Net:
        """Training mode, in place."""
        self.module.train(mode)
        return self

    def eval(self) -> Net:
        """Evaluation mode, in place."""
        return self.train(False)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of `module`."""
        return self.module.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """The state of `module`, under its own names."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies `state` in; every name and shape must be there (RuntimeError of torch)."""
        self.module.load_state_dict(state)


def build(
    builder: str,
    *,
    num_classes: int,
    arguments: Mapping[str, Any] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    trust: bool = False,
) -> Net:
    """A net with random weights; nothing is downloaded.

    `builder` is `timm:NAME`, `torchvision:NAME`, `open_clip:NAME` (the image tower and a frozen
    Linear for the zero-shot classifier), a short name of `students()` such as `resnet8x4`, its
    long form `distill.students.FILE:NAME`, or with `trust` a `module:function` or
    `./file.py:function` that takes num_classes and the arguments and returns an nn.Module.
    Raises NetError, with the nearest names where the name is unknown.
    """
    arguments = dict(arguments or {})
    for key in arguments:
        if key.startswith(FETCHING):
            raise NetError(f"{builder} does not take the argument {key!r}: weights come from files")
    library, _, name = builder.partition(":")
    if name and library in LIBRARIES:
        make = LIBRARIES[library](name)
    elif not name or library.startswith(f"{STUDENTS}."):
        builder, make = _student(builder)
    else:
        make = _foreign(builder, trust)
    try:
        module = make(num_classes=num_classes, **arguments)
    except Exception as error:
        # Third-party builders raise whatever they like at arguments they do not know.
        given = f" with arguments {arguments}" if arguments else ""
        raise NetError(f"{builder}{given} cannot be built: {error}") from error
    classifier, tap = _seam(builder, module, num_classes)
    return Net(module, classifier, tap, builder=builder, arguments=arguments, mean=mean, std=std)


def students() -> dict[str, str]:
    """The short names of our own nets -> first line of their family's docstring; imports none."""
    return {name: family for name, (_, family) in sorted(_student_files().items())}


def _student_files() -> dict[str, tuple[str, str]]:
    """Name -> (file, family), read from each file's `__all__` without running it."""
    found: dict[str, tuple[str, str]] = {}
    for file in names.names(STUDENTS):
        tree = names.source(STUDENTS, file)
        family = names.first_line(tree) or file
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                for name in ast.literal_eval(node.value):
                    if name in found:
                        raise NetError(f"{name} stands in {found[name][0]} and in {file}")
                    found[name] = file, family
    return found


def _student(builder: str) -> tuple[str, Callable[..., nn.Module]]:
    files = _student_files()
    place, _, name = builder.rpartition(":")
    name = name.lower().replace("-", "_")
    if name not in files or place not in ("", f"{STUDENTS}.{files[name][0]}"):
        raise NetError(
            f"no net {builder!r}.{names.nearest(name, list(files))} There are: "
            f"{', '.join(sorted(files))}. Others are timm:NAME, torchvision:NAME, open_clip:NAME."
        )
    place = f"{STUDENTS}.{files[name][0]}"
    return f"{place}:{name}", getattr(importlib.import_module(place), name)


def _unknown(library: str, name: str, known: Sequence[str]) -> NetError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"near: {', '.join(near)}" if near else f"there are {len(known)}, none near"
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
    # Their second classifiers, for training only, return a tuple.
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
        # The tower alone: create_model would build a text tower too, some of them by download.
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
            f"builder {builder!r} is code from outside timm, torchvision, open_clip and winnow; "
            "building it runs that code. If you trust it, say --trust-builder (trust=True)"
        )
    place, _, name = builder.rpartition(":")
    try:
        file = names.find(STUDENTS, place) if place.endswith(".py") else None
        function = getattr(file or importlib.import_module(place), name)
    except (ImportError, AttributeError, names.UnknownName) as error:
        raise NetError(f"no function at {builder!r}: {error}") from error
    made: Callable[..., nn.Module] = function
    return made


def _seam(
    builder: str, module: nn.Module, num_classes: int
) -> tuple[nn.Linear, Callable[[Any, Tensor], tuple[Tensor, Tensor]]]:
    """The last Linear of a net and how to tap what enters it."""
    from torch import nn

    seam = ("forward_features", "forward_head", "get_classifier")
    tap: Callable[[Any, Tensor], tuple[Tensor, Tensor]] | None = None
    last: nn.Module | None
    if builder.startswith("open_clip:"):
        last, tap = module.get_submodule("head"), taps.clip_tower
    elif all(callable(getattr(module, name, None)) for name in seam):
        last, tap = module.get_classifier(), taps.timm_like  # type: ignore[operator]
    else:
        last = next((x for x in reversed([*module.modules()]) if isinstance(x, nn.Linear)), None)
    if not isinstance(last, nn.Linear) or last.out_features != num_classes:
        raise NetError(
            f"{builder} does not end in a Linear of {num_classes} classes: such a net is not "
            "supported"
        )
    return last, tap or taps.Hooked(module, last)
