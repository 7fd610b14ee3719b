"""One table of all benchmarks, from the JSONs that they left; what was not measured is blank.

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
    """The lines of a benchmark that writes its own."""
    return [line_of(one) for one in body["lines"]]


def embed(body: Body) -> list[Line]:
    """benchmarks/embed.json."""
    key = "images_per_cpu_second"
    target = Target(of="floor", sense=">=", bound=0.95)
    return [Line(row="embed", unit="images per CPU-second", ours=body["ours"][key],
                 floor=body["floor"][key], floor_name="bare loop", target=target)]  # fmt: skip


def index(body: Body) -> list[Line]:
    """benchmarks/index.json."""
    ours, faiss, peer = (
        body.get(f"{name} ordered", {}).get("cpu_seconds")
        for name in ("ours", "faiss", "autofaiss")
    )
    target = Target(of="peer", sense="<=", bound=0.5)
    return [Line(row="index", unit="CPU-seconds", ours=ours, floor=faiss, floor_name="faiss alone",
                 peer=peer, peer_name="autofaiss" * (peer is not None), target=target)]  # fmt: skip


def select(body: Body) -> list[Line]:
    """benchmarks/select-ROWS.json."""
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
    """benchmarks/dedup.json: recall and precision on the planted set, not a speed."""
    tools = body["tools"]
    found = []
    for key, bound in (("recall", 0.97), ("precision", 0.95)):
        others = {name: row[key] for name, row in tools.items() if name != "winnow"}
        peer = max(others, key=lambda name: others[name], default="")
        target = Target(of="", sense=">=", bound=bound)
        found.append(Line(row=f"dedup, {key}", unit="share", ours=tools["winnow"][key],
                          peer=others.get(peer), peer_name=peer, target=target))  # fmt: skip
    return found


ROWS: tuple[tuple[str, str, Callable[[Body], list[Line]]], ...] = (
    ("embed", "embed.json", embed),
    ("decode", "decode.json", written),
    ("index", "index.json", index),
    ("select", "select-*.json", select),
    ("shard", "shard.json", written),
    ("dedup", "dedup.json", dedup),
    ("distil", "distill.json", written),
    ("k students", "students.json", written),
    ("stream", "stream.json", written),
    ("cold start", "coldstart.json", written),
    ("whole job", "wholejob.json", written),
)
"""What the table begins with: name, its file, and how that is read; the rows of PERFORMANCE."""


def lines(folder: Path) -> list[Line]:
    """Every row; only its name where there is no JSON of it."""
    found = []
    for name, pattern, read in ROWS:
        paths = sorted(folder.glob(pattern))
        for path in paths:
            found += read(json.loads(path.read_text()))
        if not paths:
            found.append(Line(row=name, unit=""))
    return found


def cells(line: Line) -> list[str]:
    """One row of the table."""
    floor, peer = (
        f"{number(value)} ({name})" if name and value is not None else number(value)
        for value, name in ((line.floor, line.floor_name), (line.peer, line.peer_name))
    )
    met = {True: "yes", False: "no", None: ""}[line.met]
    target = str(line.target) if line.target else ""
    ratios = number(line.to_floor), number(line.to_peer)
    return [line.row, line.unit, number(line.ours), floor, ratios[0], peer, ratios[1], target, met]


def table(found: Sequence[Line]) -> Iterator[str]:
    """The rows as Markdown."""
    yield from markdown(*HEAD, head=True)
    for one in found:
        yield from markdown(*cells(one))


def main() -> None:
    """Prints the table."""
    print("\n".join(table(lines(FOLDER))))


if __name__ == "__main__":
    main()
