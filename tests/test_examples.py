"""The examples of the whole job and of a selection method run on small data.

test_examples_training.py runs the examples of training. The three notebooks run in `make docs`,
which fails if one of them does. Running them here as well would double their time.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from distill.evaluation import cost
from examples.whole_job import whole_job
from indexes import load_teacher
from pipeline import SelectConfig, select
from tests.support import corpora

CONFIGURATION = Path(__file__).parents[1] / "docs" / "conf.py"
EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = {"engineer", "researcher", "platform_engineer"}
TESTED = {"own_loss", "own_selection_method", "plain_pytorch_loop", "whole_job"}


def test_every_example_is_run_by_a_test_or_by_the_documentation() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == NOTEBOOKS | TESTED
    names = re.search(r"^NOTEBOOKS = \((.+)\)$", CONFIGURATION.read_text(), re.MULTILINE)
    assert names is not None
    assert set(re.findall(r"\w+", names[1])) == NOTEBOOKS


def test_no_example_hides_a_standard_module() -> None:
    """Python finds the modules beside a script before its own, such as `platform`."""
    assert not {path.stem for path in EXAMPLES.glob("*.py")} & sys.stdlib_module_names


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_a_notebook_links_to_pages_that_exist(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    pages = re.findall(r":doc:`[^`<]*<(/?)([^`>]+)>`", text.replace("\n# ", " "))
    assert pages
    for absolute, page in pages:
        exists = (CONFIGURATION.parent / f"{page}.md").is_file() if absolute else page in NOTEBOOKS
        assert exists, page


@pytest.mark.slow
def test_the_example_of_the_whole_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "RUN_SECONDS", 0.001)
    corpora.good_tar(tmp_path / "c.tar", 40)
    teacher = corpora.small_teacher(tmp_path / "teacher")
    for seed in range(100, 112):
        file = tmp_path / "labeled" / corpora.CLASSES[seed % 3] / f"{seed}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(corpora.encoded(seed))
    table = whole_job(
        str(tmp_path / "c.tar"),
        teacher,
        tmp_path / "labeled",
        runs=tmp_path / "runs",
        n=32,
        epochs=1.0,
        students=["resnet8"],
    )
    assert len(table) == 1
    assert table.num_images.tolist() == [12]
    assert 0 <= table.top1.iloc[0] <= 1
    assert "'kept': 32" in capsys.readouterr().out


def test_the_example_of_a_selection_method_runs(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 30)
    config = SelectConfig(
        corpus=str(tmp_path / "c.tar"),
        teacher=load_teacher(corpora.small_teacher(tmp_path / "teacher")),
        method=str(EXAMPLES / "own_selection_method.py"),
        settings={"isolation": 1.0},
        n=9,
        runs=tmp_path / "runs",
        workers=0,
    )
    shards = select(config)
    assert shards.card["method"] == "own_selection_method"
    assert shards.card["config"]["isolation"] == 1.0
    assert len(shards) == 9
