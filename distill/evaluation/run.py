"""`winnow evaluate` as one call: find the students, measure them and write the results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distill.evaluation import report
from distill.evaluation.compare import Comparison, compare_students, find_students
from distill.evaluation.config import EvaluateConfig
from indexes import devices
from indexes.models.teacher import Teacher, load_teacher, resolve_teacher
from indexes.sources.spec import open_parts


def evaluate(config: EvaluateConfig) -> Comparison:
    """Measure the accuracy of students in one pass over the labeled set, and the cost of each.

    Each student's figures are written to evaluation.json in its directory; those of a single
    student are written to `out` if it is given. Several students also get a report: report.html,
    table.md, table.json and pareto.png. A wrong path is reported before anything is computed.

    Raises UnknownName if there is no such student, TeacherError if a student is damaged, and
    SourceError if the set has no labels. Raises ValueError if the students have different classes,
    if no image can be decoded, or if `out` is a directory for one student or a file for several.

    Example::

        comparison = evaluate(EvaluateConfig(students=["resnet8x4"], labeled="/data/val"))
        comparison.to_pandas()[["top1", "num_macs"]]
    """
    device = devices.choose(config.device)
    labeled = str(config.labeled)
    open_parts(labeled)
    sources = find_students(config.students, config.runs)
    _check_out(config.out, len(sources))
    students = [_opened(source, device, config.trust_builder) for source in sources]
    teacher = config.teacher
    if isinstance(teacher, str):
        teacher = resolve_teacher(teacher, config.runs)
    if teacher is not None:
        teacher = _opened(teacher, device, config.trust_builder)
    comparison = compare_students(students, labeled, teacher, device=device)
    is_single = len(comparison.students) == 1
    if not is_single:
        directory = config.out or report.default_directory(config.runs, comparison)
        report.write(directory, comparison)
        comparison = replace(comparison, report=directory)
    report.write_results(comparison, config.out if is_single else None)
    return comparison


def _opened(student: Path | Teacher, device: str, trust_builder: bool) -> Teacher:
    if isinstance(student, Teacher):
        student.net.to(device)
        return student
    return load_teacher(student, device=device, trust_builder=trust_builder)


def _check_out(out: Path | None, num_students: int) -> None:
    """Raise ValueError if `out` is a directory for one student, or a file for several."""
    is_single = num_students == 1
    if out is not None and (out.is_dir() if is_single else out.is_file()):
        kind, expected = ("directory", "file") if is_single else ("file", "directory")
        count = "one student" if is_single else "several students"
        raise ValueError(f"--out {out} is a {kind}: give a {expected} for {count}")
