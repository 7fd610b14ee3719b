"""The fields of the configurations as a reader needs them: plain types, texts as written."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from typing import Any

from sphinx.application import Sphinx

from indexes.command.options import CommandConfig

MODULES = ("indexes.cli", "pipeline.cli", "distill.cli")
"""Importing these defines every configuration."""


def drop_option_marks(_app: Sphinx) -> None:
    """Replace `Annotated[T, Option(...)]` by T; the command reference has bounds and flags."""
    for module in MODULES:
        importlib.import_module(module)
    for config in subclasses(CommandConfig):
        types = typing.get_type_hints(config)
        names = {field.name for field in dataclasses.fields(config)}
        own = {name for name in vars(config).get("__annotations__", {}) if name in names}
        config.__annotations__ |= {name: types[name] for name in own}
        config.__init__.__annotations__ |= {name: types[name] for name in names}


def subclasses(cls: type[Any]) -> list[Any]:
    """Return a class and all that derive from it."""
    return [cls, *(found for child in cls.__subclasses__() for found in subclasses(child))]


class KeptFields:
    """Keeps the text of a field from napoleon, which takes the words before a colon for a type."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    def hide(self, _app: Sphinx, what: str, name: str, _o: Any, _c: Any, lines: list[str]) -> None:
        """Put the text of an attribute aside, before napoleon reads it."""
        if what == "attribute":
            self.texts[name], lines[:] = lines[:], ["."]

    def show(self, _app: Sphinx, what: str, name: str, _o: Any, _c: Any, lines: list[str]) -> None:
        """Put the text of an attribute back."""
        if what == "attribute":
            lines[:] = self.texts.pop(name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the extension."""
    kept = KeptFields()
    app.connect("builder-inited", drop_option_marks)
    app.connect("autodoc-process-docstring", kept.hide, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", kept.show, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
