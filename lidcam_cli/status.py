"""How a command ends: one line that says why, and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from typing import IO

__all__ = ["status_of"]

#: What loaders and libraries say when memory or threads run out.
_EXHAUSTED = ("annot allocate memory", "failed to map segment", "bad_alloc", "can't start new thread", "system_error")


def status_of(error: BaseException) -> int | None:
    """Say in a line why a command ends; returns its exit status, or None if the traceback is to be shown."""
    from lidcam_rt.errors import LidcamError

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(entry, KeyboardInterrupt) for entry in chain):  # an import may wrap it
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is short
        _say("interrupted: run the same command again for the rest (finished files stay)")
        return 130
    if isinstance(error, BrokenPipeError):
        _silence(sys.stdout, 1)
        return 141
    if os.environ.get("LIDCAM_TRACEBACK"):
        return None
    for entry in chain:
        if isinstance(entry, MemoryError) or any(text in str(entry) for text in _EXHAUSTED):
            limits = "raise the limits (ulimit -v, -u), or use less: --threads 1, --batch-size 1, smaller pictures"
            _say(f"not enough memory or threads ({entry or 'out of memory'}); {limits}")
            return 1
    if isinstance(error, LidcamError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, OSError):  # a standard output that is full or closed, most often
        _silence(sys.stdout, 1)
        _say(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return 6
    return None


def _say(message: str) -> None:
    try:
        from lidcam_cli.console import print_error

        print_error(message)
    except Exception:  # no memory for that either, or no standard error
        os.write(2, f"error {message}\n".encode("utf-8", "backslashreplace"))


def _silence(stream: IO[str] | None, number: int) -> None:
    """Discard what is still buffered, so that the interpreter does not stumble over it when it ends."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
