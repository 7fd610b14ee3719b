"""The commands distill and targets, and students, which lists the nets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill import cli_methods, cli_students, cli_teachers
from distill.config import DistillConfig, TargetsConfig
from indexes.command.console import Answer
from indexes.command.options import CommandConfig, Option, command

if TYPE_CHECKING:
    from distill.train import StudentRun

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(cli_methods.app)
app.add_typer(cli_teachers.app)
app.add_typer(cli_students.app)

STATES = {"finished": "trained", "already": "already finished"}


@command(app, DistillConfig)
def distill(config: DistillConfig) -> Answer | None:
    """Report the state of each student; the exit code is 1 if one was stopped.

    Example: `winnow distill --student resnet8x4 --eval /data/val`
    """
    from distill.distributed import is_first_process
    from distill.evaluation import report
    from distill.run import distill_and_evaluate
    from indexes import devices

    devices.keep_memory(devices.choose(config.device))
    runs, comparison = distill_and_evaluate(config)
    if not is_first_process():
        return None
    document = {"students": [_summary(run) for run in runs], "evaluation": comparison}
    lines = [_line(run) for run in runs]
    lines += [] if comparison is None else report.lines(comparison)
    lines += _next_commands(runs, is_evaluated=comparison is not None)
    return Answer(document, lines, 0 if all(run.is_trained for run in runs) else 1)


def _summary(run: StudentRun) -> dict[str, Any]:
    return {
        "student": run.name,
        "directory": run.directory,
        "state": run.state,
        "agreement": run.agreement,
        "bytes": run.card["weights"]["bytes"] if run.is_trained else None,
    }


def _line(run: StudentRun) -> str:
    text = f"{run.name}: {STATES.get(run.state, run.state)}"
    if run.is_trained:
        text += f", {run.card['weights']['bytes'] / 1e6:.2f} MB"
    if run.agreement is not None and run.state == "finished":
        text += f", agrees with its teacher on {100 * run.agreement:.1f} % of held-out images"
    return f"{text}: {run.directory}"


def _next_commands(runs: Sequence[StudentRun], *, is_evaluated: bool) -> Iterator[str]:
    trained = [str(run.directory) for run in runs if run.is_trained]
    if trained and not is_evaluated:
        yield f"next: winnow evaluate {' '.join(trained)} LABELED"
    for directory in trained:
        yield f"next: winnow export {directory}"


@command(app, TargetsConfig)
def targets(config: TargetsConfig) -> Answer | None:
    """Report the directory of the targets and their size."""
    from distill.distributed import is_first_process
    from distill.run import precompute_targets
    from indexes import artifact, devices

    devices.keep_memory(devices.choose(config.device))
    directory = precompute_targets(config)
    if not is_first_process():
        return None
    card = artifact.read_card(directory, "targets")
    num_bytes = sum(file.stat().st_size for file in directory.glob("*.npy"))
    line = (
        f"targets: {directory}: {config.keep} of {card['views']} views of {card['num_images']:,} "
        f"images, {num_bytes / 1e6:.1f} MB; train with --targets {directory} or --views "
        f"{card['views']}"
    )
    return Answer({"directory": directory, "bytes": num_bytes, **card}, [line])


@dataclass(frozen=True, kw_only=True)
class StudentsConfig(CommandConfig):
    """List the nets of winnow for --student and --builder, or search timm and torchvision as well.

    Example: winnow students mobilenet
    """

    search: Annotated[str | None, Option(argument=True)] = None
    """Search word: list the nets of winnow, timm and torchvision whose names contain it."""


@command(app, StudentsConfig)
def students(config: StudentsConfig) -> Answer:
    """List the names; all of them are grouped by family."""
    names = list_students(config.search)
    return Answer(names, names if config.search else _families())


def list_students(search: str | None = None) -> list[str]:
    """Return the names of winnow's nets, or all names that contain `search`.

    The search covers winnow, timm and torchvision. Raises ValueError if no name contains `search`.

    Example: `list_students("mobilenetv3_small")`
    """
    from indexes.models.net import students

    if search is None:
        return list(students())
    import timm
    from torchvision import models

    names = [name for name in students() if search in name]
    names += [f"timm:{name}" for name in timm.list_models() if search in name]
    names += [f"torchvision:{n}" for n in models.list_models(module=models) if search in n]
    if not names:
        raise ValueError(f"no net has {search!r} in its name: try a shorter word")
    return names


def _families() -> Iterator[str]:
    from indexes.models.net import students

    family_of = students()
    for family in dict.fromkeys(family_of.values()):
        yield family
        yield "  " + ", ".join(name for name in family_of if family_of[name] == family)
    yield "also timm:NAME and torchvision:NAME: search them, as in `winnow students mobilenet`"
