"""The pictures that a command line names: files, folders, patterns, or a list on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lidcam_cli.folders import FolderPictures, find_pictures
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.image.sources import on_disk

__all__ = ["find_images"]


def _in_argument(argument: str, lines: Iterable[str], found: FolderPictures) -> Iterator[str]:
    if argument == "-":
        yield from (on_disk(line) for raw in lines if (line := raw.rstrip("\r\n")))
    elif os.path.isdir(argument := on_disk(argument)):  # noqa: PTH112
        inside = find_pictures(Path(argument))
        found.skipped += inside.skipped
        yield from inside.paths
    elif any(c in argument for c in "*?[") and not os.path.exists(argument):  # noqa: PTH110
        matches = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207
        if not matches:
            raise DataError(f"{argument}: the pattern matches no file. Check it, and quote it for the shell")
        yield from matches
    else:
        yield argument


def find_images(arguments: Iterable[str], stdin: Iterable[str] | None = None) -> FolderPictures:
    """The pictures, each once, in the order given (folders and patterns sorted), and what was skipped in folders.

    Args:
        arguments: paths of files and folders (searched to any depth), patterns (`**` for any depth), or
            `-` for one path per line of standard input.
        stdin: lines to read for `-`.

    Raises:
        DataError: a folder or a pattern holds no picture.
        InputError: no picture was named.
    """
    lines = _lines() if stdin is None else stdin
    seen: dict[str, str] = {}
    found = FolderPictures()
    for argument in arguments:
        for path in _in_argument(argument, lines, found):
            seen.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    if not seen:
        raise InputError("no pictures: standard input was empty. Give one path per line")
    found.paths = list(seen.values())
    return found


def _lines() -> Iterator[str]:
    """Lines of standard input, names in bytes that are not UTF-8 included."""
    if sys.stdin is None:
        raise InputError("standard input is closed: name the pictures, or pipe a list of them into `lidcam`")
    for line in sys.stdin.buffer:
        yield os.fsdecode(line)
