"""Where tasks run: in this process, in processes of this machine, on Ray, on Spark. One contract for all."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import lidcam_rt.errors as errors
from lidcam_rt.errors import LidcamError

__all__ = ["ATTEMPTS", "Died", "Executor", "InProcess", "Raised", "guarded", "result_of"]

_Task = TypeVar("_Task")
#: How often a task is tried if its process dies.
ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Died:
    """In place of a result: the process with the task died, at every attempt."""


@dataclass(frozen=True, slots=True)
class Raised:
    """In place of a result: what a task raised, in a form that can be sent between processes.

    Attributes:
        kind: name of the class in `lidcam_rt.errors`; empty for an error that was not raised on purpose.
        message: of the error, or its traceback.
    """

    kind: str
    message: str


class Executor(Protocol):
    """Runs tasks somewhere."""

    def run(self, function: Callable[[_Task], Any], tasks: Sequence[_Task]) -> Generator[tuple[int, Any], None, None]:
        """Run a function on each task.

        Args:
            function: of a module that the workers can import. What it returns can be written as JSON.
            tasks: its arguments.

        Yields:
            (index of the task, result or `Died`), in the order in which they end.

        Raises:
            LidcamError: a task raised it, or the workers cannot be reached.
        """


class InProcess:
    """One task after the other in this process."""

    def run(self, function: Callable[[_Task], Any], tasks: Sequence[_Task]) -> Generator[tuple[int, Any], None, None]:
        """See `Executor.run`."""
        for place, task in enumerate(tasks):
            yield place, function(task)


def guarded(function: Callable[[Any], Any], task: Any) -> Any:
    """The result of a task, or what it raised."""
    try:
        return function(task)
    except LidcamError as error:
        return Raised(type(error).__name__, str(error))
    except Exception:
        return Raised("", traceback.format_exc())


def result_of(value: Any) -> Any:
    """A result; raises here what the task raised there.

    Raises:
        LidcamError: the task raised it.
        RuntimeError: the task failed with any other error.
    """
    if not isinstance(value, Raised):
        return value
    kind = getattr(errors, value.kind, None) if value.kind else None
    if kind is None:
        raise RuntimeError(f"a worker failed:\n{value.message}")
    raise _again(kind, value.message)


def _again(kind: type[LidcamError], message: str) -> LidcamError:
    return kind.__new__(kind, message)  # without `__init__`, whose arguments differ
