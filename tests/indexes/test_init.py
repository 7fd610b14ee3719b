"""The Python API of `indexes`: its names are pinned, and its import loads no heavy package."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import indexes
import winnow

EXPORTS = """
ArtifactError BadImage Geometry Match Net Part Sample SearchConfig Shards SourceError Teacher
TeacherError build_net inspect load_teacher load_view open_parts open_shards save_teacher search
verify
"""


def test_exports_are_pinned() -> None:
    assert indexes.__all__ == EXPORTS.split()
    assert dir(indexes) == sorted(indexes.__all__)
    for name in indexes.__all__:
        assert getattr(indexes, name).__module__.startswith("indexes.")


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'indexes' has no attribute 'absent'"):
        _ = indexes.absent  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", ["indexes", "pipeline", "distill"])
def test_packages_are_typed(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file).with_name("py.typed").is_file()


def test_the_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("winnow-distill") == winnow.__version__
