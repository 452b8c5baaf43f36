"""Consoles of the command line: results go to standard output, everything else to standard error.

Text that comes from data (names of files and classes, messages of libraries) is printed as it is: no markup is read
from it, and what would control the terminal is escaped.
"""

from __future__ import annotations

import logging
import unicodedata
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["cell", "configure", "err", "note", "out", "plain", "print_error", "progress", "say"]

out = Console(markup=False, emoji=False, highlight=False)
err = Console(markup=False, emoji=False, highlight=False, stderr=True)

_PACKAGES = ("lidcam_rt", "lidcam_bench", "lidcam_training", "lidcam_export")
#: Marks that change the direction of the text around them.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_quiet = False


def plain(text: str) -> str:
    r"""A text that a terminal shows and nothing more; newlines stay.

    Control characters, marks of direction and lone surrogates are escaped as in a Python literal; a byte of a file
    name that is not UTF-8 (PEP 383) becomes `\xNN`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" or not _controls(c) else _escaped(c) for c in text)


def _controls(character: str) -> bool:
    return character in _DIRECTION or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def cell(text: str, style: str = "") -> Text:
    """A text from data as one line of a table."""
    return Text(plain(text).replace("\n", "\\n"), style=style)


class _Log(logging.Handler):
    """Shows records of the packages' loggers on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        name = f"{record.name}: " if record.levelno < logging.WARNING else f"{record.levelname.lower()} "
        style = "dim" if record.levelno < logging.WARNING else "yellow"
        err.print(Text(plain(name + record.getMessage()), style=style), soft_wrap=True)


def configure(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set what is shown: with `quiet` errors and results only, with `verbose` all records of the loggers."""
    global _quiet
    _quiet = quiet
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
        if not any(isinstance(handler, _Log) for handler in logger.handlers):
            logger.addHandler(_Log())


def say(content: Any = "", style: str = "", *, wrap: bool = False) -> None:
    """Print a summary (a text, or something of rich's) on standard output, unless quiet.

    Args:
        content: what to print.
        style: of a text.
        wrap: break a text's lines between words (not for paths, which one copies).
    """
    if not _quiet:
        _print(out, content, style, wrap)


def note(text: str, style: str = "") -> None:
    """Print a remark on standard error, unless quiet."""
    if not _quiet:
        _print(err, text, style)


def print_error(message: str, detail: str = "") -> None:
    """Print a message for the user on standard error, also when quiet.

    Args:
        message: what is wrong.
        detail: lines that follow it.
    """
    err.print(Text("error ", style="bold red").append(plain(message), style="not bold default"), soft_wrap=True)
    if detail:
        _print(err, detail, "")


def _print(console: Console, content: Any, style: str, wrap: bool = False) -> None:
    if isinstance(content, str):
        console.print(Text(plain(content), style=style), soft_wrap=not wrap)
    else:
        console.print(content)


class _RateColumn(TextColumn):
    """Finished units per second, over the last steps.

    Args:
        unit: what is counted.
    """

    def __init__(self, unit: str) -> None:
        super().__init__("")
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The rate, or dashes before the first step."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else f"-- {self.unit}/s", style="progress.data.speed")


def progress(unit: str = "images") -> Progress:
    """A progress bar with count, rate and time left on standard error; silent where that is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeRemainingColumn(compact=True),
        console=err,
        expand=True,
        disable=_quiet or not err.is_terminal,
    )
