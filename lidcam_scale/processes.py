"""Processes on this machine: no package is needed. A process that dies is started again; all end with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from lidcam_rt.errors import BackendError, InputError
from lidcam_scale.executors import ATTEMPTS, Died, guarded, result_of

__all__ = ["Processes"]

_Task = TypeVar("_Task")


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    place: int | None = None  # of the task that it has
    answered: bool = False


@dataclass(slots=True)
class _Queue:
    """What is to do, and how often each task was begun."""

    waiting: deque[int]
    begun: dict[int, int] = field(default_factory=dict)


#: More is a mistake, and may bring a machine down: each loads the network.
MAX_PROCESSES = 1024


class Processes:
    """Runs tasks in new processes (nothing is forked, and the caller's main module is not run again).

    Args:
        count: number of processes, 1 to 1024.

    Raises:
        InputError: the count is out of range.
    """

    def __init__(self, count: int) -> None:
        if not 1 <= count <= MAX_PROCESSES:
            raise InputError(f"processes must be 1 to {MAX_PROCESSES}, got {count}")
        self.count = count

    def run(self, function: Callable[[_Task], Any], tasks: Sequence[_Task]) -> Generator[tuple[int, Any], None, None]:
        """See `Executor.run`."""
        queue = _Queue(deque(range(len(tasks))))
        workers: list[_Worker] = []
        try:
            for _ in range(min(self.count, len(tasks))):
                workers.append(_start(function))
            for worker in workers:
                _give(worker, queue, tasks)
            while busy := [worker for worker in workers if worker.place is not None]:
                for connection in wait([worker.connection for worker in busy]):
                    worker = next(entry for entry in busy if entry.connection is connection)
                    place = worker.place
                    assert place is not None
                    try:
                        result = result_of(worker.connection.recv())
                        worker.answered = True
                        yield place, result
                    except (EOFError, OSError) as error:
                        if not isinstance(error, EOFError | ConnectionError):
                            raise  # an OutputError of the task
                        workers.remove(worker)
                        _end(worker)
                        if queue.begun[place] < ATTEMPTS:
                            queue.waiting.appendleft(place)
                        else:
                            yield place, Died()
                        worker = _start(function)
                        workers.append(worker)
                    _give(worker, queue, tasks)
        finally:
            for worker in workers:
                _end(worker)


def _start(function: Callable[..., Any]) -> _Worker:
    """Start a process; a socket tells it the function, and when this process ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from lidcam_scale.processes import _serve; _serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            ours.close()
            raise BackendError(
                f"a process cannot be started ({error.strerror or error}). Use fewer, or free memory"
            ) from None
    connection = Connection(ours.detach())
    with contextlib.suppress(ConnectionError):  # if the process has died already, its first task will show it
        connection.send(function)
    return _Worker(process, connection)


def _give(worker: _Worker, queue: _Queue, tasks: Sequence[Any]) -> None:
    worker.place = queue.waiting.popleft() if queue.waiting else None
    if worker.place is not None:
        queue.begun[worker.place] = queue.begun.get(worker.place, 0) + 1
        with contextlib.suppress(ConnectionError):
            worker.connection.send(tasks[worker.place])


def _end(worker: _Worker) -> None:
    """End a process that this one started, whatever it does."""
    worker.connection.close()
    worker.process.kill()
    worker.process.wait()


def _serve(number: int) -> None:
    """The other end: take tasks from a socket until it closes, which also happens when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its processes
    connection = Connection(number)
    function = connection.recv()
    tasks: SimpleQueue[Any] = SimpleQueue()

    def read() -> None:
        while True:
            try:
                tasks.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)  # even in the middle of a task: nobody waits for it

    Thread(target=read, daemon=True).start()
    while True:
        connection.send(guarded(function, tasks.get()))
