"""A directory is an artifact once its card.json is there: written aside, synced, renamed, last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

# A card of another schema version is refused by name, never guessed at.
SCHEMAS = {
    "teacher": 1,
    "embeddings": 4,
    "vectors": 2,
    "dedup": 2,
    "columns": 1,
    "scores": 1,
    "selection": 2,
    "weights": 2,
    "shards": 2,
    "generators": 2,
    "targets": 2,
    "export": 2,
}
CARD = "card.json"


class ArtifactError(ValueError):
    """An artifact that is missing, unfinished, stale, damaged or of another kind."""


def plain(value: Any) -> Any:
    """`value` as JSON types: dataclasses, paths, tuples and numpy scalars are unfolded."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a card")


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: str | Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, made: str) -> None:
    """ArtifactError unless the file is as it was written; `made` says what to make again."""
    if sha256(path) != expected:
        raise ArtifactError(
            f"{path} is not what was written (sha256 differs): delete {path.parent} and make "
            f"{made} again"
        )


def hash64(data: bytes) -> int:
    """A 64-bit BLAKE2b of `data`: the identity of a key or of an image's bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds `directory` against other processes of winnow.

    wait: until another process is done; otherwise ArtifactError where one holds the directory.
    The lock falls with the process, however it dies.
    """
    import filelock

    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise ArtifactError(f"another winnow is at work in {directory}") from None
        log.info("waiting for another winnow at work in %s", directory)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yields a path aside of `path`; on success it is synced and renamed over `path`.

    A failure (a full disk, a kill) leaves `path` as it was; the aside file is removed where the
    process still can, and overwritten by the next try where it could not.

    Example:
        >>> with writing("runs/note.txt") as aside:
        ...     aside.write_text("whole or not at all")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy where the file system cannot."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_whole(path: Path, num_bytes: int) -> bool:
    """Whether there is a file of that size: a cut one, once mapped, would be a bus error."""
    return path.is_file() and path.stat().st_size == num_bytes


def sync_directory(directory: Path) -> None:
    """Makes a rename in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with writing(path) as aside:
        aside.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def is_done(directory: str | Path) -> bool:
    """Whether the artifact's card, written last, is there."""
    return (Path(directory) / CARD).is_file()


def write_card(directory: str | Path, kind: str, body: Mapping[str, Any]) -> None:
    """Declares `directory` a whole artifact of `kind`: card.json with kind, schema and `body`."""
    write_json(Path(directory) / CARD, {"kind": kind, "schema": SCHEMAS[kind], **body})


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object from a file; ArtifactError names the file when it is not one."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete its folder and rerun") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is not a JSON object; delete its folder and rerun")
    return value


def read_card(directory: str | Path, kind: str) -> dict[str, Any]:
    """The card of a whole artifact of `kind`; ArtifactError says what is wrong and the mend."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ArtifactError(f"no {kind} at {directory}: there is no such directory")
    if not is_done(directory):
        raise ArtifactError(
            f"{directory} has no {CARD}: it is not {kind}, or its making was cut off; "
            "run the command that makes it again, it goes on where it stopped"
        )
    card = read_json(directory / CARD)
    if card.get("kind") != kind:
        raise ArtifactError(f"{directory} holds {card.get('kind')!r}, not {kind!r}")
    if card.get("schema") != SCHEMAS[kind]:
        raise ArtifactError(
            f"{directory} has schema {card.get('schema')!r}; this winnow reads {kind} of schema "
            f"{SCHEMAS[kind]}: make it again with this version"
        )
    return card
