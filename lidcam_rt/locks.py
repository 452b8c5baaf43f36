"""One process at a time in an output folder."""

from __future__ import annotations

import os
from pathlib import Path

from lidcam_rt.errors import OutputError

__all__ = ["lock_folder"]

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
