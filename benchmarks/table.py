"""One table of all benchmarks, read from their JSON files; a figure not measured is blank.

Command: python -m benchmarks.table
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import line as markdown
from benchmarks.timing import FOLDER, Line, Target, line_of, number

HEAD = ("row", "unit", "ours", "floor", "ours/floor", "peer", "ours/peer", "target", "met?")
Body = Mapping[str, Any]


def written(body: Body) -> list[Line]:
    """Return the lines of a benchmark that writes lines itself."""
    return [line_of(line) for line in body["lines"]]


def embed(body: Body) -> list[Line]:
    """Return the line of benchmarks/embed.json."""
    key = "images_per_cpu_second"
    target = Target(of="floor", sense=">=", bound=0.95)
    return [Line(row="embed", unit="images per CPU-second", ours=body["ours"][key],
                 floor=body["floor"][key], floor_name="bare loop", target=target)]  # fmt: skip


def index(body: Body) -> list[Line]:
    """Return the line of benchmarks/index.json."""
    ours, faiss, peer = (
        body.get(f"{name} ordered", {}).get("cpu_seconds")
        for name in ("ours", "faiss", "autofaiss")
    )
    target = Target(of="peer", sense="<=", bound=0.5)
    return [Line(row="index", unit="CPU-seconds", ours=ours, floor=faiss, floor_name="faiss alone",
                 peer=peer, peer_name="autofaiss" * (peer is not None), target=target)]  # fmt: skip


def select(body: Body) -> list[Line]:
    """Return the line of benchmarks/select-ROWS.json."""
    jobs = body["jobs"]
    peer = next((name for name in ("pandas", "lexsort") if name in jobs), "")
    return [
        Line(
            row=f"select, {body['rows']:,} rows",
            unit="seconds",
            ours=jobs["ours"]["seconds"],
            floor=jobs["scan"]["seconds"],
            peer=jobs[peer]["seconds"] if peer else None,
            floor_name="bare scan",
            peer_name=peer,
            target=Target(of="floor", sense="<=", bound=3),
        )
    ]


def dedup(body: Body) -> list[Line]:
    """Return the lines of benchmarks/dedup.json: recall and precision on the planted copies."""
    tools = body["tools"]
    rows = []
    for key, bound in (("recall", 0.97), ("precision", 0.95)):
        others = {name: row[key] for name, row in tools.items() if name != "winnow"}
        peer = max(others, key=lambda name: others[name], default="")
        target = Target(of="", sense=">=", bound=bound)
        rows.append(Line(row=f"dedup, {key}", unit="share", ours=tools["winnow"][key],
                          peer=others.get(peer), peer_name=peer, target=target))  # fmt: skip
    return rows


ROWS: tuple[tuple[str, str, Callable[[Body], list[Line]]], ...] = (
    ("embed", "embed.json", embed),
    ("decode", "decode.json", written),
    ("index", "index.json", index),
    ("select", "select-*.json", select),
    ("dedup", "dedup.json", dedup),
    ("distill", "distill.json", written),
    ("k students", "students.json", written),
    ("stream", "stream.json", written),
    ("cold start", "coldstart.json", written),
    ("whole job", "wholejob.json", written),
)
"""The rows of the table in order: the name, the pattern of the JSON files, and their reader."""


def lines(folder: Path) -> list[Line]:
    """Return every row of the table; a row without a JSON file has only a name."""
    rows = []
    for name, pattern, read in ROWS:
        paths = sorted(folder.glob(pattern))
        for path in paths:
            rows += read(json.loads(path.read_text()))
        if not paths:
            rows.append(Line(row=name, unit=""))
    return rows


def cells(line: Line) -> list[str]:
    """Return the cells of one row of the table."""
    floor, peer = (
        f"{number(value)} ({name})" if name and value is not None else number(value)
        for value, name in ((line.floor, line.floor_name), (line.peer, line.peer_name))
    )
    met = {True: "yes", False: "no", None: ""}[line.met]
    target = str(line.target) if line.target else ""
    ratios = number(line.to_floor), number(line.to_peer)
    return [line.row, line.unit, number(line.ours), floor, ratios[0], peer, ratios[1], target, met]


def table(rows: Sequence[Line]) -> Iterator[str]:
    """Yield the rows as Markdown."""
    yield from markdown(*HEAD, head=True)
    for row in rows:
        yield from markdown(*cells(row))


def main() -> None:
    """Print the table."""
    print("\n".join(table(lines(FOLDER))))


if __name__ == "__main__":
    main()
