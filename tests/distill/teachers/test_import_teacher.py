"""A vendor's file becomes a teacher; what does not fit is said in a line people can act on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.teachers.import_teacher import import_teacher
from indexes.models.net import IMAGENET_MEAN, IMAGENET_STD, Net, build_net
from indexes.models.teacher import TeacherError, load_teacher

NAMES = ["cat", "dog", "ship"]
PIXELS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return build_net("resnet8", num_classes=3, **PIXELS).eval()


def _weights(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_file_and_float(
    net: Net, classes: Path, tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in net.state_dict().items()}
    weights = _weights(state, tmp_path / name)
    card = import_teacher("resnet8", weights, classes, tmp_path / "out", accuracy=0.8, **PIXELS)
    opened = load_teacher(tmp_path / "out")
    assert opened.card == card
    assert (card.input_size, card.crop_frac, card.interpolation) == (32, 1.0, "bilinear")
    assert card.classes == tuple(NAMES)
    assert card.accuracy == 0.8
    assert {parameter.dtype for parameter in opened.net.parameters()} == {torch.float32}
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(pixels)[2]
    torch.testing.assert_close(opened(pixels)[2], expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "best_acc": 0.5},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
        lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
    ],
)
def test_wrappers_and_prefixes_of_trainers(
    net: Net, classes: Path, tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    weights = _weights(wrap(net.state_dict()), tmp_path / "w.pt")
    import_teacher("resnet8", weights, classes, tmp_path / "out", **PIXELS)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_teacher(tmp_path / "out")(pixels)[2], net(pixels)[2])


def _refused(tmp_path: Path, builder: str, weights: Path, classes: Path, **more: Any) -> str:
    with pytest.raises(TeacherError) as caught:
        import_teacher(builder, weights, classes, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_a_pickle_that_runs_code_is_refused(classes: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    for name, write in {
        "zip.pt": lambda path: torch.save({"state_dict": Malicious()}, path),
        "raw.pt": lambda path: path.write_bytes(pickle.dumps(Malicious())),
    }.items():
        write(tmp_path / name)
        message = _refused(tmp_path, "resnet8", tmp_path / name, classes, **PIXELS)
        assert "never run here" in message
        assert name in message
    assert not ran.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("size", [0, 10, 5000])
def test_truncated_weights(net: Net, classes: Path, tmp_path: Path, name: str, size: int) -> None:
    weights = _weights(net.state_dict(), tmp_path / name)
    weights.write_bytes(weights.read_bytes()[:size])
    message = _refused(tmp_path, "resnet8", weights, classes, **PIXELS)
    assert str(weights) in message
    assert "cannot be read" in message


def test_both_numbers_of_classes_are_stated(net: Net, tmp_path: Path) -> None:
    weights = _weights(net.state_dict(), tmp_path / "w.pt")
    (tmp_path / "five.txt").write_text("a\nb\nc\nd\ne\n")
    message = _refused(tmp_path, "resnet8", weights, tmp_path / "five.txt", **PIXELS)
    assert "head of 3 classes" in message
    assert "5 class names" in message


@pytest.mark.parametrize(
    ("ours", "theirs", "hint"),
    [
        ("torchvision:resnet18", "resnet18", "--builder resnet18"),
        ("resnet18", "torchvision:resnet18", "--builder torchvision:resnet18"),
    ],
)
def test_the_wrong_stem_gets_a_hint(
    classes: Path, tmp_path: Path, ours: str, theirs: str, hint: str
) -> None:
    state = build_net(theirs, num_classes=3).state_dict()
    weights = _weights(state, tmp_path / "w.pt")
    message = _refused(tmp_path, ours, weights, classes, **PIXELS)
    assert "conv1.weight is [64, 3," in message
    assert hint in message


def test_another_net_shows_the_first_few_names(net: Net, classes: Path, tmp_path: Path) -> None:
    weights = _weights(net.state_dict(), tmp_path / "w.pt")
    message = _refused(tmp_path, "vgg16", weights, classes, **PIXELS)
    assert "block0.0.weight is missing" in message
    assert "more" in message
    assert len(message) < 700


def test_something_else_in_the_file(classes: Path, tmp_path: Path) -> None:
    for content in ({}, [torch.zeros(3)], {"model": {"epoch": 3}}, torch.zeros(3)):
        torch.save(content, tmp_path / "w.pt")
        assert "no state dict" in _refused(
            tmp_path, "resnet8", tmp_path / "w.pt", classes, **PIXELS
        )


def test_weights_that_are_not_finite(net: Net, classes: Path, tmp_path: Path) -> None:
    state = net.state_dict()
    state["conv1.weight"][0] = float("nan")
    weights = _weights(state, tmp_path / "w.pt")
    assert "not finite" in _refused(tmp_path, "resnet8", weights, classes, **PIXELS)


def test_files_that_are_not_there(net: Net, classes: Path, tmp_path: Path) -> None:
    weights = _weights(net.state_dict(), tmp_path / "w.pt")
    assert "no weights file" in _refused(tmp_path, "resnet8", tmp_path / "no.pt", classes)
    assert "no file of class names" in _refused(tmp_path, "resnet8", weights, tmp_path / "no.txt")


def test_nets_of_ours_need_mean_and_std(net: Net, classes: Path, tmp_path: Path) -> None:
    weights = _weights(net.state_dict(), tmp_path / "w.pt")
    assert "give mean and std" in _refused(tmp_path, "resnet8", weights, classes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_frac", 1.5),
        ("std", (1, 0, 1)),
        ("mean", (1,)),
        ("accuracy", "x"),
        ("interpolation", "cubic"),
    ],
)
def test_values_that_cannot_be(
    net: Net, classes: Path, tmp_path: Path, field: str, value: Any
) -> None:
    weights = _weights(net.state_dict(), tmp_path / "w.pt")
    message = _refused(tmp_path, "resnet8", weights, classes, **{**PIXELS, field: value})
    assert field in message


def test_prompts_are_for_clip(net: Net, classes: Path, tmp_path: Path) -> None:
    weights = _weights(net.state_dict(), tmp_path / "w.pt")
    assert "open_clip" in _refused(tmp_path, "resnet8", weights, classes, prompts=["a {}"])


def test_timms_configuration_gives_the_view(classes: Path, tmp_path: Path) -> None:
    timm_net = build_net("timm:resnet10t", num_classes=3)
    weights = _weights(timm_net.state_dict(), tmp_path / "w.safetensors")
    card = import_teacher("timm:resnet10t", weights, classes, tmp_path / "out")
    config = timm_net.module.pretrained_cfg
    assert (card.mean, card.std) == (config["mean"], config["std"])
    assert (card.input_size, card.crop_frac) == (config["input_size"][1], config["crop_pct"])
    assert card.interpolation == config["interpolation"]


def test_torchvisions_view_and_what_the_user_gives(classes: Path, tmp_path: Path) -> None:
    builder = "torchvision:mobilenet_v3_small"
    weights = _weights(build_net(builder, num_classes=3).state_dict(), tmp_path / "w.pt")
    card = import_teacher(builder, weights, classes, tmp_path / "one")
    assert (card.mean, card.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (card.input_size, card.crop_frac) == (224, 0.875)
    card = import_teacher(
        builder,
        weights,
        classes,
        tmp_path / "two",
        input_size=64,
        crop_frac=0.9,
        interpolation="bicubic",
        **PIXELS,
    )
    assert (card.input_size, card.crop_frac, card.interpolation) == (64, 0.9, "bicubic")
    assert (card.mean, card.std) == (PIXELS["mean"], PIXELS["std"])


@pytest.mark.parametrize(
    ("name", "view", "ways"),
    [
        ("resnet50", (224, 224 / 256, "bilinear"), 2),
        ("regnet_y_400mf", (224, 224 / 256, "bilinear"), 2),
        ("inception_v3", (299, 299 / 342, "bilinear"), 1),
        ("efficientnet_b3", (300, 300 / 320, "bicubic"), 1),
        ("convnext_tiny", (224, 224 / 236, "bilinear"), 1),
        ("vit_b_16", (224, 224 / 256, "bilinear"), 2),
    ],
)
def test_a_view_is_that_of_torchvisions_weights(
    capfd: pytest.CaptureFixture[str], name: str, view: tuple[int, float, str], ways: int
) -> None:
    size = 224 if name.startswith("vit") else None
    found = import_teacher._torchvision_view(name, size, True)
    assert (found["input_size"], found["crop_frac"], found["interpolation"]) == view
    assert capfd.readouterr().err.count("--crop-frac") == (ways if ways > 1 else 0)
    import_teacher._torchvision_view(name, size, False)
    assert not capfd.readouterr().err


def test_builder_arguments_are_kept(classes: Path, tmp_path: Path) -> None:
    builder = "timm:vit_tiny_patch16_224"
    arguments = {"img_size": 32, "patch_size": 8, "depth": 2}
    vit = build_net(builder, num_classes=3, arguments=arguments).eval()
    weights = _weights(vit.state_dict(), tmp_path / "w.pt")
    card = import_teacher(builder, weights, classes, tmp_path / "out", builder_args=arguments)
    assert card.input_size == 32
    assert load_teacher(tmp_path / "out").net.arguments == arguments
    other = _refused(
        tmp_path / "x", builder, weights, classes, builder_args=arguments | {"depth": 1}
    )
    assert "blocks.1" in other


def test_a_size_that_the_net_does_not_take(classes: Path, tmp_path: Path) -> None:
    builder = "timm:vit_tiny_patch16_224"
    arguments = {"img_size": 32, "patch_size": 8, "depth": 1}
    vit = build_net(builder, num_classes=3, arguments=arguments)
    weights = _weights(vit.state_dict(), tmp_path / "w.pt")
    message = _refused(tmp_path, builder, weights, classes, builder_args=arguments, input_size=48)
    assert "does not run at 48 pixels" in message


def test_logits_that_are_no_linear_of_the_features(classes: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(4, num_classes), nn.Softmax(1))\n"
    )
    builder = f"{file}:net"
    weights = _weights(
        build_net(builder, num_classes=3, trust=True).state_dict(), tmp_path / "w.pt"
    )
    assert "--trust-builder" in _refused(tmp_path, builder, weights, classes)
    more = {"trust_builder": True, "input_size": 16, **PIXELS}
    assert "not a Linear" in _refused(tmp_path, builder, weights, classes, **more)
