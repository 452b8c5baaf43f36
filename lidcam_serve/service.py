"""The service behind both transports: models, limits, and waiting for a job's answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lidcam_serve.batching import Job
from lidcam_serve.bodies import Bodies
from lidcam_serve.errors import ClientGone, DeadlinePassed
from lidcam_serve.metrics import Metrics
from lidcam_serve.models import Models
from lidcam_serve.options import ServeOptions

__all__ = ["Service"]

_BODIES = 256 << 20  # bytes of all bodies that a process holds at once, or one body's limit if that is larger


class Service:
    """What the transports share.

    Args:
        options: of the server.
        device: what runs the networks of this process.
        supervised: whether a supervisor started this process; it tells the others to reload models.
    """

    def __init__(self, options: ServeOptions, device: str, *, supervised: bool = False) -> None:
        self.options = options
        self.supervised = supervised
        self.metrics = Metrics()
        self.models = Models(options, device, self.metrics)
        self.bodies = Bodies(options.max_body, _BODIES)
        self.draining = False
        self._reloads: set[asyncio.Task[Any]] = set()

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome: models are loaded before the server listens."""
        return not self.draining

    def deadline(self, start: float | None = None, seconds: float | None = None) -> float:
        """The `time.monotonic()` from which on nobody waits any more.

        Args:
            start: when the request came; None: now.
            seconds: what the client wants; the server's deadline is its limit.
        """
        limit = self.options.deadline if seconds is None else max(0.0, min(seconds, self.options.deadline))
        return (time.monotonic() if start is None else start) + limit

    async def answer(self, submit: Callable[[], Any], job: Job, gone: Awaitable[Any] | None = None) -> Any:
        """Submit a job and wait for its result.

        Args:
            submit: puts it into its model's queue.
            job: the job.
            gone: ends when the client has gone away.

        Raises:
            Busy: the queue is full.
            DeadlinePassed: there was no answer in time.
            ClientGone: nobody waits for it.
        """
        future = asyncio.wrap_future(submit())
        watch = asyncio.ensure_future(gone) if gone is not None else None
        waits: set[asyncio.Future[Any]] = {future} if watch is None else {future, watch}
        try:
            left = max(0.0, job.deadline - time.monotonic())
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            if watch is not None and watch.done():
                raise ClientGone("the client has gone")
            raise DeadlinePassed
        finally:
            if not future.done():
                job.abandon()
                future.cancel()
            if watch is not None:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await watch

    async def reload(self, name: str | None = None) -> dict[str, str]:
        """Reload changed models, here and in the other processes; see `Models.reload`."""
        outcome = await asyncio.to_thread(self.models.reload, name)
        if self.supervised and "loaded" in outcome.values():
            os.kill(os.getppid(), signal.SIGHUP)
        return outcome

    def reload_soon(self) -> None:
        """Reload changed models in the background."""
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(self.models.reload))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
