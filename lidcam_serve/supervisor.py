"""Several processes on one address: starts them, restarts those that die, and ends them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lidcam_rt.errors import BackendError
from lidcam_serve import logs
from lidcam_serve.options import ServeOptions, at, grpc_cannot_listen

__all__ = ["supervise"]

_log = logging.getLogger("lidcam_serve")
_SHORT = 5.0  # seconds; a worker that died sooner is not restarted at once
_GRACE = 10.0  # seconds beyond the deadline that workers are given to drain


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    ready: threading.Event = field(default_factory=threading.Event)
    told: bool = False  # to end


def supervise(options: ServeOptions, http: socket.socket) -> None:
    """Run the workers until SIGTERM or SIGINT. SIGHUP makes them reload changed models.

    Raises:
        BackendError: a worker ended before it was ready.
        OutputError: gRPC cannot listen.
    """
    logs.configure(quiet=options.quiet)
    ending, signals = threading.Event(), (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    workers = [_Worker(number) for number in range(options.workers)]

    def pass_on(number: int, frame: Any) -> None:
        if number != signal.SIGHUP:
            ending.set()
        _send(workers, signal.SIGHUP if number == signal.SIGHUP else signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in signals}
    with tempfile.TemporaryDirectory(prefix="lidcam-metrics-") as folder, _reserved(options) as grpc_port:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        try:
            for worker in workers:
                _start(worker, options, http, grpc_port, environment)
            _watch(workers, options, http, grpc_port, environment, ending)
        finally:
            http.close()  # nobody would accept new connections
            _send([worker for worker in workers if not worker.told], signal.SIGTERM)  # a second one would cut it short
            _wait(workers, options.deadline + _GRACE)
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _reserved(options: ServeOptions) -> Iterator[int | None]:
    """The port of gRPC, held so that all workers can share it."""
    if options.grpc_port is None:
        yield None
        return
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((options.host, options.grpc_port))
        except OSError as error:
            address = at(options.host, options.grpc_port)
            raise grpc_cannot_listen(address, error.strerror or str(error)) from None
        yield int(held.getsockname()[1])


def _start(
    worker: _Worker, options: ServeOptions, http: socket.socket, grpc_port: int | None, environment: dict[str, str]
) -> None:
    device = options.devices[worker.number % len(options.devices)]
    arguments = [str(worker.number), device, str(http.fileno()), "-" if grpc_port is None else str(grpc_port)]
    worker.process = subprocess.Popen(
        [sys.executable, "-m", "lidcam_serve.process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(http.fileno(),),
        env=environment,
        start_new_session=True,  # Ctrl-C comes through the supervisor alone
    )
    worker.started = time.monotonic()
    worker.ready, worker.told = threading.Event(), False
    assert worker.process.stdin is not None
    try:
        worker.process.stdin.write(options.to_json().encode() + b"\n")
        worker.process.stdin.flush()
    except BrokenPipeError:  # it died; `_watch` sees that
        pass
    threading.Thread(target=_listen, args=(worker, worker.process), daemon=True).start()


def _listen(worker: _Worker, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line == b"ready\n":
            worker.ready.set()


def _watch(
    workers: list[_Worker], options: ServeOptions, http: socket.socket, grpc_port: int | None,
    environment: dict[str, str], ending: threading.Event,
) -> None:  # fmt: skip
    """Restart workers that have died, until the end is requested."""
    from prometheus_client.multiprocess import mark_process_dead

    told = False
    while not ending.wait(0.05):
        if not told and all(worker.ready.is_set() for worker in workers):
            told = True
            pids = [worker.process.pid for worker in workers if worker.process]
            fields = {"host": options.host, "port": http.getsockname()[1], "grpc_port": grpc_port, "workers": pids}
            _log.info("all workers ready", extra={"fields": fields})
        for worker in workers:
            process = worker.process
            if process is None or process.poll() is None or ending.is_set():
                continue
            if not worker.ready.is_set() and not told:
                raise BackendError(
                    f"a worker ended with status {process.returncode} before it was ready; see its message"
                )
            _log.error("worker died", extra={"fields": {"pid": process.pid, "status": process.returncode}})
            mark_process_dead(process.pid, environment["PROMETHEUS_MULTIPROC_DIR"])  # type: ignore[no-untyped-call]
            _close(process)
            if time.monotonic() - worker.started < _SHORT and ending.wait(1.0):
                return
            _start(worker, options, http, grpc_port, environment)


def _send(workers: list[_Worker], number: int) -> None:
    for worker in workers:
        if (
            worker.process is not None
            and worker.process.poll() is None
            and (worker.ready.is_set() or number != signal.SIGHUP)
        ):
            worker.told |= number == signal.SIGTERM
            worker.process.send_signal(number)


def _wait(workers: list[_Worker], seconds: float) -> None:
    until = time.monotonic() + seconds
    for worker in workers:
        if worker.process is None:
            continue
        try:
            worker.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        _close(worker.process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not yet written has no reader
                continue
