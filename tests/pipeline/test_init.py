"""The Python API of `pipeline`: its names are pinned, and its import loads no heavy package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pipeline

EXPORTS = """
Corpus GenerateConfig Pool SelectConfig generate open_corpus open_pool select
"""


def test_exports_are_pinned() -> None:
    assert pipeline.__all__ == EXPORTS.split()
    assert dir(pipeline) == sorted(pipeline.__all__)
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__module__.startswith("pipeline.")


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'pipeline' has no attribute 'absent'"):
        _ = pipeline.absent  # type: ignore[attr-defined]


def test_the_import_loads_no_heavy_package() -> None:
    code = "import sys, pipeline; print('numpy' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False False\n"
