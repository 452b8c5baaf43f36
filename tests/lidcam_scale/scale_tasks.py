"""Tasks for the executors' workers, which import this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lidcam_rt.errors import MissingExtraError, OutputError


def double(task):
    return 2 * task


def process(_):
    return os.getpid()


def die_at(task):
    """A task is a number and a folder; negative numbers end their process, -1 only the first time."""
    number, folder = task
    if number < 0:
        try:
            (Path(folder) / f"{number}").touch(exist_ok=number != -1)
            os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            return "second time"
    return number


def full(task):
    raise OutputError(f"{task}: cannot be written (No space left on device). Free space")


def lacks(task):
    raise MissingExtraError("refine", "crf", ("nothing",))


def fails(task):
    raise ZeroDivisionError("planted")


def wait_for_ever(folder):
    (Path(folder) / f"{os.getpid()}").touch()
    time.sleep(3600)
