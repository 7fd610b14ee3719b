"""The page of a card: values in columns, nested values as tables, and shortened long lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.command.describe import aligned, describe, funnel_lines, inspect, shorten, table
from indexes.shards.verify import verify


def test_plain_values_are_aligned_in_one_column() -> None:
    figures = {"kind": "shards", "num_samples": 12_345, "frac": 0.25, "whole": True, "note": None}
    assert list(aligned(figures, indent=0)) == [
        "kind         shards",
        "num_samples  12,345",
        "frac         0.25",
        "whole        yes",
        "note",
    ]


def test_nested_values_become_sections() -> None:
    card = {
        "kind": "shards",
        "funnel": {"in": 1_000, "dropped": {"corrupt": 30}, "kept": 970},
        "teacher": {"name": "r50", "classes": 1_000},
        "empty": {},
        "files": [{"name": "shard-000000.tar", "bytes": 4_096}],
        "steps": [1, 2, 3],
        "names": ["goldfish, Carassius auratus", "tench"],
        "scores": {"log_odds": {"mean": 0.5}, "outlier": {"mean": 1.5}},
    }
    assert (
        "\n".join(describe(card))
        == """\
kind   shards
empty  none

funnel:
         1,000 in
           -30 corrupt
           970 kept

teacher:
  name     r50
  classes  1,000

files (1):
  name              bytes
  shard-000000.tar  4,096

steps (3):
  1, 2, 3

names (2):
  goldfish, Carassius auratus; tench

scores:
            mean
  log_odds  0.5
  outlier   1.5"""
    )


def test_the_histogram_names_its_classes() -> None:
    card = {"classes": ["cat", "dog"], "class_histogram": [5, 70]}
    text = "\n".join(describe(card))
    assert text.endswith("class  images\n  dog    70\n  cat    5")


def test_long_tables_and_values_are_cut() -> None:
    lines = list(table([{"name": "x" * 60, "n": n} for n in range(40)]))
    assert lines[1] == "x" * 25 + "...  0"
    assert lines[-1] == "... 28 more"
    assert len(lines) == 14
    assert shorten(["a", "b"], most=2) == "a; b"


def test_the_funnel_is_aligned() -> None:
    lines = list(funnel_lines({"in": 10, "dropped": {"near copy": 4}, "kept": 6}))
    assert lines == ["          10 in", "          -4 near copy", "           6 kept"]


def test_inspect_reads_any_kind_and_refuses_no_artifact(tmp_path: Path) -> None:
    artifact.write_card(tmp_path / "a", "export", {"files": []})
    assert inspect(tmp_path / "a")["kind"] == "export"
    with pytest.raises(ArtifactError, match="not a finished artifact"):
        inspect(tmp_path)


def test_a_path_that_does_not_exist_is_said_to_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact.write_card(tmp_path / "runs" / "teachers" / "r18", "teacher", {})
    for look_up in (inspect, lambda path: verify(Path(path))):
        with pytest.raises(ArtifactError, match=r"folder: r18\. Did you mean runs/teachers/r18\?$"):
            look_up("r18")
        with pytest.raises(ArtifactError, match=r"r81\. Did you mean runs/teachers/r18\?$"):
            look_up("runs/teachers/r81")
        with pytest.raises(ArtifactError, match=r"no such file or folder: far/away$"):
            look_up("far/away")
