"""`lidcam`, from its first import to its exit status: however it ends, one line says why."""

from __future__ import annotations

import atexit
import os
import signal
import sys

from lidcam_cli.status import status_of

__all__ = ["main"]

_LEAST_ADDRESS_SPACE = 1 << 30


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its status.

    An error raised on purpose prints its message and exits with the error's `exit_code`, Ctrl-C with 130, a closed pipe
    with 141. With LIDCAM_TRACEBACK set, errors show their traceback.
    """
    try:
        _open_standard_streams()
        arguments = sys.argv[1:] if argv is None else argv
        _check_address_space(arguments)
        from lidcam_cli.app import build_app

        build_app(only=arguments[0] if arguments else None)(args=arguments, prog_name="lidcam")
        status: int | None = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status == 1 and type(sys.stdout).__name__ == "PacifyFlushWrapper":  # typer met a closed pipe
            status = 141
        if status == 130 and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # typer's answer to Ctrl-C
            status = status_of(KeyboardInterrupt())
    except BaseException as error:
        status = status_of(error)
        if status is None:
            _name_outdated()
            raise
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        status = status_of(error)
    if argv is None and (status == 130 or _call_left_running()):  # the process is the command's own
        _exit_at_once(status)
    sys.exit(status)


def _name_outdated() -> None:
    """Name a possible cause of an unexpected error: packages older than this one needs."""
    try:
        from lidcam_cli.console import print_error
        from lidcam_cli.requirements import outdated

        for entry in outdated():
            print_error(f"{entry}, which may be the reason: {entry.mend}")
    except Exception:  # the traceback of the error itself follows
        return


def _call_left_running() -> bool:
    watch = sys.modules.get("lidcam_rt.watch")
    return watch is not None and watch.left_running()


def _exit_at_once(status: int | None) -> None:
    """End without waiting for threads that are still running.

    When the interpreter ends, it stops a thread as soon as that asks for the interpreter's lock. Inside C++ (a kernel,
    an engine, a module that is being loaded) that is a crash. It happens after an abandoned call, and after a second
    Ctrl-C during `Thread.join`, which Python 3.11 takes for the thread's end (python/cpython#90882).
    """
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status or 0)


def _check_address_space(arguments: list[str]) -> None:
    """Libraries that run out of address space while they are loaded crash: OpenCV does, below 800 MiB."""
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    help_only = not arguments or {"-h", "--help", "--version"} & set(arguments)
    if not help_only and limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise MemoryError(f"ulimit -v is {limit >> 10}, at least {_LEAST_ADDRESS_SPACE >> 10} is needed")


def _open_standard_streams() -> None:
    """Keep files from getting the numbers of closed standard streams, and make writing to a closed one fail."""
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
            if number == 1:
                sys.stdout = os.fdopen(1, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
