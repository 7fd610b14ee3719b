"""Command options from the fields of a dataclass, which configures both the shell and Python.

The docstring under a field is the help text of its option. The docstring of the class is the help
text of the command.
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

from indexes.command.console import Answer, session
from indexes.plugins import BadSetting, nearest

if TYPE_CHECKING:
    import typer

C = TypeVar("C", bound="CommandConfig")
Settings = Sequence[str] | Mapping[str, Any]
"""Settings of a plug-in: `key=value` strings, or a mapping."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How the shell reads a field, if that differs from `--field-name VALUE`.

    `flags`: the names of the option, or of the value of an argument. `type`: the type that a shell
    gives, if Python accepts more types. `min`, `max`: bounds, checked in the shell and in Python.
    """

    flags: tuple[str, ...] = ()
    argument: bool = False
    type: Any = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """The base of all configurations: it checks values and converts strings to paths.

    Raises BadSetting (a ValueError) for a value that is out of bounds or not one of the choices.
    """

    def __post_init__(self) -> None:
        for name, (kind, option) in field_types(type(self)).items():
            value = _coerced(getattr(self, name), kind)
            object.__setattr__(self, name, value)
            _check(name, value, kind, option)


@dataclass(frozen=True, kw_only=True)
class RunConfig(CommandConfig):
    """The common fields of all commands that compute."""

    runs: Path = Path("runs")
    """The directory of all artifacts."""
    device: str = "auto"
    """The device: auto (a GPU if there is one), cpu, cuda or cuda:1."""
    trust_builder: bool = False
    """Let the card of a teacher or a student run code from outside winnow, timm, torchvision and
    open_clip."""


def field_types(config: type) -> dict[str, tuple[Any, Option]]:
    """Map each field to (type, Option)."""
    fields = {}
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        kind, option = hints[field.name], Option()
        if typing.get_origin(kind) is Annotated:
            kind, *extras = typing.get_args(kind)
            option = next((extra for extra in extras if isinstance(extra, Option)), option)
        fields[field.name] = kind, option
    return fields


def field_docs(config: type) -> dict[str, str]:
    """Map each field to the docstring under it, in one line; inherited fields come first."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            assert isinstance(tree, ast.ClassDef)
            docs |= docs_in(tree)
    return docs


def docs_in(tree: ast.ClassDef) -> dict[str, str]:
    """Map each field of a parsed class to the docstring under it; the class is not executed."""
    docs = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target), ast.Expr(ast.Constant(str(text))):
                docs[ast.unparse(target)] = " ".join(text.split())
    return docs


def command(
    app: typer.Typer, config: type[C], name: str | None = None
) -> Callable[[Callable[[C], Answer | None]], Callable[[C], Answer | None]]:
    """Register a function of a configuration as a command whose options are the fields.

    Every command also has the options --json, -q, -v and --log-format.

    Example::

        @command(app, SearchConfig)
        def search(config: SearchConfig) -> Answer: ...
    """

    def mount(function: Callable[[C], Answer | None]) -> Callable[[C], Answer | None]:
        def run(**values: Any) -> None:
            output = {name: values.pop(name) for name in list(_OUTPUT)}
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
                if value is not None
            }
            with session(**output) as say:
                say(function(config(**given)))

        run.__doc__ = inspect.getdoc(config)
        vars(run)["__signature__"] = inspect.Signature(_parameters(config))
        app.command(name or function.__name__.replace("_", "-"))(run)
        return function

    return mount


_OUTPUT: dict[str, tuple[Any, Any, tuple[str, ...], str]] = {
    "as_json": (bool, False, ("--json",), "Print the answer as one JSON document on stdout."),
    "quiet": (bool, False, ("--quiet", "-q"), "Print errors only."),
    "verbose": (bool, False, ("--verbose", "-v"), "Print more log lines."),
    "log_format": (Literal["text", "json"], "text", ("--log-format",), "Log as text, or as JSON."),
}
"""Parameters of `session` -> type, default, flags, help."""


def _parameters(config: type) -> list[inspect.Parameter]:
    """The command's options for typer: its own fields, inherited fields, then output options."""
    import typer

    docs, types_of = field_docs(config), field_types(config)
    own = vars(config).get("__annotations__", {})
    parameters = [
        _parameter(field, *types_of[field.name], docs.get(field.name, ""))
        for field in sorted(dataclasses.fields(config), key=lambda field: field.name not in own)
    ]
    for name, (kind, default, flags, text) in _OUTPUT.items():
        marker = typer.Option(*flags, help=text, rich_help_panel="Output")
        parameters.append(_keyword(name, kind, marker, default))
    return parameters


def _parameter(
    field: dataclasses.Field[Any], kind: Any, option: Option, text: str
) -> inspect.Parameter:
    import typer

    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    shell = option.type or _shell_type(kind)
    if default is None or (shell == list[str] and default == ()):
        shell, default = shell | None, None
    settings: dict[str, Any] = {"help": text, "min": option.min, "max": option.max}
    if option.argument:
        argument = typer.Argument(show_default=default is not None, **settings)
        return _keyword(field.name, shell, argument, default)
    flags = option.flags or (flag_of(field.name),)
    return _keyword(field.name, shell, typer.Option(*flags, **settings), default)


def _keyword(name: str, kind: Any, marker: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, marker],
    )


def flag_of(name: str) -> str:
    """Return the option name of a field.

    Example:
        >>> flag_of("exclude_eval")
        '--exclude-eval'
    """
    return "--" + name.replace("_", "-")


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union; any other type is its own single member."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _shell_type(kind: Any) -> Any:
    """The type that a shell gives for a field: a list of strings if it holds several values."""
    members = [member for member in _members(kind) if member is not type(None)]
    for member in members:
        if (typing.get_origin(member) or member) in (Sequence, tuple, Mapping):
            return list[str]
    return members[0]


def _coerced(value: Any, kind: Any) -> Any:
    """Convert a string to a path or to a sequence of one item, and a list to a tuple."""
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
    flag = option.flags[0] if option.flags else flag_of(name)
    if choices and value not in choices:
        known = ", ".join(map(str, choices))
        raise BadSetting(
            f"{flag} must be one of: {known}; not {value!r}.{nearest(str(value), choices)}"
        )
    if isinstance(value, (int, float)):
        if option.min is not None and not value >= option.min:
            raise BadSetting(f"{flag} must be at least {option.min}, not {value}")
        if option.max is not None and not value <= option.max:
            raise BadSetting(f"{flag} must be at most {option.max}, not {value}")
