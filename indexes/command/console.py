"""The output of a command: log lines and progress on stderr, its answer on stdout, an exit code.

The exit codes are:

- 0: the command succeeded;
- 1: a wrong value, or a file or device that cannot be used;
- 2: wrong usage, such as an unknown option or a value of the wrong type;
- 3: an artifact is missing, damaged or refused;
- 130: interrupted by Ctrl-C;
- 143: terminated by SIGTERM.
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

log = logging.getLogger(__name__)

PACKAGES = ("indexes", "pipeline", "distill", "winnow", "winnow_demo")
PROGRESS = "indexes.command.progress"
MISTAKE, REFUSED, INTERRUPTED, TERMINATED = 1, 3, 130, 143
WIDTH = 79
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch's messages, on GPU and CPU


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: the run ends as after Ctrl-C, with a different exit code."""


@dataclass(frozen=True)
class Answer:
    """The output of a command on stdout: lines for people, or one JSON document for programs."""

    document: Any
    lines: Iterable[str] = ()
    code: int = 0


class Handler(logging.Handler):
    """Writes log records to stderr, as lines of text or of JSON.

    On a terminal, progress is a bar on the last line. Elsewhere it is a line every ten seconds
    (indexes.command.progress).
    """

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self.stream = sys.stderr
        self.as_json = log_format == "json"
        self.is_live = self.stream.isatty() and not self.as_json
        self._bar_is_drawn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line; a progress tick redraws the bar."""
        is_tick = record.name == PROGRESS and record.levelno < logging.INFO
        is_repeat = record.name == PROGRESS and not is_tick and not hasattr(record, "is_last")
        if is_repeat if self.is_live else is_tick:
            return
        if self._bar_is_drawn:
            self.stream.write(f"\r{'':<{WIDTH}}\r")
        self.stream.write(self._text(record) + ("" if is_tick else "\n"))
        self.stream.flush()
        self._bar_is_drawn = is_tick

    def _text(self, record: logging.LogRecord) -> str:
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
            return message[:WIDTH] if self.is_live else message
        if record.levelno < logging.WARNING:
            return message
        level = record.levelname.lower()
        if self.is_live:
            level = f"\033[{'33' if level == 'warning' else '31'}m{level}\033[0m"
        return f"{level}: {message}"


@contextmanager
def session(
    *, as_json: bool = False, quiet: bool = False, verbose: bool = False, log_format: str = "text"
) -> Iterator[Callable[[Answer | None], None]]:
    """Run one command: write logs to stderr, and turn an error into a line there.

    It yields the function that prints the command's answer on stdout. Raises typer.Exit at the end
    with the exit code, if that is not zero.
    """
    code = 0

    def say(answer: Answer | None) -> None:
        nonlocal code
        if answer is None:
            return
        code = answer.code
        if as_json:
            print(json.dumps(plain(answer.document), indent=1), flush=True)
        elif not quiet:
            for line in answer.lines:  # flush each: a generator may compute them one by one
                print(printable(line), flush=True)

    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    with _logging_to(Handler(log_format), level):
        try:
            yield say
        except (Exception, KeyboardInterrupt) as error:
            explained = explain(error)
            if explained is None:
                raise
            message, code = explained
            log.error("%s", message, extra={"numbers": {"exit_code": code}})
    if code:
        import typer

        raise typer.Exit(code)


@contextmanager
def _logging_to(handler: Handler, level: int) -> Iterator[None]:
    """Send the records of all packages to `handler`, and restore the log levels at the end."""
    levels = {logging.getLogger(name): level for name in PACKAGES}
    if handler.is_live and level < logging.ERROR:
        levels[logging.getLogger(PROGRESS)] = logging.DEBUG
    levels_before = {logger: logger.level for logger in levels}
    for logger, wanted in levels.items():
        logger.setLevel(wanted)
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(handler)
        for logger, wanted in levels_before.items():
            logger.setLevel(wanted)


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return (line, exit code) for an error that the user can fix; None for a bug of the program.

    Example:
        >>> explain(ValueError("no such method"))
        ('no such method', 1)
    """
    if isinstance(error, BrokenPipeError):
        return None  # the reader of the pipe has closed it, as `head` does
    if isinstance(error, KeyboardInterrupt):
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return "interrupted: run the same command again to resume", code
    if isinstance(error, ArtifactError):
        return str(error), REFUSED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"{error.filename or 'the output directory'}: the disk is full. Free some space and "
            "run the same command again: it resumes where it stopped",
            MISTAKE,
        )
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename:
        return f"{error.filename} is a file, but a folder is needed: give another path", MISTAKE
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the path and its permissions", MISTAKE
    if isinstance(error, (OSError, ValueError)):
        return str(error), MISTAKE
    if isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY):
        return f"out of memory ({error}): try a smaller batch, or another device", MISTAKE
    return None


def printable(line: str) -> str:
    """Escape the characters of a line that would control a terminal; a path may hold any.

    Example:
        >>> print(printable("a" + chr(27) + "b"))
        a\\x1bb
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
