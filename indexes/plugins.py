"""Plug-ins: list, find and configure the modules of a plug-in folder; a file name is its name.

A plug-in is a file of winnow's own, a module that an installed package declares as an entry point,
or a path to a .py file. An installed package declares a module under one of GROUPS, for example
in its pyproject.toml::

    [project.entry-points."winnow.selection_methods"]
    my_method = "my_package.my_method"

The module has the same functions as winnow's own files in that folder (for example
pipeline/methods/random.py), and `winnow select --method my_method` finds it.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import logging
import sys
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


log = logging.getLogger(__name__)

GROUPS = {
    "pipeline.corpora": "winnow.corpora",
    "pipeline.methods": "winnow.selection_methods",
    "pipeline.generators": "winnow.generators",
    "distill.methods": "winnow.distillation_methods",
    "indexes.zoo": "winnow.students",
}
"""Plug-in folder -> the entry points of installed packages that add to it."""


class UnknownName(ValueError):
    """A name that no plug-in has; the message gives the nearest name and lists the others."""


class PluginError(ValueError):
    """A plug-in that cannot be run, or that returns something of the wrong form."""


class BadSetting(ValueError):
    """A setting with an unknown name or an invalid value."""


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest of `known`, or an empty string.

    Example:
        >>> nearest("radnom", ["random", "winnow"])
        " Did you mean 'random'?"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def names(package: str) -> list[str]:
    """Return the names of the plug-ins of a folder such as `distill.methods`, sorted."""
    return sorted(modules(package))


@functools.cache
def modules(package: str) -> types.MappingProxyType[str, str]:
    """Map the name of every plug-in of a folder to its module; installed packages come last.

    If a package's plug-in has the name of one of winnow's own, winnow's is used, with a warning.
    Raises UnknownName if there is no such folder.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UnknownName(f"there is no plug-in folder {package!r}")
    found = {
        file.stem: f"{package}.{file.stem}"
        for folder in spec.submodule_search_locations
        for file in Path(folder).glob("*.py")
        if not file.stem.startswith("_")
    }
    for entry in entry_points(group=GROUPS[package]) if package in GROUPS else ():
        if entry.name in found:
            distribution = entry.dist.name if entry.dist else entry.value
            log.warning(
                "the plug-in %r of the package %s is ignored: %s has the same name",
                entry.name, distribution, found[entry.name],
            )  # fmt: skip
        else:
            found[entry.name] = entry.module
    return types.MappingProxyType(found)


def source(package: str, name: str) -> ast.Module:
    """Return the syntax tree of a plug-in's file without running it, which makes listings fast.

    Raises UnknownName if the module of the plug-in is not installed.
    """
    module = modules(package)[name]
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UnknownName(f"the plug-in {name!r} names the module {module}, which is not installed")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def first_line(tree: ast.Module) -> str:
    """Return the first line of a file's docstring."""
    return (ast.get_docstring(tree) or "").split("\n", maxsplit=1)[0]


def find(package: str, name: str) -> ModuleType:
    """Import the plug-in `name` of a folder, or the user's own file if `name` ends in `.py`.

    Raises UnknownName, with the nearest name and a list of all, if there is no such plug-in.

    Example: `find("pipeline.methods", "random").Config`
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    known = modules(package)
    if name not in known:
        kind, listed = package.rsplit(".", 1)[-1], sorted(known)
        raise UnknownName(
            f"there is no {name!r} in {kind}.{nearest(name, listed)} Available: "
            f"{', '.join(listed)}. A path to a .py file of your own is accepted, too."
        )
    if known[name].startswith(f"{package}."):
        return importlib.import_module(known[name])
    try:
        return importlib.import_module(known[name])
    except ImportError as error:
        raise UnknownName(f"the plug-in {name!r} cannot be imported: {error}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"there is no file {path}: give the path of a plug-in's .py file")
    tag = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module_name = f"winnow_plugin_{path.stem}_{tag}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UnknownName(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]
        if not isinstance(error, Exception):
            raise
        raise PluginError(
            f"{path}, line {_line_in(path, error)}: {type(error).__name__}: {error}; "
            "correct the file"
        ) from error
    return module


def _line_in(path: Path, error: Exception) -> int:
    """Return the line of the file at `path` that led to `error`, the innermost if several did."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno or 0 for f in frames if Path(f.filename) == path.absolute()]
    if not lines and isinstance(error, SyntaxError):  # of this file, so no line of it has run
        return error.lineno or 0
    return lines[-1] if lines else 0


def preset(module: ModuleType, name: str) -> Any:
    """Return the settings under `name` in a plug-in's PRESETS.

    Raises BadSetting, which lists the presets, if there is none of that name.
    """
    known = getattr(module, "PRESETS", {})
    if name not in known:
        plugin = module.__name__.rpartition(".")[2]
        raise BadSetting(
            f"{plugin} has no preset {name!r}.{nearest(name, list(known))} Available: "
            f"{', '.join(known) or 'none'}"
        )
    return known[name]


def configure(cls: type[T], settings: Sequence[str] | Mapping[str, Any] = (), **defaults: Any) -> T:
    """Build a frozen dataclass from a mapping, or from `key=value` strings.

    A string may hold several pairs, separated by spaces. A value given as text is parsed by the
    type of its field: bool, int, float, str, Literal, one of these or None, or several of these,
    separated by commas. Raises BadSetting
    for an unknown key (with the nearest), an invalid value, or a field that has no default.

    Example: `configure(odsd.Config, {"prototypes": "kmeans", "num_prototypes": 8})`
    """
    fields = [field.name for field in dataclasses.fields(cls)]
    values = {**defaults, **parse(cls, split_pairs(settings, "--set"), fields)}
    without = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in without if name not in values]:
        raise BadSetting(
            f"the settings {', '.join(missing)} of {cls.__module__} have no value: give each a "
            "default in Config, or set it with --set"
        )
    return cls(**values)


def split_pairs(settings: Sequence[str] | Mapping[str, Any], flag: str) -> dict[str, Any]:
    """Return a mapping as it is, or the `key=value` strings of the option `flag` as a mapping.

    Raises BadSetting for a string without `=`.

    Example:
        >>> split_pairs(["a=1 b=2", "c=3"], "--set")
        {'a': '1', 'b': '2', 'c': '3'}
    """
    if isinstance(settings, Mapping):
        return dict(settings)
    pairs = {}
    for text in " ".join(settings).split():
        key, separator, value = text.partition("=")
        if not separator:
            raise BadSetting(f"{flag} takes key=value, not {text!r}")
        pairs[key] = value
    return pairs


def parse(cls: type[Any], values: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return values for some `fields` of a dataclass, each text parsed by the type of its field.

    Raises BadSetting for a key that is not one of `fields` (with the nearest), or a wrong value.

    Example: `parse(Recipe, {"drop_at": "0.5,0.75"}, ["drop_at"])`
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise BadSetting(
                f"there is no setting {key!r}.{nearest(key, fields)} Available: {known}"
            )
    return {
        key: _read(key, value, hints[key]) if isinstance(value, str) else value
        for key, value in values.items()
    }


def _read(key: str, text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if text in arguments:
            return text
        choices = ", ".join(map(str, arguments))
        raise BadSetting(
            f"{key} must be one of: {choices}; not {text!r}.{nearest(text, arguments)}"
        )
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _read(key, text, next(kind for kind in arguments if kind is not type(None)))
    if origin is tuple:
        return tuple(_read(key, part, arguments[0]) for part in text.split(","))
    if hint is bool:
        if text.lower() in {"true", "yes", "1", "on"}:
            return True
        if text.lower() in {"false", "no", "0", "off"}:
            return False
        raise BadSetting(f"{key} must be true or false, not {text!r}")
    try:
        return hint(text)
    except (TypeError, ValueError):
        raise BadSetting(f"{key} takes a value of type {hint.__name__}, not {text!r}") from None
