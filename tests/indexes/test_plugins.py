"""Plug-ins are found by file name; misspelled names get suggestions; settings are typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from indexes import plugins
from indexes.models.net import NetError, build_net, students

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Config:
    temperature: float = 4.0
    views: int = 1
    exact: bool = False
    balance: Literal["global", "quota"] = "global"
    limit: int | None = None
    shares: tuple[float, ...] | None = None


def test_plug_ins_are_listed_and_found_by_file_name() -> None:
    assert {"odsd", "dfnd", "random"} <= set(plugins.names("pipeline.methods"))
    assert plugins.find("pipeline.methods", "dfnd").__name__ == "pipeline.methods.dfnd"


def test_an_unknown_name_gets_a_list_and_a_suggestion() -> None:
    with pytest.raises(plugins.UnknownName, match=r"Did you mean 'odsd'\?.*Available: all, dfnd"):
        plugins.find("pipeline.methods", "odds")


def test_a_python_file_is_a_plug_in(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("ANSWER = 42\n")
    assert plugins.find("pipeline.methods", str(file)).ANSWER == 42
    with pytest.raises(plugins.UnknownName, match="no file"):
        plugins.find("pipeline.methods", str(tmp_path / "absent.py"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ndef broken(:\n", r"mine\.py, line 2: SyntaxError: .*; correct the file"),
        ("import absent_package\n", r"mine\.py, line 1: ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\n\nf()\n", r"mine\.py, line 2: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_run_names_its_line(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(code)
    for path in (str(file), "mine.py"):
        for _ in range(2):  # a failed import is not remembered
            with pytest.raises(plugins.PluginError, match=message):
                plugins.find("pipeline.methods", path)


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    terms: str
    weight: float = 1.0


def test_a_setting_without_a_value_is_named() -> None:
    with pytest.raises(plugins.BadSetting, match="the settings terms of"):
        plugins.configure(Incomplete, ["weight=2"])
    assert plugins.configure(Incomplete, ["terms=a"]).terms == "a"


ENTRY_POINTS = """
[winnow.corpora]
lake = plug_in_test.lake
demo = plug_in_test.lake

[winnow.students]
tiny = plug_in_test.tiny

[winnow.generators]
gone = plug_in_test.gone
"""
TINY = '''"""Tiny nets for a test."""

from torch import nn

__all__ = ["TinyNet"]


def TinyNet(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package that adds plug-ins in a folder on sys.path."""
    about = tmp_path / "plug_in_test-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in-test\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "plug_in_test").mkdir()
    (tmp_path / "plug_in_test" / "__init__.py").touch()
    lake = '"""A lake of images."""\n\nLAKE = True\n'
    (tmp_path / "plug_in_test" / "lake.py").write_text(lake)
    (tmp_path / "plug_in_test" / "tiny.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.modules.cache_clear()
    yield tmp_path
    plugins.modules.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plug_in_test")]:
        del sys.modules[name]


def test_an_installed_package_adds_plug_ins(installed: Path) -> None:
    assert {"demo", "imagenet21k", "lake"} <= set(plugins.names("pipeline.corpora"))
    tree = plugins.source("pipeline.corpora", "lake")
    assert plugins.first_line(tree) == "A lake of images."
    assert "plug_in_test.lake" not in sys.modules, "a listing imports no plug-in"
    assert plugins.find("pipeline.corpora", "lake").__name__ == "plug_in_test.lake"


def test_a_built_in_name_takes_precedence_with_a_warning(
    installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert plugins.find("pipeline.corpora", "demo").__name__ == "pipeline.corpora.demo"
    assert plugins.names("pipeline.corpora").count("demo") == 1
    assert caplog.messages == [
        "the plug-in 'demo' of the package plug-in-test"
        " is ignored: pipeline.corpora.demo has the same name"
    ]


def test_an_installed_package_adds_students(installed: Path) -> None:
    assert students()["TinyNet"] == "Tiny nets for a test."
    net = build_net("TinyNet", num_classes=4)
    assert net.builder == "plug_in_test.tiny:TinyNet"
    assert build_net(net.builder, num_classes=4).num_features == 3
    with pytest.raises(NetError, match=r"no net 'plug_in_test\.tiny:absent'"):
        build_net("plug_in_test.tiny:absent", num_classes=4)


def test_a_missing_declared_module_is_named(installed: Path) -> None:
    with pytest.raises(
        plugins.UnknownName, match=r"'gone' cannot be imported: .*plug_in_test\.gone"
    ):
        plugins.find("pipeline.generators", "gone")
    with pytest.raises(plugins.UnknownName, match=r"plug_in_test\.gone, which is not installed"):
        plugins.source("pipeline.generators", "gone")


def test_the_command_lists_installed_plug_ins(installed: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "winnow", "corpora"],
        capture_output=True, text=True, cwd=ROOT, check=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert "lake" in result.stdout
    assert "A lake of images." in result.stdout
    assert "plug-in 'demo' of the package plug-in-test is ignored" in result.stderr


def test_groups_name_folders_of_plug_ins() -> None:
    for package in plugins.GROUPS:
        assert plugins.names(package)


def test_settings_are_typed() -> None:
    config = plugins.configure(Config, ["temperature=2 views=3", "exact=yes", "limit=7"])
    assert config == Config(temperature=2.0, views=3, exact=True, limit=7)
    assert plugins.configure(Config, ["limit=none"]).limit is None
    for text, shares in (("0.5,0.75", (0.5, 0.75)), ("0.5", (0.5,)), ("none", None)):
        assert plugins.configure(Config, [f"shares={text}"]).shares == shares


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("temprature=2", "Did you mean 'temperature'"),
        ("views=two", "views takes a value of type int"),
        ("exact=maybe", "true or false"),
        ("balance=quotas", "Did you mean 'quota'"),
        ("views", "key=value"),
    ],
)
def test_bad_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(plugins.BadSetting, match=message):
        plugins.configure(Config, [setting])
