"""What a person gets of standings: lines on the terminal, a table, a picture and a page."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from distill.evaluation import table
from distill.evaluation.compare import Comparison, compare_students
from indexes import artifact
from indexes.cli import printable
from indexes.models.teacher import Teacher
from indexes.sources import filesystem

RESULT = "evaluation.json"
LONGEST = 60


def report_students(
    directories: Sequence[Path],
    labeled: str,
    teacher: Teacher | None,
    *,
    runs: Path,
    out: Path | None = None,
    device: str,
    trust_builder: bool = False,
) -> None:
    """Evaluates students, writes what was found beside each, and prints it.

    Of one: `out` is the JSON, if not beside it. Of several: `out` is the directory of what
    compares them, by default RUNS/evaluations/SET-DIGEST. Raises what `compare` does.
    """
    several = len({one.resolve() for one in directories}) > 1
    if out is not None and (out.is_file() if several else out.is_dir()):
        kinds = ("file", "directory") if several else ("directory", "file")
        raise ValueError(
            f"--out {out} is a {kinds[0]}: for {'several students' if several else 'one student'} "
            f"name a {kinds[1]}"
        )
    found = compare_students(
        directories, labeled, teacher, device=device, trust_builder=trust_builder
    )
    for line in table.terminal(found) if several else table.single(found):
        print(printable(line), flush=True)
    if several:
        place = out or runs / "evaluations" / _name(found)
        write(place, found)
        print(f"compared in {place / 'report.html'}, table.md, table.json, pareto.png", flush=True)
    for one in found.students:
        body = {"labeled": found.labeled, "student_digest": one.digest}
        path = out if out is not None and not several else one.directory / RESULT
        try:
            artifact.write_json(path, {**body, **asdict(one.result), "cost": asdict(one.cost)})
        except OSError as error:  # a shelf that others keep
            if path == out:
                raise
            print(f"warning: not kept beside the student: {error}", file=sys.stderr)


def write(directory: Path, found: Comparison) -> None:
    """table.json, table.md, pareto.png and report.html."""
    from distill.evaluation import html, plot  # matplotlib only where there is something to draw

    artifact.write_json(directory / "table.json", found)
    png = plot.draw(found)
    forms = {
        "table.md": ("\n".join(table.markdown(found)) + "\n").encode(),
        "pareto.png": png,
        "report.html": html.write_page(found, png).encode(),
    }
    for name, data in forms.items():
        with artifact.writing(directory / name) as aside:
            aside.write_bytes(data)


def _name(found: Comparison) -> str:
    """`val-1f3a5b7c9d`: of the labeled set, and a digest of it and of who was compared on it."""
    base = filesystem.path_of(found.labeled).rstrip("/").rpartition("/")[2]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", base.split(".", 1)[0]).strip("-")[:LONGEST]
    who = sorted([one.digest, str(one.directory.resolve())] for one in found.students)
    teacher = found.teacher and found.teacher.digest
    return f"{stem or 'set'}-{artifact.digest([found.labeled, who, teacher])[:10]}"
