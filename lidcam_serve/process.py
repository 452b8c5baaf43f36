"""One process of a server: both transports in one event loop, from loading to draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lidcam_serve import logs
from lidcam_serve.app import build_app
from lidcam_serve.options import ServeOptions, at
from lidcam_serve.service import Service

__all__ = ["listen", "main", "run"]

_log = logging.getLogger("lidcam_serve")
_HEAD_SECONDS = 10.0
_CONNECTIONS = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: the address is not this machine's, or is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(1024)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


class _Protocol(H11Protocol):
    """HTTP/1.1; closes connections on which the head of a request does not end in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.close()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self._late is not None:
            self._late.cancel()
            self._late = None
        elif not busy and self._late is None:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(_HEAD_SECONDS, self._too_late)

    def _too_late(self) -> None:
        self._late = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves signals to `_serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


def run(options: ServeOptions, device: str, http: socket.socket, grpc_port: int | None, *, supervised: bool) -> None:
    """Load the models, serve until SIGTERM or SIGINT, and answer what was accepted before that.

    Args:
        options: of the server.
        device: what runs the networks of this process.
        http: the listening socket.
        grpc_port: port of gRPC; 0: any free one; None: no gRPC.
        supervised: whether a supervisor started this process.
    """
    logs.configure(quiet=options.quiet)
    service = Service(options, device, supervised=supervised)
    try:
        asyncio.run(_serve(service, http, grpc_port))
    finally:
        service.models.close()


async def _serve(service: Service, http: socket.socket, grpc_port: int | None) -> None:
    options, loop = service.options, asyncio.get_running_loop()
    config = uvicorn.Config(
        build_app(service), http=_Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, timeout_keep_alive=30, backlog=1024,
    )  # fmt: skip
    server, calls, port = _Server(config), None, None
    if grpc_port is not None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes lines of its own into the log
        from lidcam_serve.rpc import start

        calls, port = await start(service, at(options.host, grpc_port))

    ends: list[Any] = []

    def drain() -> None:
        if service.draining:  # requested twice
            server.force_exit = True
            if calls is not None:
                ends.append(loop.create_task(calls.stop(0)))
        service.draining = server.should_exit = True
        _log.info("draining")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    loop.add_signal_handler(signal.SIGHUP, service.reload_soon)
    address = http.getsockname()
    task = asyncio.create_task(server.serve([http]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    fields = {"host": options.host, "port": address[1], "grpc_port": port, "pid": os.getpid()}
    _log.info("ready", extra={"fields": fields})
    if service.supervised:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
    while not (server.should_exit or task.done()):
        await asyncio.sleep(0.05)
    ends.append(task)
    if calls is not None:
        ends.append(calls.stop(options.deadline + 5))
    await asyncio.gather(*ends)
    _log.info("drained")


def main() -> None:
    """A worker of a supervisor: options as a line of JSON on standard input, the listening socket as a file descriptor.

    When standard input ends, the supervisor has ended, and this process ends too.
    """
    number, device, fd, grpc_port = sys.argv[1:5]
    del number
    options = ServeOptions.from_json(sys.stdin.readline())

    def follow() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="lidcam-parent", daemon=True).start()
    http = socket.socket(fileno=int(fd))
    http.setblocking(False)
    run(options, device, http, int(grpc_port) if grpc_port != "-" else None, supervised=True)


if __name__ == "__main__":
    main()
