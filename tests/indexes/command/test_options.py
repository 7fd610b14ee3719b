"""One dataclass defines the options, help text and checks of a command, in shell and Python."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from indexes.command.console import Answer
from indexes.command.options import CommandConfig, Option, RunConfig, command, docs_in, field_docs
from indexes.plugins import BadSetting


@dataclass(frozen=True, kw_only=True)
class BakeConfig(RunConfig):
    """Bake loaves of bread.

    Example: winnow bake rye.txt
    """

    recipes: Annotated[Sequence[Path | str], Option(argument=True)] = ()
    """Recipe files."""
    flour: str
    """Which flour,
    by name."""
    oven: Path | None = None
    """The oven's directory."""
    num_loaves: Annotated[int, Option(flags=("--loaves", "-l"), min=1, max=12)] = 2
    """Loaves to bake."""
    crust: Literal["thin", "thick"] = "thin"
    """How the crust comes out."""
    settings: Annotated[Sequence[str] | Mapping[str, object], Option(flags=("--set",))] = ()
    """key=value; repeat."""
    steam: bool = False
    """Steam the oven."""


app = typer.Typer()


@app.callback()
def kitchen() -> None:
    """Make an app of two commands, so that typer requires the name of the command."""


@command(app, BakeConfig)
def bake(config: BakeConfig) -> Answer:
    return Answer(config, (f"{config.num_loaves} loaves",))


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bake", *arguments], env={"COLUMNS": "100"})
    return result.exit_code, result.output


def document(*arguments: str) -> dict[str, object]:
    code, text = invoke(*arguments, "--json")
    assert code == 0, text
    body: dict[str, object] = json.loads(text)
    return body


def test_shell_and_python_give_the_same_defaults() -> None:
    assert document("--flour", "rye") == {
        "runs": "runs",
        "device": "auto",
        "trust_builder": False,
        "recipes": [],
        "flour": "rye",
        "oven": None,
        "num_loaves": 2,
        "crust": "thin",
        "settings": [],
        "steam": False,
    }
    config = BakeConfig(flour="rye")
    assert config.recipes == config.settings == ()
    assert config.runs == Path("runs")


def test_shell_and_python_take_the_same_values() -> None:
    words = "a.txt b.txt --flour rye --oven o -l 3 --crust thick --set a=1 --set b=2 --steam"
    config = BakeConfig(
        recipes=["a.txt", "b.txt"],
        flour="rye",
        oven="o",  # type: ignore[arg-type]
        num_loaves=3,
        crust="thick",
        settings=["a=1", "b=2"],
        steam=True,
    )
    assert document(*words.split()) == {
        "runs": "runs",
        "device": "auto",
        "trust_builder": False,
        "recipes": ["a.txt", "b.txt"],
        "flour": "rye",
        "oven": "o",
        "num_loaves": 3,
        "crust": "thick",
        "settings": ["a=1", "b=2"],
        "steam": True,
    }
    assert config.oven == Path("o")
    assert config.settings == ("a=1", "b=2")
    assert BakeConfig(flour="rye", settings={"a": 1}).settings == {"a": 1}


def test_a_single_string_is_a_sequence_of_one() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Words(CommandConfig):
        words: Sequence[str] = ()

    assert Words(words="one").words == ("one",)


def test_help_text_comes_from_the_docstrings() -> None:
    code, text = invoke("--help")
    assert code == 0
    for words in (
        "Bake loaves of bread.",
        "Example: winnow bake rye.txt",
        "Recipe files.",
        "Which flour, by name.",
        "--loaves",
        "1<=x<=12",
        "thin|thick",
        "--set",
        "The directory of all artifacts.",
        "Print the answer as one JSON document on stdout.",
    ):
        assert words in text
    assert "--no-steam" not in text


def test_inherited_options_come_first() -> None:
    docs = field_docs(BakeConfig)
    assert list(docs)[:4] == ["runs", "device", "trust_builder", "recipes"]
    assert docs["flour"] == "Which flour, by name."


def test_docs_are_read_without_running_the_class() -> None:
    tree = ast.parse('class Config:\n    a: int = 1\n    """What\n    it is."""\n    b: int = 2\n')
    (node,) = tree.body
    assert isinstance(node, ast.ClassDef)
    assert docs_in(node) == {"a": "What it is."}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_loaves": 0}, "--loaves must be at least 1, not 0"),
        ({"num_loaves": 13}, "--loaves must be at most 12, not 13"),
        (
            {"crust": "thik"},
            "--crust must be one of: thin, thick; not 'thik'. Did you mean 'thick'?",
        ),
    ],
)
def test_values_are_checked_in_python(values: dict[str, object], message: str) -> None:
    with pytest.raises(BadSetting) as caught:
        BakeConfig(flour="rye", **values)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "words",
    ["", "--flour rye --loaves 0", "--flour rye --loaves many", "--flour rye --crust none",
     "--flour rye --yeast 3", "--flour"],
)  # fmt: skip
def test_usage_errors_have_a_separate_exit_code(words: str) -> None:
    code, _ = invoke(*words.split())
    assert code == 2


def test_a_misspelled_option_is_corrected_by_a_suggestion() -> None:
    code, text = invoke("--flour", "rye", "--loave", "3")
    assert code == 2
    assert "--loaves" in text
