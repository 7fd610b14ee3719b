"""A file name is a plug-in name: list, find and configure what lives in a plug-in folder."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


class UnknownName(ValueError):
    """A name that no plug-in file bears; the message lists what exists and the nearest."""


class BadSetting(ValueError):
    """A `key=value` that the configuration does not have or cannot read."""


def nearest(name: str, known: Sequence[str]) -> str:
    """` Did you mean 'x'?` for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def names(package: str) -> list[str]:
    """The plug-in files of a package such as `distill.methods`, sorted."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UnknownName(f"no plug-in folder {package!r}")
    folders = [Path(place) for place in found.submodule_search_locations]
    return sorted(
        file.stem
        for folder in folders
        for file in folder.glob("*.py")
        if not file.stem.startswith("_")
    )


def source(package: str, name: str) -> ast.Module:
    """The plug-in file `name` of `package`, parsed and not run: cheap enough for a listing."""
    found = importlib.util.find_spec(f"{package}.{name}")
    assert found is not None
    assert found.origin is not None
    return ast.parse(Path(found.origin).read_text())


def first_line(tree: ast.Module) -> str:
    """What a file says that it is."""
    return (ast.get_docstring(tree) or "").split("\n", maxsplit=1)[0]


def find(package: str, name: str) -> ModuleType:
    """The plug-in `name` of `package`, or the user's own file when `name` ends in `.py`.

    Raises UnknownName, which lists what exists and the nearest name.
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    known = names(package)
    if name not in known:
        kind = package.rsplit(".", 1)[-1]
        raise UnknownName(
            f"no {name!r} in {kind}.{nearest(name, known)} There are: {', '.join(known)}. "
            "A path to a .py file of your own is accepted too."
        )
    return importlib.import_module(f"{package}.{name}")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"no file {path}")
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
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def preset(module: ModuleType, name: str) -> Any:
    """What stands under `name` in a plug-in's PRESETS; BadSetting lists what is there."""
    known = getattr(module, "PRESETS", {})
    if name not in known:
        plugin = module.__name__.rpartition(".")[2]
        raise BadSetting(
            f"{plugin} has no preset {name!r}.{nearest(name, list(known))} There are: "
            f"{', '.join(known) or 'none'}"
        )
    return known[name]


def configure(cls: type[T], settings: Sequence[str] = (), **defaults: Any) -> T:
    """A frozen dataclass from `key=value` strings (several may stand in one, space-separated).

    Values are read by the type of the field: bool, int, float, str, Literal, or one of these
    or None. Raises BadSetting for an unknown key (with the nearest) or an unreadable value.
    """
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    values: dict[str, Any] = dict(defaults)
    for pair in " ".join(settings).split():
        key, separator, text = pair.partition("=")
        if not separator:
            raise BadSetting(f"--set takes key=value, not {pair!r}")
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise BadSetting(f"no setting {key!r}.{nearest(key, fields)} There are: {known}")
        values[key] = _read(key, text, hints[key])
    return cls(**values)


def _read(key: str, text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if text in arguments:
            return text
        choices = ", ".join(map(str, arguments))
        raise BadSetting(f"{key} is one of: {choices}; not {text!r}.{nearest(text, arguments)}")
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _read(key, text, next(one for one in arguments if one is not type(None)))
    if hint is bool:
        if text.lower() in {"true", "yes", "1", "on"}:
            return True
        if text.lower() in {"false", "no", "0", "off"}:
            return False
        raise BadSetting(f"{key} is true or false, not {text!r}")
    try:
        return hint(text)
    except (TypeError, ValueError):
        raise BadSetting(f"{key} is a {hint.__name__}, not {text!r}") from None
