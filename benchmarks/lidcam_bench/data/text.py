"""Text files of a data set: class names, tables, JSON; and names that stay inside their folder."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from lidcam_rt.errors import DataError
from lidcam_rt.files import read_file

__all__ = ["inside", "read_class_names", "read_json", "read_lines", "read_text"]


def read_text(file: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark; line ends become newlines.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        return read_file(file).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({error.reason}, byte {error.start}): save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_json(file: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: it cannot be read, or is not JSON; NaN and Infinity are refused.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    text = read_text(file)
    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise DataError(f"{file} cannot be read as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from None


def read_class_names(file: Path) -> tuple[str, ...]:
    """The class names of a text file, one per line; blank lines and blanks around a name are left out.

    This is the one reader of `classes.txt` and of `lidcam export --classes`: byte order mark, line ends of any system
    and trailing blanks make no difference. Names may repeat (ImageNet has two cranes).

    Raises:
        DataError: it is not text, has no name, or a name holds a control character, such as a tab.
    """
    names = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        name = line.strip()
        control = next((c for c in name if unicodedata.category(c) == "Cc"), None)
        if control is not None:
            hint = "one name per line, without columns" if control == "\t" else "remove it"
            raise DataError(f"{file}, line {number}: {name!r} holds the control character {control!r}; {hint}")
        if name:
            names.append(unicodedata.normalize("NFC", name))
    if not names:
        raise DataError(f"{file} holds no class name: write one per line")
    return tuple(names)


def read_lines(file: Path, columns: int) -> list[list[str]]:
    """Fields of the lines of a text table, separated by blanks, the last with its blanks; blank lines are left out.

    Raises:
        DataError: it cannot be read, or a line has fewer fields.
    """
    rows = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        fields = line.split(maxsplit=columns - 1)
        if not fields:
            continue
        if len(fields) < columns:
            raise DataError(f"{file}, line {number}: expected {columns} fields, got {line!r}")
        rows.append([field.rstrip() for field in fields])
    return rows


def inside(folder: Path, name: Any, where: str) -> Path:
    """The file of a name that a data set gives, below its folder.

    Args:
        folder: where the files are.
        name: relative, with slashes.
        where: file and line of the name, for messages.

    Raises:
        DataError: it is not a name, is absolute, or leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"{where}: {name!r} is not a file name")
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0][1:2]:
        raise DataError(
            f"{where}: {name!r} leads out of {folder}, or is not written with slashes; names are relative to that "
            "folder"
        )
    return folder / path
