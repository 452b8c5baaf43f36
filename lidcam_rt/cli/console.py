"""Consoles of the command line: results go to standard output, everything else to standard error."""

from __future__ import annotations

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

__all__ = ["RateColumn", "err", "out", "print_error", "progress"]

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Print a message for the user on standard error."""
    err.print("[bold red]error[/bold red]", end=" ")
    err.print(message, markup=False, soft_wrap=True)


class RateColumn(TextColumn):
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
        return Text(
            f"{speed:.1f} {self.unit}/s" if speed else f"-- {self.unit}/s", style="progress.data.speed"
        )


def progress(unit: str = "images") -> Progress:
    """A progress bar with count, rate and time left on standard error; silent where that is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeRemainingColumn(compact=True),
        console=err,
        expand=True,
        disable=not err.is_terminal,
    )
