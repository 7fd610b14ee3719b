"""Class names and weights are read from the files of common trainers; damage gives one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.teachers.files import class_names, read_weights
from indexes.models.net import build_net
from indexes.models.teacher import TeacherError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ["cat", "dog"]),
        ("\ufeffcat \r\n dog\r\n\r\n", ["cat", "dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ("\u732b\n\u72ac", ["\u732b", "\u72ac"]),
    ],
)
def test_class_names_are_read_from_every_format(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    (tmp_path / "classes").write_text(text, encoding="utf-8")
    assert class_names(tmp_path / "classes") == names


@pytest.mark.parametrize("content", [b"", b"[]", b"[1, 2]", b"cat\n\ndog", b"[", b"\xff\xfe\xfd"])
def test_files_without_class_names_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "classes").write_bytes(content)
    with pytest.raises(TeacherError, match="classes"):
        class_names(tmp_path / "classes")


def test_class_names_can_be_given_as_a_list() -> None:
    assert class_names(("cat", "dog")) == ["cat", "dog"]


def test_a_missing_file_of_class_names_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file of class names"):
        class_names(tmp_path / "no.txt")


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_net("resnet8", num_classes=3).state_dict()


def save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
def test_weights_are_read_from_every_format(
    state: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    read = read_weights(save(state, tmp_path / name))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "best_acc": 0.5},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
    ],
)
def test_wrappers_and_prefixes_of_trainers_are_removed(
    state: dict[str, Tensor], tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    read = read_weights(save(wrap(state), tmp_path / "w.pt"))
    assert read.keys() == state.keys()


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    torch.save({"state_dict": Malicious()}, tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Malicious()))
    for name in ("zip.pt", "raw.pt"):
        with pytest.raises(TeacherError, match=f"{name}.*never runs"):
            read_weights(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("size", [0, 10, 5000])
def test_truncated_weights_are_refused(
    state: dict[str, Tensor], tmp_path: Path, name: str, size: int
) -> None:
    path = save(state, tmp_path / name)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TeacherError, match=f"{path} cannot be read"):
        read_weights(path)


@pytest.mark.parametrize("content", [{"state_dict": {"epoch": 3}}, {}, torch.zeros(3)])
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match="no state dict"):
        read_weights(tmp_path / "w.pt")
