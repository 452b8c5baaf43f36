"""The pictures in a folder: which are read, which are left out, and why."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lidcam_rt.errors import DataError
from lidcam_rt.files import LOCK_NAME, open_file, read_file
from lidcam_rt.image.formats import image_suffixes

__all__ = ["FolderPictures", "find_pictures"]

#: Pictures and videos that are not read, but reported rather than silently ignored.
_OTHER_MEDIA = frozenset(
    f".{suffix}"
    for suffix in (
        *("heic", "heif", "hif", "jxl", "jxr", "svg", "eps", "pdf", "psd", "xcf", "ico", "exr", "hdr", "dcm"),
        *("raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf"),
        *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "3gp"),
    )
)
#: Endings of the files that `Localization.save` and `Segmentation.save` list in a JSON file beside them.
_SAVED = {"_mask.png": ".json", "_map.png": ".json", "_overlay.jpg": ".json", "_labels.png": "_labels.json"}


@dataclass
class FolderPictures:
    """What was found in a folder and its sub-folders.

    Attributes:
        paths: the pictures, sorted within each folder.
        skipped: pictures and videos in formats that are not read, by suffix.
        others: how many other files there are.
        outputs: folders and files that lidcam wrote, which are not read.
    """

    paths: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    others: int = 0
    outputs: int = 0

    def left_out(self) -> str:
        """What was skipped, for a message; empty: nothing."""
        heif = " (needs pip install 'lidcam-rt[heif]')"
        kinds = [
            f"{count} {suffix}{heif if suffix in ('.heic', '.heif', '.hif') else ''}"
            for suffix, count in sorted(self.skipped.items())
        ]
        return ", ".join(kinds)


def find_pictures(folder: Path) -> FolderPictures:
    """Look for pictures in a folder, to any depth.

    Hidden files and folders are left out, and so is what lidcam wrote. Linked folders are followed; each folder is
    visited once.

    Raises:
        DataError: there is none; the message says what else there is.
    """
    found = FolderPictures()
    own = set(_recorded(folder))
    links: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting or links:
        place = waiting.pop() if waiting else links.pop(0)
        with contextlib.suppress(OSError):  # a folder that may not be read, a dangling link
            status = os.stat(place)  # noqa: PTH116
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                waiting += reversed(_look_into(place, found, links, own if place == os.fspath(folder) else set()))
    if not found.paths:
        kinds = [found.left_out()] if found.skipped else []
        kinds += [f"{found.others} other files"] if found.others else []
        kinds += [f"{found.outputs} results of lidcam"] if found.outputs else []
        raise DataError(
            f"{folder}: no pictures in it or its sub-folders ({', '.join(kinds) or 'it is empty'}). Files with these "
            f"suffixes are read: {' '.join(sorted(image_suffixes()))}"
        )
    return found


def _look_into(place: str, found: FolderPictures, links: list[str], own: set[str]) -> list[str]:
    """Sort the entries of a folder; returns its sub-folders."""
    folders: list[str] = []
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if os.path.exists(os.path.join(entry.path, LOCK_NAME)):  # noqa: PTH110, PTH118
                found.outputs += 1
            else:
                (links if entry.is_symlink() else folders).append(entry.path)
        elif suffix in image_suffixes():
            if entry.name in own or _was_saved(place, entry.name):
                found.outputs += 1
            else:
                found.paths.append(entry.path)
        elif suffix in _OTHER_MEDIA:
            found.skipped[suffix] += 1
        else:
            found.others += 1
    return folders


def _recorded(folder: Path) -> Iterator[str]:
    """Files that `lidcam localize` wrote into this folder itself."""
    with contextlib.suppress(OSError), open_file(folder / "results.jsonl") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
                yield from json.loads(line).get("files", {}).values()


def _was_saved(place: str, name: str) -> bool:
    """Whether a result's `save` wrote a file: the JSON file beside it says so."""
    for end, sidecar in _SAVED.items():
        if name.endswith(end):
            with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError, TypeError):
                about = json.loads(read_file(Path(place, name.removesuffix(end) + sidecar)))
                return name in (about.get("file"), *about.get("files", {}).values())
    return False
