"""The command methods, which lists the methods of distillation and describes one of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexes import plugins
from indexes.command.console import Answer
from indexes.command.options import CommandConfig, Option, command, docs_in

if TYPE_CHECKING:
    from distill.presets import Preset

app = typer.Typer()

METHODS = "distill.methods"


@dataclass(frozen=True, kw_only=True)
class MethodsConfig(CommandConfig):
    """List the methods of distillation, or describe one: its paper, loss, cost, settings, presets.

    Example: winnow methods kd3
    """

    name: Annotated[str | None, Option(argument=True)] = None
    """Method to describe: a name from the list, or your own .py file."""


@command(app, MethodsConfig)
def methods(config: MethodsConfig) -> Answer:
    """Print the list of the methods, or the description of one."""
    if config.name is None:
        entries = list_methods()
        lines = [f"{entry.name}: {entry.summary}" for entry in entries]
        return Answer(entries, [*lines, "more about one of them: winnow methods NAME"])
    described = describe_method(config.name)
    return Answer(described, _lines(described))


@dataclass(frozen=True)
class MethodEntry:
    """A method of distillation; `settings` maps a name to its default and its help."""

    name: str
    summary: str
    settings: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class MethodDescription(MethodEntry):
    """A method with its whole description (paper, loss, cost, expected figures) and presets."""

    description: str
    presets: dict[str, Preset]


def list_methods() -> list[MethodEntry]:
    """Return the methods, read from their files without importing them.

    Example: `[entry.name for entry in list_methods()]`
    """
    entries = []
    for name in plugins.names(METHODS):
        tree = plugins.source(METHODS, name)
        entries.append(MethodEntry(name, plugins.first_line(tree), _settings(tree)))
    return entries


def describe_method(name: str) -> MethodDescription:
    """Return a method's description, settings and presets; its file is imported.

    Raises UnknownName, with the nearest name, if there is no such method.

    Example: `describe_method("kd3").presets["cifar10_r34_r18"].expected`
    """
    module = plugins.find(METHODS, name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    return MethodDescription(
        Path(name).stem,
        plugins.first_line(tree),
        _settings(tree),
        ast.get_docstring(tree) or "",
        dict(getattr(module, "PRESETS", {})),
    )


def _settings(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """The fields of the file's Config by name: default and help."""
    for config in tree.body:
        if isinstance(config, ast.ClassDef) and config.name == "Config":
            docs = docs_in(config)
            return {
                (name := ast.unparse(field.target)): (ast.unparse(field.value), docs.get(name, ""))
                for field in config.body
                if isinstance(field, ast.AnnAssign) and field.value is not None
            }
    return {}


def _lines(method: MethodDescription) -> Iterator[str]:
    yield from f"{method.name}: {method.description}".split("\n")
    yield ""
    yield "Settings (--set NAME=VALUE):" if method.settings else "It takes no settings."
    for name, (default, text) in method.settings.items():
        yield f"  {name}={default}  {text}"
    yield ""
    if not method.presets:
        yield "It has no presets."
        return
    yield "Presets (--preset NAME; in brackets, top-1 of a net trained on the original data):"
    width = max(map(len, method.presets))
    for details, group in groups(method.presets).items():
        yield f"  {details}:"
        for name, preset in group.items():
            pair = "any teacher and student" if preset.pair is None else str(preset.pair)
            yield f"    {name:<{width}}  {'; '.join(filter(None, (pair, preset.figure)))}"
    yield from dict.fromkeys(note for p in method.presets.values() for note in p.notes)


def groups(presets: Mapping[str, Preset]) -> dict[str, dict[str, Preset]]:
    """Return presets by their details (length, recipe, settings), then by their name."""
    found: dict[str, dict[str, Preset]] = {}
    for name, preset in presets.items():
        found.setdefault(preset.details, {})[name] = preset
    return found
