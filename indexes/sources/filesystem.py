"""One interface to local paths and fsspec URLs: classify, identify, open and list locations."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from indexes.sources.sample import SourceError

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.:-]*://")
WILD = re.compile(r"[*?\[]")


def is_url(location: str) -> bool:
    """Return whether `location` is a URL rather than a local path.

    Example:
        >>> is_url("s3://bucket/a.tar"), is_url("/data/a.tar")
        (True, False)
    """
    return bool(URL.match(location))


def local(location: str) -> str:
    """Resolve `~` and `file://`; return any other location unchanged.

    Example:
        >>> local("file:///data/a.tar")
        '/data/a.tar'
    """
    if location.startswith("file://"):
        return location[len("file://") :]
    return location if is_url(location) else os.path.expanduser(location)


def path_of(location: str) -> str:
    """Return the path of a location without host, query and fragment; use it for names only.

    Example:
        >>> path_of("https://host/data/a.tar?token=secret")
        '/data/a.tar'
    """
    if not is_url(location):
        return location
    return urlsplit(location).path if location.startswith("http") else location.split("://", 1)[1]


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path within it.

    Raises SourceError, which says what to install, if no installed package reads such URLs.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceError(
            f"{redacted(url)}: this kind of URL cannot be read here ({error}); install its fsspec "
            "package (s3fs for s3://, gcsfs for gs://, aiohttp for http://) or copy the data to a "
            "local disk"
        ) from None
    return system, str(path)


def redacted(location: str) -> str:
    """Return `location` without credentials and query, which may hold secrets; safe to print.

    Example:
        >>> redacted("https://user:secret@host/a.tar?token=secret")
        'https://host/a.tar'
    """
    if not is_url(location):
        return location
    return re.sub(r"//[^/@]*@", "//", location.split("?", 1)[0])


@contextmanager
def opened(location: str) -> Iterator[BinaryIO]:
    """Open a location for reading bytes."""
    if is_url(location):
        system, path = filesystem(location)
        with system.open(path, "rb") as file:
            yield file
    else:
        with open(location, "rb") as file:
            yield file


def identity(location: str) -> str:
    """Return size and mtime_ns of a file, or size and ETag of a URL; `missing` if it is absent.

    Raises SourceError if the store behind a URL fails.
    """
    if not is_url(location):
        try:
            status = os.stat(location)
        except FileNotFoundError:
            return "missing"
        return f"{status.st_size}-{status.st_mtime_ns}"
    system, path = filesystem(location)
    try:
        info = system.info(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise SourceError(f"{redacted(location)}: {error}") from None
    names = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
    mark = next((str(info[name]) for name in names if info.get(name)), "")
    return f"{info.get('size')}-{mark}"


def is_folder(location: str) -> bool:
    """Return whether `location` is a folder; for a URL, a folder of objects."""
    if not is_url(location):
        return os.path.isdir(location)
    system, path = filesystem(location)
    return bool(system.isdir(path))


def matches(pattern: str) -> list[str]:
    """Return the sorted matches of a glob; a pattern without a wildcard, or one that names an
    existing file, is returned as it is.
    """
    if not WILD.search(pattern) or (not is_url(pattern) and os.path.lexists(pattern)):
        return [pattern]
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    if pattern.startswith("http"):
        return [pattern]  # a query may hold a `?`, and web servers do not list files reliably
    system, path = filesystem(pattern)
    return sorted(system.unstrip_protocol(match) for match in system.glob(path))


def children(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of a folder's sub-folders and files, each sorted, without hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    if is_url(folder):
        system, path = filesystem(folder)
        for info in system.ls(path, detail=True):
            name = info["name"].rstrip("/").rpartition("/")[2]
            (folders if info["type"] == "directory" else files).append(name)
    else:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
    visible = [sorted(n for n in names if not n.startswith(".")) for names in (folders, files)]
    return visible[0], visible[1]


def walk(folder: str, prefix: str = "", parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the relative paths of all files below `folder`, sorted within each folder.

    Hidden files and folders are skipped. Symbolic links to folders are followed, except those that
    lead to one of their own parents.
    """
    real = folder if is_url(folder) else os.path.realpath(folder)
    if real in parents:
        return
    folders, files = children(folder)
    yield from (prefix + name for name in files)
    for name in folders:
        yield from walk(f"{folder.rstrip('/')}/{name}", f"{prefix}{name}/", (*parents, real))
