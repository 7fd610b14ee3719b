"""The output of a comparison: lines on the terminal, a table, a chart and an HTML page."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from distill.evaluation import table
from distill.evaluation.compare import Comparison
from indexes import artifact
from indexes.sources import filesystem

log = logging.getLogger(__name__)
RESULT = "evaluation.json"
MAX_NAME = 60


def lines(comparison: Comparison) -> Iterator[str]:
    """Yield the figures of one student, or the table of several and the path of their report."""
    if len(comparison.students) == 1:
        yield from table.single(comparison)
    else:
        yield from table.terminal(comparison)
    if comparison.report is not None:
        page = comparison.report / "report.html"
        yield f"report in {page}, with table.md, table.json and pareto.png"


def write(directory: Path, comparison: Comparison) -> None:
    """Write table.json, table.md, pareto.png and report.html into `directory`."""
    from distill.evaluation import html, plot  # matplotlib loads only if there is a chart to draw

    body = {
        "labeled": comparison.labeled,
        "students": comparison.students,
        "teacher": comparison.teacher,
    }
    artifact.write_json(directory / "table.json", body)
    png = plot.draw(comparison)
    files = {
        "table.md": ("\n".join(table.markdown(comparison)) + "\n").encode(),
        "pareto.png": png,
        "report.html": html.page(comparison, png).encode(),
    }
    for name, data in files.items():
        with artifact.writing(directory / name) as temporary:
            temporary.write_bytes(data)


def write_results(comparison: Comparison, out: Path | None = None) -> None:
    """Write each student's figures into its directory, or those of the only student to `out`."""
    for student in comparison.students:
        body = {
            "labeled": comparison.labeled,
            "student_digest": student.digest,
            **asdict(student.result),
            "cost": asdict(student.cost),
        }
        try:
            artifact.write_json(out or student.directory / RESULT, body)
        except OSError as error:  # the directory may belong to another user
            if out is not None:
                raise
            log.warning("%s was not written beside the student: %s", RESULT, error)


def default_directory(runs: Path, comparison: Comparison) -> Path:
    """Return RUNS/evaluations/SET-DIGEST, such as RUNS/evaluations/val-1f3a5b7c9d.

    The digest depends on the set and the nets, but not on the order of the students.
    """
    base = filesystem.path_of(comparison.labeled).rstrip("/").rpartition("/")[2]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", base.split(".", 1)[0]).strip("-")[:MAX_NAME]
    students = sorted(
        [student.digest, str(student.directory.resolve())] for student in comparison.students
    )
    teacher = comparison.teacher and comparison.teacher.digest
    digest = artifact.digest([comparison.labeled, students, teacher])[:10]
    return runs / "evaluations" / f"{stem or 'set'}-{digest}"
