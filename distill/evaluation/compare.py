"""Students beside each other on one labeled set: how good each is, and what it costs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.evaluation import cost
from distill.evaluation.accuracy import Result, evaluate_nets
from distill.evaluation.cost import Cost
from distill.evaluation.pareto import front
from indexes import artifact, devices, plugins
from indexes.checkpoint import LOG
from indexes.models.teacher import Teacher, TeacherError, load_teacher, resolve_teacher
from indexes.sources import filesystem
from indexes.sources.spec import open_parts


@dataclass(frozen=True, kw_only=True)
class StudentResult:
    """A net, what it reached and what it costs.

    `leads`: it is on the front of top-1 against multiply-adds; no teacher is.
    """

    name: str
    directory: Path
    digest: str
    builder: str
    result: Result
    cost: Cost
    leads: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Students by their multiply-adds, fewest first; the teacher, if given, stands apart."""

    labeled: str
    students: tuple[StudentResult, ...]
    teacher: StudentResult | None


def find_student(word: str, runs: Path) -> Path:
    """The directory meant by `word`: a name under RUNS/students or RUNS/teachers, or a path.

    Raises TeacherError, with the nearest names of students where there are any.
    """
    shelf = runs / "students"
    if artifact.is_done(shelf / word):
        return shelf / word
    try:
        return resolve_teacher(word, runs)
    except TeacherError as error:
        known = [p.name for p in shelf.iterdir() if artifact.is_done(p)] if shelf.is_dir() else []
        hint = plugins.nearest(Path(word).name, known)
        raise TeacherError(f"no student {word!r} in {shelf}.{hint} Of teachers: {error}") from None


def find_students(words: Sequence[str], runs: Path) -> list[Path]:
    """What `find` makes of each; of several, a student that is not finished is left out, and told.

    A shell's `runs/students/*` names those that diverged or are in training, too.
    """
    unfinished = [
        word for word in words if (Path(word) / LOG).is_file() and not artifact.is_done(word)
    ]
    if len(unfinished) < len(words):
        for word in unfinished:
            print(f"{word}: left out, its training has not ended well", file=sys.stderr)
        words = [word for word in words if word not in unfinished]
    return [find_student(word, runs) for word in words]


def compare_students(
    directories: Sequence[Path],
    labeled: str,
    teacher: Teacher | None,
    *,
    device: str,
    trust_builder: bool = False,
) -> Comparison:
    """Opens the students, evaluates all in one pass, then measures what each costs.

    A directory that is named twice stands once. Whatever is wrong with a path is told before
    anything is computed. Raises what `teachers.open` and `evaluate_all` do.
    """
    open_parts(labeled)
    devices.keep_memory(device)  # as a training has it: what is measured must not depend on that
    chosen = {directory.resolve(): directory for directory in directories}.values()
    nets = [load_teacher(one, device=device, trust_builder=trust_builder) for one in chosen]
    results = evaluate_nets(nets, labeled, teacher=teacher, device=device)
    nets += [] if teacher is None else [teacher]
    costs = [cost.measure(net, device) for net in nets]
    titles = _titles([net.directory for net in nets[: len(chosen)]])
    titles += [] if teacher is None else [teacher.directory.resolve().name]
    stands = [
        StudentResult(
            name=title,
            directory=net.directory,
            digest=net.card.digest,
            builder=net.card.builder,
            result=result,
            cost=spent,
        )
        for title, net, result, spent in zip(titles, nets, results, costs, strict=True)
    ]
    students = sorted(stands[: len(chosen)], key=lambda one: (one.cost.num_macs, one.name))
    leads = front([one.result.top1 for one in students], [one.cost.num_macs for one in students])
    return Comparison(
        labeled=filesystem.redacted(labeled),
        students=tuple(
            replace(one, leads=bool(lead)) for one, lead in zip(students, leads, strict=True)
        ),
        teacher=None if teacher is None else stands[-1],
    )


def _titles(directories: Sequence[Path]) -> list[str]:
    """The last name of each directory, with as many parents as tell it from all others."""
    paths = [directory.resolve() for directory in directories]
    titles = [path.name for path in paths]
    for depth in range(2, max(len(path.parts) for path in paths) + 1):
        times = Counter(titles)
        longer = ["/".join(path.parts[-depth:]) for path in paths]
        titles = [
            title if times[title] == 1 else more for title, more in zip(titles, longer, strict=True)
        ]
    return titles
