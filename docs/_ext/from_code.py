"""Directives that read the code.

`{commands}` lists the commands, `{settings}` the settings of a plug-in, `{recipe}` those of a
training.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.models import ArgumentInfo, OptionInfo

import winnow
from distill.cli_methods import groups
from distill.config import recipe_names
from distill.presets import Preset
from distill.recipe import Recipe
from indexes.command.options import field_docs, field_types


class Commands(SphinxDirective):
    """A section for each command of `winnow`: its usage, its arguments and its options."""

    def run(self) -> list[nodes.Node]:
        """The parsed sections."""
        text = "\n".join(
            line
            for name, function in commands(winnow.app)
            for line in command_lines(name, function)
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Settings(SphinxDirective):
    """The settings and presets of a plug-in, such as `distill.methods.kd`."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """The parsed table."""
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(inspect.getfile(module))
        return self.parse_text_to_nodes("\n".join(settings_lines(module)))


class RecipeSettings(SphinxDirective):
    """The settings of a training that `--recipe` takes."""

    def run(self) -> list[nodes.Node]:
        """The parsed table."""
        self.env.note_dependency(inspect.getfile(Recipe))
        return self.parse_text_to_nodes("\n".join(field_lines(Recipe, recipe_names())))


def commands(app: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The name and the function of every command, those of mounted apps after the app's own."""
    for info in app.registered_commands:
        assert info.callback is not None
        yield info.name or info.callback.__name__, info.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance)


def command_lines(name: str, function: Callable[..., Any]) -> Iterator[str]:
    """A command as Markdown: heading, description, usage, a table of its options."""
    parameters = list(inspect.signature(function).parameters.values())
    arguments = [p for p in parameters if isinstance(marker(p), ArgumentInfo)]
    yield f"## winnow {name}\n"
    yield re.sub(r"^Example: (.+)$", r"Example: `\1`", inspect.getdoc(function) or "", flags=re.M)
    yield f"\n```text\nwinnow {name} [OPTIONS] {' '.join(map(usage, arguments))}\n```\n"
    yield "| option | value | default | meaning |\n| --- | --- | --- | --- |"
    for parameter in parameters:
        info = marker(parameter)
        flags = [
            flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str)
        ]
        flags = flags or [parameter.name.upper()]
        text = " ".join((info.help or "").split())
        yield row(
            [
                f"`{', '.join(flags)}`",
                values_of(parameter.annotation.__origin__),
                default_of(parameter),
                text,
            ]
        )
    yield ""


def marker(parameter: inspect.Parameter) -> OptionInfo | ArgumentInfo:
    """How typer is to read a parameter."""
    info: OptionInfo | ArgumentInfo = parameter.annotation.__metadata__[0]
    return info


def usage(parameter: inspect.Parameter) -> str:
    """An argument in the line of usage."""
    dots = "..." if "list" in str(parameter.annotation) else ""
    name = parameter.name.upper() + dots
    return name if parameter.default is inspect.Parameter.empty else f"[{name}]"


def values_of(kind: Any) -> str:
    """The values that a type admits, in words; None goes without saying, as a default does."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if typing.get_origin(kind) is list:
        return "text, repeatable"
    if typing.get_origin(kind) is tuple:
        return f"{values_of(arguments[0])}s, separated by commas"
    if arguments:
        return " or ".join(values_of(member) for member in arguments if member is not type(None))
    return {bool: "on or off", int: "integer", float: "number", str: "text", Path: "path"}[kind]


def default_of(parameter: inspect.Parameter) -> str:
    """The default as it is typed; a required parameter says so."""
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"


def settings_lines(module: Any) -> Iterator[str]:
    """Settings (name, type, default, meaning) and presets of a plug-in, as Markdown."""
    names = [field.name for field in dataclasses.fields(module.Config)]
    if names:
        yield from field_lines(module.Config, names)
    else:
        yield "It takes no settings."
    presets = getattr(module, "PRESETS", {})
    if any(isinstance(preset, Preset) for preset in presets.values()):
        yield from preset_lines(presets)
    elif presets:
        yield f"\nPresets: {', '.join(f'`{name}`' for name in presets)}."


def field_lines(cls: type[Any], names: list[str]) -> Iterator[str]:
    """A table of these fields of a dataclass (name, type, default, meaning), as Markdown."""
    docs, types_of = field_docs(cls), field_types(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    yield "| setting | type | default | meaning |\n| --- | --- | --- | --- |"
    for name in names:
        value = "" if defaults[name] is dataclasses.MISSING else f"`{defaults[name]}`"
        yield row([f"`{name}`", values_of(types_of[name][0]), value, docs.get(name, "")])


def preset_lines(presets: Mapping[str, Preset]) -> Iterator[str]:
    """The presets of a method of distillation: groups of equal settings, then a table of pairs."""
    yield "\nThe presets, in groups of equal settings:\n"
    for details, group in groups(presets).items():
        yield f"- {details}: {', '.join(f'`{name}`' for name in group)}"
    yield ""
    yield from dict.fromkeys(note for preset in presets.values() for note in preset.notes)
    yield "\n| preset | teacher and student | top-1 |\n| --- | --- | --- |"
    for name, preset in presets.items():
        pair = "any" if preset.pair is None else str(preset.pair)
        yield row([f"`{name}`", pair, preset.figure])
    yield "\nThe numbers in brackets are published accuracies of nets trained on the original data."


def row(cells: list[str]) -> str:
    """A line of a table; a bar within a cell is escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    app.add_directive("commands", Commands)
    app.add_directive("settings", Settings)
    app.add_directive("recipe", RecipeSettings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
