"""The pictures that a command line names: files, folders, patterns, or a list on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lidcam_rt.errors import DataError, InputError
from lidcam_rt.image import SUFFIXES

__all__ = ["find_images"]


def _in_folder(folder: Path) -> Iterator[str]:
    found = False
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                found = True
                yield os.path.join(root, name)  # noqa: PTH118
    if not found:
        raise DataError(
            f"{folder}: a folder without pictures (looked in its sub-folders too, for "
            f"{' '.join(sorted(SUFFIXES))}). Check the path"
        )


def _in_argument(argument: str, lines: Iterable[str]) -> Iterator[str]:
    if argument == "-":
        yield from (line for raw in lines if (line := raw.rstrip("\r\n")))
    elif os.path.isdir(argument):  # noqa: PTH112
        yield from _in_folder(Path(argument))
    elif any(c in argument for c in "*?[") and not os.path.exists(argument):  # noqa: PTH110
        matches = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207
        if not matches:
            raise DataError(f"{argument}: the pattern matches no file. Check it, and quote it for the shell")
        yield from matches
    else:
        yield argument


def find_images(arguments: Iterable[str], stdin: Iterable[str] | None = None) -> list[str]:
    """Paths of the pictures, each once, in the order given (folders and patterns sorted).

    Args:
        arguments: paths of files and folders (searched to any depth), patterns (`**` for any depth), or
            `-` for one path per line of standard input.
        stdin: lines to read for `-`.

    Raises:
        DataError: a folder or a pattern holds no picture.
        InputError: nothing was named.
    """
    lines = sys.stdin if stdin is None else stdin
    seen: dict[str, str] = {}
    for argument in arguments:
        for path in _in_argument(argument, lines):
            seen.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    if not seen:
        raise InputError("no pictures: standard input was empty. Give one path per line")
    return list(seen.values())
