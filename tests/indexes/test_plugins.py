"""Names: plug-ins by file name, did-you-mean, typed settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from indexes import plugins


@dataclass(frozen=True, kw_only=True)
class Config:
    temperature: float = 4.0
    views: int = 1
    exact: bool = False
    balance: Literal["global", "quota"] = "global"
    limit: int | None = None


def test_lists_and_finds_files() -> None:
    assert {"odsd", "dfnd", "random"} <= set(plugins.names("pipeline.methods"))
    assert plugins.find("pipeline.methods", "dfnd").__name__ == "pipeline.methods.dfnd"


def test_unknown_name_lists_and_suggests() -> None:
    with pytest.raises(plugins.UnknownName, match=r"Did you mean 'odsd'\?.*There are: all, dfnd"):
        plugins.find("pipeline.methods", "odds")


def test_own_file_is_a_plug_in(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("ANSWER = 42\n")
    assert plugins.find("pipeline.methods", str(file)).ANSWER == 42
    with pytest.raises(plugins.UnknownName, match="no file"):
        plugins.find("pipeline.methods", str(tmp_path / "absent.py"))


def test_settings_are_typed() -> None:
    made = plugins.configure(Config, ["temperature=2 views=3", "exact=yes", "limit=7"])
    assert made == Config(temperature=2.0, views=3, exact=True, limit=7)
    assert plugins.configure(Config, ["limit=none"]).limit is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("temprature=2", "Did you mean 'temperature'"),
        ("views=two", "views is a int"),
        ("exact=maybe", "true or false"),
        ("balance=quotas", "Did you mean 'quota'"),
        ("views", "key=value"),
    ],
)
def test_bad_settings_say_so(setting: str, message: str) -> None:
    with pytest.raises(plugins.BadSetting, match=message):
        plugins.configure(Config, [setting])
