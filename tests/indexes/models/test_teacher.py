"""A teacher directory survives a round trip; missing, altered and third-party parts are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from indexes import artifact
from indexes.models.net import Net
from indexes.models.teacher import TeacherError, load_teacher, resolve_teacher, save_teacher
from indexes.plugins import UnknownName
from tests.support.teachers import CLASSES, resign


def test_a_teacher_survives_a_round_trip(net: Net, teacher: Path) -> None:
    opened = load_teacher(teacher)
    pixels = torch.rand(2, 3, 32, 32)
    for ours, theirs in zip(opened(pixels), net(pixels), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad
    assert opened.card.classes == CLASSES
    assert opened.card.mean == (0.4, 0.5, 0.6)
    assert opened.card.accuracy == 0.9
    assert opened.card.builder == "indexes.zoo.cifar_resnet:resnet8"
    assert (opened.geometry.size, opened.geometry.crop_frac) == (32, 0.5)
    assert opened.geometry.interpolation == "bilinear"
    torch.testing.assert_close(opened.head[0], net.head[0])
    assert not opened.net.module.training
    assert not any(parameter.requires_grad for parameter in opened.net.parameters())
    assert opened.directory == teacher


def test_save_returns_the_card_that_load_reads(net: Net, tmp_path: Path) -> None:
    record = {"steps": 3, "seed": 0}
    card = save_teacher(tmp_path, net, classes=CLASSES, input_size=32, note="x", record=record)
    assert load_teacher(tmp_path).card == card
    assert artifact.read_json(tmp_path / "card.json")["record"] == record


def test_the_card_is_written_last(net: Net, teacher: Path) -> None:
    stamps = {file.name: file.stat().st_mtime_ns for file in teacher.iterdir()}
    assert sorted(stamps) == ["card.json", "model.safetensors"]
    assert stamps["card.json"] >= stamps["model.safetensors"]


def test_weights_have_the_permissions_of_the_card(teacher: Path) -> None:
    modes = {file.stat().st_mode for file in teacher.iterdir()}
    assert len(modes) == 1


def test_a_failed_save_leaves_no_card(
    net: Net, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save", full)
    with pytest.raises(OSError, match="no space"):
        save_teacher(teacher, net, classes=CLASSES, input_size=32)
    with pytest.raises(TeacherError, match=r"card\.json"):
        load_teacher(teacher)


def test_the_number_of_class_names_matches_the_head(net: Net, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="2 class names for a head of 3"):
        save_teacher(tmp_path, net, classes=CLASSES[:2], input_size=32)


def test_the_digest_covers_everything_that_changes_the_logits(net: Net, tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        settings = {"classes": CLASSES, "input_size": 32, **changes}
        return save_teacher(tmp_path, net, **settings).digest

    first = digest()
    assert digest() == first
    assert digest(accuracy=0.5, note="other", record={"a": 1}) == first
    changed = [
        digest(crop_frac=0.9),
        digest(input_size=64),
        digest(interpolation="bicubic"),
        digest(classes=("dog", "cat", "ship")),
    ]
    net.normalize((0.1, 0.1, 0.1), net.std)
    changed.append(digest())
    with torch.no_grad():
        net.head[0][0, 0] += 1
    changed.append(digest())
    assert len({first, *changed}) == 7


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_cut, "bytes, but its card says"), (_flip, "sha256"), (Path.unlink, "is missing")],
)
def test_altered_weights_are_refused_by_name(
    teacher: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(teacher / "model.safetensors")
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher(teacher)
    assert "model.safetensors" in str(caught.value)
    assert "copy the teacher again" in str(caught.value)


def test_a_third_party_builder_needs_trust(teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "theirs.py"
    ran = tmp_path / "ran"
    file.write_text(
        "from pathlib import Path\n"
        f"Path({str(ran)!r}).touch()\n"
        "from indexes.zoo.cifar_resnet import resnet8 as net\n"
    )
    resign(teacher, builder=f"{file}:net")
    with pytest.raises(TeacherError, match="--trust-builder"):
        load_teacher(teacher)
    assert not ran.exists()
    assert load_teacher(teacher, trust_builder=True).card.builder == f"{file}:net"
    assert ran.exists()


def test_a_card_cannot_start_a_download(teacher: Path) -> None:
    resign(teacher, builder="timm:resnet18", arguments={"checkpoint_path": "x.pth"})
    with pytest.raises(TeacherError, match="give weights as a file"):
        load_teacher(teacher)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"no such directory.*import-teacher"):
        load_teacher(tmp_path / "absent")
    with pytest.raises(TeacherError, match=r"no card\.json"):
        load_teacher(tmp_path)
    artifact.write_card(tmp_path, "shards", {})
    with pytest.raises(TeacherError, match="'shards', not 'teacher'"):
        load_teacher(tmp_path)


def test_resolve_takes_a_path_a_name_or_the_only_teacher(teacher: Path) -> None:
    runs = teacher.parent.parent
    (runs / "teachers" / "unfinished").mkdir()
    for spec in (str(teacher), "one", None):
        assert resolve_teacher(spec, runs) == teacher
    assert resolve_teacher(str(runs / "teachers" / "unfinished"), runs).name == "unfinished"


def test_resolve_lists_the_existing_teachers(net: Net, teacher: Path, tmp_path: Path) -> None:
    runs = teacher.parent.parent
    save_teacher(runs / "teachers" / "two", net, classes=CLASSES, input_size=32)
    with pytest.raises(UnknownName, match=r"name a teacher.*one, two.*import-teacher"):
        resolve_teacher(None, runs)
    with pytest.raises(UnknownName, match=r"no teacher 'three'.*one, two"):
        resolve_teacher("three", runs)
    with pytest.raises(UnknownName, match=r"there is no teacher yet.*import-teacher"):
        resolve_teacher(None, tmp_path / "elsewhere")
