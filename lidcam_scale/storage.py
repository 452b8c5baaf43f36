"""Where parts are written: a local folder, or whatever fsspec reaches.

A file appears with its whole content or not at all: in folders by renaming, on object stores because a put is atomic,
on other file systems by writing under a hidden name and moving.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from lidcam_rt.errors import InputError, MissingExtraError, OutputError
from lidcam_rt.files import output_folder, read_file, write_atomically

__all__ = ["Store", "file_system", "is_url", "open_store", "open_url", "read_url"]

#: Protocols of object stores, where a put is atomic.
_ATOMIC = frozenset({"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "obs", "oci", "hf"})


class Store(Protocol):
    """A flat folder of files that appear whole."""

    url: str

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Keep other jobs out if possible, and remove what killed writers left."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: there is none, or it cannot be read.
        """

    def names(self) -> dict[str, int]:
        """The files and their sizes in bytes."""

    def remove(self, name: str) -> None:
        """Remove a file."""


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return "://" in place


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        InputError: no such protocol, or its package is not installed.
        MissingExtraError: fsspec is not installed.
    """
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(url, "scale", ("fsspec",)) from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        protocol = url.partition("://")[0]
        known = ", ".join(name for name in ("s3", "gs", "abfs", "hdfs", "file") if name != protocol)
        raise InputError(
            f"{url}: {protocol}:// cannot be opened ({error}). Install the fsspec package for it, or use another "
            f"({known} ...)"
        ) from None
    return system, str(path)


def open_url(url: str) -> IO[bytes]:
    """Open a file at a URL for reading."""
    system, path = file_system(url)
    file: IO[bytes] = system.open(path, "rb")
    return file


def read_url(url: str) -> bytes:
    """The content of a file at a URL."""
    with open_url(url) as file:
        return file.read()


def open_store(url: str) -> Store:
    """The store at a path or URL; nothing is created yet.

    Raises:
        InputError: no such protocol.
    """
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    return _Remote(url) if is_url(url) else _Folder(url)


class _Folder:
    def __init__(self, url: str) -> None:
        self.url = os.path.abspath(url)  # noqa: PTH100
        self._path = Path(self.url)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with output_folder(self._path):
            yield

    def write(self, name: str, data: bytes) -> None:
        write_atomically(self._path / name, data)

    def read(self, name: str) -> bytes:
        return read_file(self._path / name)

    def names(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self._path.iterdir() if path.is_file()}

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class _Remote:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system, self._root = file_system(self.url)
        protocols = self._system.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._atomic = bool(names & _ATOMIC)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Remove leftovers. There are no locks: jobs with one identity write the same rows, others are refused."""
        self._sweep()
        try:
            yield
        finally:
            with contextlib.suppress(OutputError):
                self._sweep()

    def _sweep(self) -> None:
        for name in self.names():
            if name.startswith(".lidcam-") and name.endswith(".part"):
                self.remove(name)

    def write(self, name: str, data: bytes) -> None:
        hidden = None if self._atomic else self._at(f".lidcam-{secrets.token_hex(6)}.part")
        try:
            self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(hidden or self._at(name), data)
            if hidden:
                self._system.mv(hidden, self._at(name))
        except Exception as error:  # file systems of fsspec raise errors of their own
            if hidden:
                with contextlib.suppress(Exception):
                    self._system.rm_file(hidden)
            raise OutputError(
                f"{self.url}/{name}: cannot be written ({error or type(error).__name__}). Check the address and the "
                "permissions, and run the same command again: it resumes"
            ) from None

    def read(self, name: str) -> bytes:
        data: bytes = self._system.cat_file(self._at(name))
        return data

    def names(self) -> dict[str, int]:
        self._system.invalidate_cache()
        try:
            entries = self._system.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise OutputError(
                f"{self.url}: cannot be listed ({error or type(error).__name__}). Check the address and the permissions"
            ) from None
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"] or 0)
            for entry in entries
            if entry["type"] == "file"
        }

    def remove(self, name: str) -> None:
        try:
            self._system.rm_file(self._at(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise OutputError(
                f"{self.url}/{name}: cannot be removed ({error or type(error).__name__}). Check the permissions"
            ) from None
