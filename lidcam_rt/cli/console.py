"""Consoles of the command line: results go to standard output, everything else to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

__all__ = ["err", "out", "print_error", "progress"]

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Print a message for the user on standard error."""
    err.print("[bold red]error[/bold red]", end=" ")
    err.print(message, markup=False, soft_wrap=True)


def progress(unit: str = "images") -> Progress:
    """A progress bar with count, rate and time left, on standard error, gone when standard error is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}" + f" {unit}/s"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
