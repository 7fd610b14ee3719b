"""Image classifiers as (map, features, logits), built by name and never by a download."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indexes.models.builders import (
    STUDENTS,
    NetError,
    has_fixed_size,
    maker,
    split_arguments,
    students,
)
from indexes.models.features import HookedFeatures, clip_features, timm_features

if TYPE_CHECKING:
    from torch import Tensor, nn

    Extract = Callable[[Any, Tensor], tuple[Tensor, Tensor]]

__all__ = ["STUDENTS", "Net", "NetError", "build_net", "split_arguments", "students"]

REUSED = "reused:"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Arguments that make a library download or unpickle a file, which a card must not request.
FETCHING = ("pretrained", "weights", "checkpoint", "cache_dir", "num_classes")


class Net:
    """A net whose logits are a Linear of its features.

    `module` is the classifier itself, and `num_features` is the input width D of its last Linear.
    A Net does not change the `requires_grad` flags of its parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        classifier: nn.Linear,
        extract: Extract,
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
        self._extract = extract
        self.normalize(mean, std)

    def normalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean that is subtracted from pixels in [0, 1] and the std that divides them.

        Raises NetError unless each has three finite numbers, and those of `std` are positive.
        """
        import torch

        values = [*mean, *std]
        if (len(mean), len(std)) != (3, 3) or not all(map(math.isfinite, values)) or min(std) <= 0:
            raise NetError(
                f"mean and std must be three numbers each, std positive; not {mean}, {std}"
            )
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._mean = torch.tensor(self.mean).reshape(1, -1, 1, 1)
        self._std = torch.tensor(self.std).reshape(1, -1, 1, 1)

    def __call__(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels [B, 3, H, W] in [0, 1] to map [B, M, h, w], features [B, D], logits [B, C].

        The map is the last one before pooling, after its ReLU. Tokens become a grid; without map
        and tokens it is the features as a 1x1 map. Features and logits are float32, even under
        autocast.
        """
        map_BDHW, features_BD = self._extract(self.module, self.normalized(pixels_B3HW))
        features_BD = features_BD.float()
        return map_BDHW, features_BD, self.logits(features_BD)

    def normalized(self, pixels_B3HW: Tensor) -> Tensor:
        """Return the input of `module` for pixels [B, 3, H, W] in [0, 1], in the module's dtype."""
        if self._mean.device != pixels_B3HW.device:
            self._mean = self._mean.to(pixels_B3HW.device)
            self._std = self._std.to(pixels_B3HW.device)
        normal = (pixels_B3HW - self._mean) / self._std
        # A net with bfloat16 weights takes bfloat16 pixels.
        return normal.to(self._classifier.weight.dtype)

    def logits(self, features_BD: Tensor) -> Tensor:
        """Return the logits [B, C] float32 of features [B, D], also under autocast."""
        import torch
        from torch.nn import functional as F

        weight_CD, bias_C = self.head
        with torch.autocast(features_BD.device.type, enabled=False):
            return F.linear(features_BD.float(), weight_CD.float(), bias_C.float())

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """The weight [C, D] and bias [C] of the last Linear (zeros if it has no bias)."""
        weight_CD, bias_C = self._classifier.weight, self._classifier.bias
        # A Linear without bias has None here, in spite of its annotation.
        return weight_CD, weight_CD.new_zeros(self.num_classes) if bias_C is None else bias_C

    def encoder(self) -> tuple[nn.Module, Extract]:
        """Remove the last Linear from `module`; return the module and its feature function."""
        from torch import nn

        parent, _, name = self.head_name.rpartition(".")
        identity = nn.Identity()
        setattr(self.module.get_submodule(parent), name, identity)
        if isinstance(self._extract, HookedFeatures):
            self._extract.watch(identity)
        return self.module, self._extract

    @property
    def head_name(self) -> str:
        """The name of the last Linear within `module`, such as "fc"."""
        named = self.module.named_modules()
        return next(str(name) for name, module in named if module is self._classifier)

    def to(self, *args: Any, **kwargs: Any) -> Net:
        """Move or cast the module in place, as `nn.Module.to` does, and return this net."""
        self.module.to(*args, **kwargs)
        return self

    def train(self, mode: bool = True) -> Net:
        """Set training mode in place (evaluation mode if `mode` is false) and return this net."""
        self.module.train(mode)
        return self

    def eval(self) -> Net:
        """Set evaluation mode in place and return this net."""
        return self.train(False)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of `module`."""
        return self.module.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of `module` by its own names, such as the head's weight [C, D]."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state in, such as the head's weight [C, D]; torch raises RuntimeError if it
        lacks a name or differs in a shape.
        """
        self.module.load_state_dict(state)


def build_net(
    builder: str,
    *,
    num_classes: int,
    arguments: Mapping[str, Any] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    input_size: int | None = None,
    trust: bool = False,
) -> Net:
    """Build a net with random weights; nothing is downloaded.

    `builder` is one of:

    - `timm:NAME` or `torchvision:NAME`;
    - `open_clip:NAME`: the image tower and a frozen Linear, the zero-shot classifier;
    - `reused:BUILDER`: that net with a projector and another net's classifier;
    - a short name of `students()` such as `resnet8x4`, or its long form `indexes.zoo.FILE:NAME`;
    - with `trust`, a `module:function` or `./file.py:function` that takes num_classes and the
      arguments and returns an nn.Module.

    `arguments` may also follow the name, as in `timm:vit_tiny_patch16_224:patch_size=4`. A timm net
    for one image size is built for `input_size`, if that is given. Raises NetError for an unknown
    name (with the nearest names), a builder that is not trusted, or a net that cannot be used.

    Example: `build_net("resnet8x4", num_classes=10)`
    """
    builder, inline = split_arguments(builder)
    arguments = {**inline, **(arguments or {})}
    if input_size is not None and "img_size" not in arguments and has_fixed_size(builder):
        arguments["img_size"] = input_size
    for key in arguments:
        if key.startswith(FETCHING):
            raise NetError(f"{builder} cannot take the argument {key!r}: give weights as a file")
    if builder.startswith(REUSED):
        make = _reused(builder.removeprefix(REUSED), trust)
    else:
        builder, make = maker(builder, trust)
    try:
        module = make(num_classes=num_classes, **arguments)
    except Exception as error:
        # Third-party builders may raise any type for arguments that they do not know.
        given = f" with arguments {arguments}" if arguments else ""
        raise NetError(f"{builder}{given} cannot be built: {error}") from error
    classifier, extract = _classifier_and_features(builder, module, num_classes)
    return Net(
        module, classifier, extract, builder=builder, arguments=arguments, mean=mean, std=std
    )


def reuse_classifier_net(
    student: Net, shape: Mapping[str, Any], weight_CD: Tensor, bias_C: Tensor
) -> Net:
    """Return `student` with a projector and a frozen classifier, as `reused:` builds it.

    The classifier has the weight [C, D] and the bias [C]. `shape` holds the arguments of the
    `reused:` builder. The new net takes over the student's module.
    """
    import torch

    shape = dict(shape)
    module = _reused_module(student, len(weight_CD), **shape)
    with torch.no_grad():
        module.classifier.weight.copy_(weight_CD)
        module.classifier.bias.copy_(bias_C)
    return Net(
        module,
        module.classifier,
        timm_features,
        builder=f"{REUSED}{student.builder}",
        arguments=shape,
        mean=student.mean,
        std=student.std,
    )


def _reused_module(
    student: Net, num_classes: int, *, arguments: Mapping[str, Any], **shape: Any
) -> Any:
    family = importlib.import_module(f"{STUDENTS}._reused")
    return family.Reused(*student.encoder(), num_classes=num_classes, **shape)


def _reused(encoder: str, trust: bool) -> Callable[..., nn.Module]:
    """The function that builds nets with the classifier of another net."""

    def make(num_classes: int, arguments: Mapping[str, Any], **shape: Any) -> nn.Module:
        student = build_net(encoder, num_classes=num_classes, arguments=arguments, trust=trust)
        module: nn.Module = _reused_module(student, num_classes, arguments=arguments, **shape)
        return module

    return make


def _classifier_and_features(
    builder: str, module: nn.Module, num_classes: int
) -> tuple[nn.Linear, Extract]:
    """The last Linear of a net, and the function that computes its input."""
    from torch import nn

    timm_methods = ("forward_features", "forward_head", "get_classifier")
    extract: Extract | None = None
    last: nn.Module | None
    if builder.startswith("open_clip:"):
        last, extract = module.get_submodule("head"), clip_features
    elif all(callable(getattr(module, name, None)) for name in timm_methods):
        last, extract = module.get_classifier(), timm_features  # type: ignore[operator]
    else:
        layers = reversed([*module.modules()])
        last = next((layer for layer in layers if isinstance(layer, nn.Linear)), None)
    if not isinstance(last, nn.Linear) or last.out_features != num_classes:
        raise NetError(
            f"{builder} does not end in a Linear of {num_classes} classes: choose another net"
        )
    return last, extract or HookedFeatures(module, last)
