"""The pictures of a job: local files and URLs, each once, in one order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

from lidcam_cli.sources import find_images
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.image.formats import image_suffixes
from lidcam_rt.text import encode_text
from lidcam_scale.storage import file_system, is_url

__all__ = ["digest_of", "in_order", "list_pictures"]


def list_pictures(arguments: Sequence[str], stdin: Iterable[str] | None = None) -> list[str]:
    """The pictures that a command line names, in order.

    Args:
        arguments: files, folders, patterns, `-` for a list on standard input, and URLs of files and folders.
        stdin: lines to read for `-`.

    Raises:
        DataError: a folder, a URL or a pattern holds no picture.
        InputError: no picture was named, or a URL's protocol is not known.
    """
    pictures: list[str] = []
    for argument in arguments:
        if is_url(argument):
            pictures += _at(argument)
        else:
            pictures += find_images([argument], stdin).paths
    return in_order(pictures)


def in_order(pictures: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Absolute paths, each once, sorted by their bytes; URLs stay as they are.

    Raises:
        DataError: there is none.
    """
    names = {os.fspath(entry) for entry in pictures}
    full = {name if is_url(name) else os.path.abspath(name) for name in names}  # noqa: PTH100
    if not full:
        raise DataError("no pictures: the list is empty. Name files, folders or URLs of pictures")
    return sorted(full, key=encode_text)


def digest_of(pictures: Iterable[str]) -> str:
    """SHA-256 of a list of pictures."""
    digest = hashlib.sha256()
    for name in pictures:
        digest.update(encode_text(name) + b"\0")
    return digest.hexdigest()


def _at(url: str) -> list[str]:
    system, path = file_system(url)
    try:
        if system.isfile(path):
            return [url]
        found = system.find(path)
    except Exception as error:  # file systems of fsspec raise errors of their own
        raise InputError(
            f"{url}: cannot be listed ({error or type(error).__name__}). Check the address and the permissions"
        ) from None
    inside = [name for name in found if not any(part.startswith(".") for part in name[len(path) :].split("/"))]
    pictures = [name for name in inside if os.path.splitext(name)[1].lower() in image_suffixes()]  # noqa: PTH122
    if not pictures:
        raise DataError(f"{url}: no pictures in it, {len(found)} other files. Check the address")
    return [str(system.unstrip_protocol(name)) for name in pictures]
