"""Consoles of the command line: results go to standard output, everything else to standard error.

Text that comes from data (names of files and classes, messages of libraries) is printed as it is: markup in it is not
interpreted, and what would control the terminal is escaped.
"""

from __future__ import annotations

import logging
import re
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

from lidcam_rt.text import plain

__all__ = ["cell", "configure", "err", "note", "out", "print_error", "progress", "say"]


class _Console(Console):
    """Interprets no markup, and leaves a closed pipe to `lidcam_cli.main`."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, stderr=stderr)

    def on_broken_pipe(self) -> None:
        """Raise."""
        raise BrokenPipeError


out = _Console()
err = _Console(stderr=True)

#: A remedy spelled for Python and for the shell; the shell's spelling is shown.
_BOTH = re.compile(r"\S+ in Python, (--[^,;.)]+) on the command line")

_PACKAGES = ("lidcam_rt", "lidcam_bench", "lidcam_training", "lidcam_export")
_quiet = False


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
        wrap: break a text's lines between words (not for paths, which users copy).
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
    text = plain(_BOTH.sub(r"\1", message))
    err.print(Text("error ", style="bold red").append(text, style="not bold default"), soft_wrap=True)
    if detail:
        _print(err, _BOTH.sub(r"\1", detail), "")


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
    """A progress bar with count, rate and time left on standard error; silent if that is not a terminal."""
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
