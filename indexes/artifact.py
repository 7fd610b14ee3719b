"""Artifacts: directories that are finished once they hold card.json, which is written last.

Every file is written under another name, synced to disk and renamed, so that a reader sees either
the whole file or none.
"""

from __future__ import annotations

import dataclasses
import difflib
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

# Kind -> schema version. A card of another version is refused; no old version is interpreted.
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
    """Convert `value` to JSON types: dataclasses, mappings, sequences, paths and numpy values.

    Raises TypeError for a value of any other type.

    Example:
        >>> plain({"path": Path("runs"), "counts": np.array([1, 2])})
        {'path': 'runs', 'counts': [1, 2]}
    """
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
    raise TypeError(f"a card cannot hold a {type(value).__name__}: give a JSON type or a dataclass")


def digest(value: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON of `value`.

    Example:
        >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
        True
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: str | Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, made: str) -> None:
    """Check that a file has its expected sha256; `made` names the thing to make again.

    Raises ArtifactError if the file has changed since it was written.
    """
    if sha256(path) != expected:
        raise ArtifactError(
            f"{path} has changed since it was written (its sha256 differs): delete {path.parent} "
            f"and make {made} again"
        )


def hash64(data: bytes) -> int:
    """Return the 64-bit BLAKE2b hash of `data`, which identifies a key or an image's bytes.

    Example:
        >>> hash64(b"cat") == hash64(b"cat"), hash64(b"cat") == hash64(b"dog")
        (True, False)
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock `directory` against other winnow processes within the block.

    `wait`: wait until the other process is done. Otherwise it raises ArtifactError if another
    process holds the lock. The operating system releases the lock when the process dies.
    """
    import filelock

    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise ArtifactError(
                f"another winnow process is using {directory}: wait until it is done"
            ) from None
        log.info("waiting for another winnow process that is using %s", directory)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`.

    A failure (a full disk, a kill) leaves `path` unchanged. The temporary file is then removed, or
    overwritten by the next attempt if the process was killed.

    Example::

        with writing("runs/note.txt") as aside:
            aside.write_text("whole or not at all")
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
    """Make `target` a hard link to `source`, or a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_whole(path: Path, num_bytes: int) -> bool:
    """Return whether `path` is a file of `num_bytes` bytes.

    Check this before mapping a file: reading a truncated mapping kills the process (a bus error).
    """
    return path.is_file() and path.stat().st_size == num_bytes


def sync_directory(directory: Path) -> None:
    """Sync `directory`, so that a rename in it survives a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with writing(path) as aside:
        aside.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def is_done(directory: str | Path) -> bool:
    """Return whether the artifact is finished: its card, which is written last, exists."""
    return (Path(directory) / CARD).is_file()


def check_done(path: Path) -> None:
    """Raise ArtifactError, which suggests similar paths, unless `path` is a finished artifact."""
    if is_done(path):
        return
    if path.exists():
        raise ArtifactError(f"{path} has no {CARD}: it is not a finished artifact")
    raise ArtifactError(f"no such file or folder: {path}{_similar(path)}")


def _similar(path: Path) -> str:
    """A hint: the artifacts of this name under runs/, else similar names in the same folder."""
    hits = [kind / path for kind in sorted(Path("runs").glob("*")) if is_done(kind / path)]
    if not hits:
        names = sorted(entry.name for entry in path.parent.glob("*"))
        hits = [path.parent / name for name in difflib.get_close_matches(path.name, names)]
    return f". Did you mean {' or '.join(map(str, hits))}?" if hits else ""


def write_card(directory: str | Path, kind: str, body: Mapping[str, Any]) -> None:
    """Write card.json (kind, schema and `body`), which declares `directory` a whole artifact."""
    write_json(Path(directory) / CARD, {"kind": kind, "schema": SCHEMAS[kind], **body})


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises ArtifactError, which names the file, if it holds no JSON object.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete its folder and rerun") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} does not hold a JSON object: delete its folder and rerun")
    return value


def read_card(directory: str | Path, kind: str) -> dict[str, Any]:
    """Read the card of a whole artifact of `kind`.

    Raises ArtifactError if the artifact is missing, unfinished, or of another kind or schema.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ArtifactError(f"no {kind} at {directory}: there is no such directory")
    if not is_done(directory):
        raise ArtifactError(
            f"{directory} has no {CARD}: it is not an artifact ({kind}), or it is unfinished; "
            "run the command that makes it again, which resumes where it stopped"
        )
    card = read_json(directory / CARD)
    if card.get("kind") != kind:
        raise ArtifactError(f"{directory} holds {card.get('kind')!r}, not {kind!r}")
    if card.get("schema") != SCHEMAS[kind]:
        raise ArtifactError(
            f"{directory} has schema {card.get('schema')!r}, but this version of winnow reads "
            f"{kind} of schema {SCHEMAS[kind]}: make it again with this version"
        )
    return card
