"""The directory of an export: foreign files are never replaced, and damage is detected."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.exporters import directory
from indexes import artifact
from indexes.artifact import ArtifactError
from tests.support import distillation


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    directory.check_replaceable(tmp_path / "absent")
    teacher = distillation.make_teacher(tmp_path / "teacher")
    with pytest.raises(ArtifactError, match="holds 'teacher', not an export"):
        directory.check_replaceable(teacher.directory)
    (tmp_path / "folder").mkdir()
    directory.check_replaceable(tmp_path / "folder")
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"not empty \(it holds thesis.txt\)"):
        directory.check_replaceable(tmp_path / "folder")
    with pytest.raises(ArtifactError, match="is a file"):
        directory.check_replaceable(tmp_path / "folder" / "thesis.txt")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "card.json").write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        directory.check_replaceable(tmp_path / "damaged")


def test_an_export_is_complete_if_inputs_and_bytes_match(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(b"program")
    body = {"inputs": {"int8": "none"}, "files": [directory.file_entry(file)]}
    assert not directory.is_whole(tmp_path, body["inputs"])
    artifact.write_card(tmp_path, "export", body)
    assert directory.is_whole(tmp_path, {"int8": "none"})
    assert not directory.is_whole(tmp_path, {"int8": "static"})
    file.write_bytes(b"program?")
    assert not directory.is_whole(tmp_path, {"int8": "none"})


def test_replacing_removes_outdated_files(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "old" / ".new-x"
    new.mkdir(parents=True)
    for name in ("model.onnx", "card.json", ".lock"):
        (old / name).write_text("before")
    (new / "model.pt2").write_text("now")
    directory.replace_files(old, new)
    directory.remove_stale(old)
    assert {path.name for path in old.iterdir()} == {"model.pt2", ".lock"}
