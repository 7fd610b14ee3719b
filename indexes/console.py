"""How a command talks: log lines and bars on stderr, its answer on stdout, one exit code.

Exit codes: 0 done; 1 the user's mistake; 2 usage; 3 a damaged or refused artifact;
130 interrupted by Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from indexes.artifact import ArtifactError, plain

PACKAGES = ("indexes", "pipeline", "distill", "winnow", "winnow_demo")
PROGRESS = "indexes.progress"
MISTAKE, REFUSED, INTERRUPTED, TERMINATED = 1, 3, 130, 143
WIDTH = 79


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the run ends as after Ctrl-C, with another exit code."""


@dataclass(frozen=True)
class Answer:
    """What a command says on stdout: lines for a person, or one JSON document for a machine."""

    document: Any
    lines: Iterable[str] = ()
    code: int = 0


class Handler(logging.Handler):
    """Log records to stderr; on a terminal, progress is a bar that stays on the last line."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self.stream = sys.stderr
        self.as_json = log_format == "json"
        self.live = self.stream.isatty() and not self.as_json
        self._bar = False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record, or draws it over the bar."""
        is_progress = record.name == PROGRESS
        is_tick = is_progress and record.levelno < logging.INFO
        if is_tick != self.live and is_progress and not getattr(record, "is_last", False):
            return
        if self.live and self._bar:
            self.stream.write(f"\r{'':<{WIDTH}}\r")
        self.stream.write(self.text(record) + ("" if is_tick else "\n"))
        self.stream.flush()
        self._bar = is_tick

    def text(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        message = printable(record.getMessage())
        if self.as_json:
            body = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
                **getattr(record, "numbers", {}),
            }
            return json.dumps(body)
        if record.name == PROGRESS:
            return message[:WIDTH] if self.live else message
        if record.levelno >= logging.WARNING:
            return f"{_colored(record.levelname.lower(), self.live)} {message}"
        return message


def _colored(word: str, live: bool) -> str:
    color = {"warning": "33"}.get(word, "31")
    return f"\033[{color}m{word}:\033[0m" if live else f"{word}:"


@contextmanager
def session(
    *, as_json: bool = False, quiet: bool = False, verbose: bool = False, log_format: str = "text"
) -> Iterator[Callable[[Answer | None], None]]:
    """One command: logs go to stderr, errors become a line and an exit code.

    Yields the function that prints the command's answer.
    """
    handler = Handler(log_format)
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    progress = logging.getLogger(PROGRESS)
    code = 0

    def say(answer: Answer | None) -> None:
        nonlocal code
        if answer is None:
            return
        code = answer.code
        if as_json:
            print(json.dumps(plain(answer.document), indent=1), flush=True)
            return
        for line in answer.lines:  # lines may be made as they are printed
            if not quiet:
                print(printable(line), flush=True)

    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    progress.setLevel(logging.DEBUG if handler.live and not quiet else level)
    try:
        with user_errors():
            yield say
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(was)
        progress.setLevel(logging.NOTSET)
    if code:
        _leave(code)


@contextmanager
def user_errors() -> Iterator[None]:
    """Errors that a person can mend become one line on stderr and an exit code."""
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        raise
    except ArtifactError as error:
        fail(str(error), REFUSED)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            place = error.filename or "the output directory"
            error = OSError(
                f"{place}: the disk is full. Make room and run the same command again: "
                "it goes on where it stopped"
            )
        fail(str(error))
    except ValueError as error:
        fail(str(error))
    except RuntimeError as error:
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        fail(f"the device's memory is full ({error}): try a smaller batch, or another device")
    except KeyboardInterrupt as error:
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        fail("interrupted; run the same command again to go on", code)


def fail(message: str, code: int = MISTAKE) -> None:
    """Prints `error: message` on stderr and leaves with an exit code."""
    print(f"{_colored('error', sys.stderr.isatty())} {printable(message)}", file=sys.stderr)
    sys.stderr.flush()
    _leave(code)


def _leave(code: int) -> None:
    import typer

    raise typer.Exit(code)


def printable(line: str) -> str:
    """Without what would steer a terminal: a path or a name may hold anything."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
