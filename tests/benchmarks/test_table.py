"""The table of all benchmarks shows every row; figures that were not measured are blank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.timing import Line


def put(folder: Path, name: str, body: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(body))


def by_row(folder: Path) -> dict[str, Line]:
    return {line.row: line for line in table.lines(folder)}


def test_rows_without_a_measurement_are_blank(tmp_path: Path) -> None:
    lines = table.lines(tmp_path)
    assert [line.row for line in lines] == [name for name, *_ in table.ROWS]
    for line in lines:
        assert not any(table.cells(line)[1:])


def test_every_kind_of_json_is_read(tmp_path: Path) -> None:
    key = "images_per_cpu_second"
    put(tmp_path, "embed", {"ours": {key: 98.0}, "floor": {key: 100.0}, "ratio": 0.98})
    ordered = {"ours": 43.0, "faiss": 40.0, "autofaiss": 276.0}
    put(tmp_path, "index", {f"{name} ordered": {"cpu_seconds": n} for name, n in ordered.items()})
    jobs = {"ours": {"seconds": 4.0}, "scan": {"seconds": 1.0}, "pandas": {"seconds": 8.0}}
    put(tmp_path, "select-1000", {"rows": 1000, "jobs": jobs})
    tools = {
        "winnow": {"recall": 0.99, "precision": 0.9},
        "fastdup": {"recall": 0.97, "precision": 0.4},
        "cleanvision": {"recall": 0.5, "precision": 1.0},
    }
    put(tmp_path, "dedup", {"tools": tools})
    target = {"of": "floor", "sense": ">=", "bound": 1.25}
    distil = {
        "row": "distill, online",
        "unit": "u",
        "ours": 130.0,
        "floor": 100.0,
        "target": target,
    }
    put(tmp_path, "distill", {"lines": [distil]})
    lines = by_row(tmp_path)
    assert lines["embed"].met is True
    assert lines["index"].to_peer == 43 / 276
    assert (lines["index"].to_floor, lines["index"].met) == (43 / 40, True)
    assert (lines["select, 1,000 rows"].met, lines["select, 1,000 rows"].to_peer) == (False, 0.5)
    assert (lines["dedup, recall"].met, lines["dedup, recall"].peer_name) == (True, "fastdup")
    assert (lines["dedup, precision"].met, lines["dedup, precision"].peer) == (False, 1.0)
    assert lines["distill, online"].met is True
    assert lines["k students"].ours is None
    text = [*table.table(table.lines(tmp_path))]
    assert len({line.count("|") for line in text}) == 1, "all lines have the same number of columns"
    assert "| distill, online | u | 130 | 100 | 1.3 |  |  | ours / floor >= 1.25 | yes |" in text


def test_a_missing_peer_is_blank(tmp_path: Path) -> None:
    put(tmp_path, "index", {"ours ordered": {"cpu_seconds": 43.0}})
    line = by_row(tmp_path)["index"]
    assert (line.ours, line.floor, line.peer, line.met) == (43, None, None, None)
    assert table.cells(line)[2:] == ["43", "", "", "", "", "ours / peer <= 0.5", ""]
