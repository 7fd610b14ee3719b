"""A command's options are the fields of its configuration: one dataclass for shell and Python.

The docstring under a field is its help text, the docstring of the class is the command's.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from indexes.console import Answer, session
from indexes.plugins import BadSetting, nearest

if TYPE_CHECKING:
    import typer

C = TypeVar("C", bound="CommandConfig")
Settings = Sequence[str] | Mapping[str, Any]
"""Settings of a plug-in: `key=value` strings, or a mapping."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How the shell reads a field, where that differs from `--field-name VALUE`.

    flags: the names of the option, or of its value where it is an argument.
    type: what a shell gives, where Python takes more. min, max: bounds, for both doors.
    """

    flags: tuple[str, ...] = ()
    argument: bool = False
    type: Any = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """What a command was asked for. Values are checked, and words for paths become paths."""

    def __post_init__(self) -> None:
        for name, (kind, option) in field_types(type(self)).items():
            value = _coerced(getattr(self, name), kind)
            object.__setattr__(self, name, value)
            _check(name, value, kind, option)


@dataclass(frozen=True, kw_only=True)
class RunConfig(CommandConfig):
    """What every command that computes takes."""

    runs: Path = Path("runs")
    """The directory of all artifacts."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""
    trust_builder: bool = False
    """Let the teacher's card import code that is not winnow's, timm's or torchvision's."""


def field_types(config: type) -> dict[str, tuple[Any, Option]]:
    """Field -> (its type, its Option)."""
    found = {}
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        kind, option = hints[field.name], Option()
        if typing.get_origin(kind) is Annotated:
            kind, *extras = typing.get_args(kind)
            option = next((extra for extra in extras if isinstance(extra, Option)), option)
        found[field.name] = kind, option
    return found


def field_docs(config: type) -> dict[str, str]:
    """Field -> the docstring under it, in one line, inherited fields first."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            assert isinstance(tree, ast.ClassDef)
            docs |= docs_in(tree)
    return docs


def docs_in(tree: ast.ClassDef) -> dict[str, str]:
    """Field -> the docstring under it, of a class that was parsed and not run."""
    docs = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[ast.unparse(field.target)] = " ".join(below.value.value.split())
    return docs


def command(
    app: typer.Typer, config: type[C], name: str | None = None
) -> Callable[[Callable[[C], Answer | None]], Callable[[C], Answer | None]]:
    """Mounts a function of a configuration as a command whose options are its fields.

    Every command also takes --json, -q, -v and --log-format.
    """

    def mount(function: Callable[[C], Answer | None]) -> Callable[[C], Answer | None]:
        def run(**values: Any) -> None:
            talk = {key: values.pop(key) for key in _TALK}
            with session(**talk) as say:
                say(function(config(**{key: _given(value) for key, value in values.items()})))

        run.__doc__ = inspect.getdoc(config)
        vars(run)["__signature__"] = inspect.Signature([*_parameters(config), *_talk()])
        app.command(name or function.__name__.replace("_", "-"))(run)
        return function

    return mount


def _given(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _parameters(config: type) -> list[inspect.Parameter]:
    import typer

    docs, types_of = field_docs(config), field_types(config)
    found = []
    for field in dataclasses.fields(config):
        kind, option = types_of[field.name]
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        shell = option.type or _shell_type(kind)
        if default is None or (shell == list[str] and default == ()):
            shell, default = shell | None, None
        bounds = {"min": option.min, "max": option.max}
        about: dict[str, Any] = {"help": docs.get(field.name, ""), **bounds}
        if option.argument:
            marked: Any = typer.Argument(show_default=default is not None, **about)
        else:
            flags = option.flags or (("--" + field.name.replace("_", "-")),)
            if kind is bool and default is False:
                flags = flags if option.flags else (flags[0],)
            marked = typer.Option(*flags, **about)
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[shell, marked],
            )
        )
    return found


_TALK = ("as_json", "quiet", "verbose", "log_format")


def _talk() -> list[inspect.Parameter]:
    import typer

    said: list[tuple[str, Any, Any, tuple[str, ...], str]] = [
        ("as_json", bool, False, ("--json",), "Print one JSON document and nothing else."),
        ("quiet", bool, False, ("--quiet", "-q"), "Print nothing but errors."),
        ("verbose", bool, False, ("--verbose", "-v"), "Log more."),
        ("log_format", Literal["text", "json"], "text", ("--log-format",), "text or json."),
    ]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(*flags, help=text, rich_help_panel="Output")],
        )
        for name, kind, default, flags, text in said
    ]


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of another type itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _shell_type(kind: Any) -> Any:
    """What a shell gives for a field of this type."""
    members = [member for member in _members(kind) if member is not type(None)]
    if any(typing.get_origin(member) in (Sequence, tuple, Mapping) for member in members) or any(
        member is Mapping for member in members
    ):
        return list[str]
    return members[0]


def _coerced(value: Any, kind: Any) -> Any:
    members = _members(kind)
    if isinstance(value, str):
        if Path in members and str not in members:
            return Path(value)
        if str not in members and any(typing.get_origin(m) is Sequence for m in members):
            return (value,)
    if isinstance(value, list):
        return tuple(value)
    return value


def _check(name: str, value: Any, kind: Any, option: Option) -> None:
    if value is None:
        return
    choices = [
        choice
        for member in _members(kind)
        if typing.get_origin(member) is Literal
        for choice in typing.get_args(member)
    ]
    flag = option.flags[0] if option.flags else "--" + name.replace("_", "-")
    if choices and value not in choices:
        known = ", ".join(map(str, choices))
        raise BadSetting(f"{flag} is one of: {known}; not {value!r}.{nearest(str(value), choices)}")
    if isinstance(value, (int, float)):
        if option.min is not None and not value >= option.min:
            raise BadSetting(f"{flag} must be at least {option.min}, not {value}")
        if option.max is not None and not value <= option.max:
            raise BadSetting(f"{flag} must be at most {option.max}, not {value}")
