"""The output of a command: its streams, levels and formats, and its exit codes."""

from __future__ import annotations

import errno
import json
import logging
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from indexes.artifact import ArtifactError
from indexes.command.console import PACKAGES, Answer, Terminated, explain, printable, session
from indexes.command.progress import Progress

ROOT = Path(__file__).parents[3]
log = logging.getLogger("indexes.test")


def talk(**options: Any) -> None:
    """Run a command that logs at every level, shows two units of progress and prints a result."""
    with session(**options) as say:
        log.debug("a detail")
        log.info("a step")
        log.warning("a doubt")
        with Progress("work", 2, "units", line_seconds=0) as progress:
            progress.add(2)
        say(Answer({"path": Path("x"), "count": 2}, ["the answer"]))


def test_logs_go_to_stderr_and_the_result_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    talk()
    out, err = capsys.readouterr()
    assert out == "the answer\n"
    step, doubt, line, last = err.splitlines()
    assert (step, doubt) == ("a step", "warning: a doubt")
    assert line.startswith("work: 2 of 2 units, ")
    assert last.startswith("work: 2 units in 0:00, ")


def test_json_output_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    talk(as_json=True)
    assert json.loads(capsys.readouterr().out) == {"path": "x", "count": 2}


def test_quiet_prints_only_errors(capsys: pytest.CaptureFixture[str]) -> None:
    talk(quiet=True)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(typer.Exit), session(quiet=True):
        raise ValueError("a mistake")
    assert capsys.readouterr().err == "error: a mistake\n"


def test_quiet_still_prints_the_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    talk(quiet=True, as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["count"] == 2
    assert not err


def test_verbose_adds_details(capsys: pytest.CaptureFixture[str]) -> None:
    talk(verbose=True)
    assert capsys.readouterr().err.startswith("a detail\na step\n")


def test_log_format_json_writes_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    talk(log_format="json")
    with pytest.raises(typer.Exit), session(log_format="json"):
        raise ArtifactError("damaged")
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [record["level"] for record in records] == ["info", "warning", "info", "info", "error"]
    assert {record["logger"] for record in records[2:4]} == {"indexes.command.progress"}
    assert (records[3]["stage"], records[3]["done"]) == ("work", 2)
    assert (records[4]["message"], records[4]["exit_code"]) == ("damaged", 3)
    assert all(record["time"].endswith("Z") for record in records)


def test_a_session_restores_the_logging_configuration() -> None:
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    talk(verbose=True)
    with pytest.raises(KeyError), session():
        raise KeyError("ours")
    assert [(logger.level, list(logger.handlers)) for logger in loggers] == before


def test_a_result_can_set_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, session() as say:
        say(Answer(None, ["one of three failed"], code=1))
    assert caught.value.exit_code == 1
    assert capsys.readouterr() == ("one of three failed\n", "")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("a bad thing"), 1, "a bad thing"),
        (FileNotFoundError(2, "No such file", "x.tar"), 1, "x.tar: No such file; check the path"),
        (FileExistsError(17, "File exists", "names.txt"), 1, "names.txt is a file, but a folder"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: the disk is full"),
        (RuntimeError("CUDA out of memory"), 1, "try a smaller batch"),
        (ArtifactError("card.json is damaged"), 3, "card.json is damaged"),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (Terminated(), 143, "run the same command again"),
    ],
)
def test_errors_print_one_line_and_set_an_exit_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, session():
        raise error
    assert caught.value.exit_code == code
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "error", [KeyError("ours"), RuntimeError("ours"), BrokenPipeError(errno.EPIPE, "Broken pipe")]
)
def test_defects_and_closed_pipes_are_raised(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(error) is None
    with pytest.raises(type(error)), session():
        raise error
    assert not capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[31mb\n") == "a\\x1b[31mb\\n"
    with session() as say:
        log.info("key \x1b[2J")
        say(Answer(None, ["key \x07"]))
    assert capsys.readouterr() == ("key \\x07\n", "key \\x1b[2J\n")


NAP = """
import signal, sys, time
import winnow
from indexes.command.options import CommandConfig, command

@command(winnow.app, CommandConfig)
def nap(config):
    print("asleep", flush=True)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.argv = ["winnow", "nap"]
winnow.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_have_exit_codes(number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", NAP],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == "error: interrupted: run the same command again to resume\n"


WORK = """
import logging, time
from indexes.command.console import session
from indexes.command.progress import Progress

with session():
    with Progress("work", 2, "units", tick_seconds=0, line_seconds=0) as progress:
        progress.add(1)
        logging.getLogger("indexes").warning("a doubt")
        progress.add(1)
"""


def stderr_on_a_terminal(code: str) -> str:
    """Return what a program writes to stderr if stderr is a terminal."""
    leader, follower = pty.openpty()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=follower, check=True)
    os.close(follower)
    data = b""
    try:
        while piece := os.read(leader, 1 << 16):
            data += piece
    except OSError:  # Linux reports the end of a terminal as an error.
        pass
    os.close(leader)
    return data.decode()


def test_a_terminal_bar_is_erased_before_each_line() -> None:
    doubt, last, end = stderr_on_a_terminal(WORK).replace("\r\n", "\n").split("\n")
    erase = "\r" + " " * 79 + "\r"
    bar, line = doubt.split(erase)
    assert bar.startswith("[##########          ] work: 1 of 2 units, ")
    assert line == "\x1b[33mwarning\x1b[0m: a doubt"
    bar, line = last.split(erase)
    assert bar.startswith("[####################] work: 2 of 2 units, ")
    assert line.startswith("work: 2 units in 0:00, ")
    assert not end
