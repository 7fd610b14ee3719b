"""Compare students on one labeled set: accuracy, cost and the Pareto front."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill.evaluation import cost
from distill.evaluation.accuracy import Result, evaluate_nets
from distill.evaluation.cost import Cost
from distill.evaluation.pareto import front
from indexes import artifact, plugins
from indexes.models.teacher import Teacher, resolve_teacher
from indexes.sources import filesystem

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudentResult:
    """The accuracy and the cost of one net.

    `pareto`: whether the net is on the Pareto front of top-1 accuracy against multiply-adds. A
    teacher never is.
    """

    name: str
    directory: Path
    digest: str
    builder: str
    result: Result
    cost: Cost
    pareto: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Students sorted by multiply-adds, fewest first. The teacher, if given, is not among them.

    `report`: the directory of the report, or None if no report was written.
    """

    labeled: str
    students: tuple[StudentResult, ...]
    teacher: StudentResult | None
    report: Path | None = None

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each student, indexed by name: accuracies in 0-1, and the cost.

        Example: `comparison.to_pandas().sort_values("top1")[["top1", "num_macs", "pareto"]]`
        """
        import pandas as pd

        return pd.DataFrame.from_records(
            [
                {
                    "student": student.name,
                    "top1": student.result.top1,
                    "top5": student.result.top5,
                    "ece": student.result.ece,
                    "agreement": student.result.agreement,
                    "num_images": student.result.num_images,
                    "num_parameters": student.cost.num_parameters,
                    "num_macs": student.cost.num_macs,
                    "num_bytes": student.cost.num_bytes,
                    **{
                        f"images_per_second_at_{batch}": rate
                        for batch, rate in student.cost.images_per_second.items()
                    },
                    "pareto": student.pareto,
                    "directory": str(student.directory),
                }
                for student in self.students
            ],
            index="student",
        )


def find_student(name: str | Path, runs: Path) -> Path:
    """Return the directory of `name`: a name under RUNS/students or RUNS/teachers, or a path.

    Raises UnknownName if there is no such student or teacher; the message suggests similar names.
    """
    students = runs / "students"
    if artifact.is_done(students / name):
        return students / name
    try:
        return resolve_teacher(str(name), runs)
    except plugins.UnknownName as error:
        known = [p.name for p in students.glob("*") if artifact.is_done(p)]
        hint = plugins.nearest(Path(name).name, known)
        raise plugins.UnknownName(
            f"there is no student {str(name)!r} in {students}.{hint} There is no such teacher "
            f"either: {error}"
        ) from None


def find_students(students: Sequence[str | Path | Teacher], runs: Path) -> list[Path | Teacher]:
    """Return the directory of each student, without duplicates; an open student stays as it is.

    If some students are finished, directories without a card are left out with a warning, because
    the shell expands `runs/students/*` also to students that diverged or are still in training.
    """
    finished = [student for student in students if not _is_unfinished(student, runs)]
    if finished:
        for student in students:
            if _is_unfinished(student, runs):
                log.warning(
                    "%s: left out because it has no %s: its training is not finished",
                    student, artifact.CARD,
                )  # fmt: skip
    student_at: dict[Path, Path | Teacher] = {}
    for student in finished or students:
        if isinstance(student, Teacher):
            student_at[student.directory.resolve()] = student
        else:
            directory = find_student(student, runs)
            student_at[directory.resolve()] = directory
    return list(student_at.values())


def _is_unfinished(student: str | Path | Teacher, runs: Path) -> bool:
    """Whether `student` is a directory without a card, and not the name of a net in `runs`."""
    if isinstance(student, Teacher) or not Path(student).is_dir():
        return False
    folders = Path(), runs / "students", runs / "teachers"
    return not any(artifact.is_done(folder / student) for folder in folders)


def compare_students(
    students: Sequence[Teacher], labeled: str, teacher: Teacher | None = None, *, device: str
) -> Comparison:
    """Evaluate all students in one pass over `labeled`, then measure the cost of each.

    Raises the errors of `evaluate_nets`.
    """
    nets = [*students, *([] if teacher is None else [teacher])]
    results = evaluate_nets(students, labeled, teacher=teacher, device=device)
    names = unique_names([net.directory for net in students])
    names += [] if teacher is None else [teacher.directory.resolve().name]
    measured = [
        StudentResult(
            name=name,
            directory=net.directory,
            digest=net.card.digest,
            builder=net.card.builder,
            result=result,
            cost=cost.measure(net, device),
        )
        for name, net, result in zip(names, nets, results, strict=True)
    ]
    ranked = sorted(measured[: len(students)], key=lambda row: (row.cost.num_macs, row.name))
    on_front = front([row.result.top1 for row in ranked], [row.cost.num_macs for row in ranked])
    return Comparison(
        labeled=filesystem.redacted(labeled),
        students=tuple(
            replace(row, pareto=bool(pareto)) for row, pareto in zip(ranked, on_front, strict=True)
        ),
        teacher=None if teacher is None else measured[-1],
    )


def unique_names(directories: Sequence[Path]) -> list[str]:
    """Return the last part of each path, with as many parents as make it unique.

    Example:
        >>> unique_names([Path("/runs/a/small"), Path("/runs/b/small"), Path("/runs/a/large")])
        ['a/small', 'b/small', 'large']
    """
    paths = [directory.resolve() for directory in directories]
    names = [path.name for path in paths]
    for depth in range(2, max(len(path.parts) for path in paths) + 1):
        counts = Counter(names)
        longer = ["/".join(path.parts[-depth:]) for path in paths]
        names = [
            name if counts[name] == 1 else more for name, more in zip(names, longer, strict=True)
        ]
    return names
