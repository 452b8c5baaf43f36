"""An output folder: one process at a time, and nothing half-written left in it."""

from __future__ import annotations

import os
from pathlib import Path

from lidcam_rt.errors import OutputError

__all__ = ["lock_folder", "remove_leftovers"]

_NAME = ".lidcam.lock"


def lock_folder(folder: Path) -> int:
    """Take the folder for this process; the system lets go of it when the process ends, even after kill -9.

    Returns:
        The file descriptor that holds the lock: close it to let go.

    Raises:
        OutputError: another run has it.
        OSError: the folder cannot be written.
    """
    handle = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        import fcntl
    except ImportError:  # no locks on this system
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise OutputError(f"{folder}: another run is writing into it. Wait for it, or choose another folder") from None
    return handle


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writes that never ended (see `lidcam_rt.drawing.write_atomically`).

    Raises:
        OSError: one of them cannot be removed.
    """
    for leftover in folder.glob(".lidcam-*.part"):
        leftover.unlink(missing_ok=True)
