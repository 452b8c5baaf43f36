"""A stream of pictures: decode, network and post-processing overlap, in order, with bounded memory.

Decoding and post-processing run in one pool of threads, the network in another, with as many threads as the
engine wants callers (all three release Python's lock). Only the network's threads wait for other tasks,
and only for decoding, which waits for nothing: so the two pools cannot deadlock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from lidcam_rt.backends.base import Stop, usable_cores
from lidcam_rt.errors import InputError
from lidcam_rt.image import ImageSource, describe
from lidcam_rt.pipeline import OUTPUTS
from lidcam_rt.results import Failure

if TYPE_CHECKING:
    from lidcam_rt.augment import Augment
    from lidcam_rt.crf.localization import Refine
    from lidcam_rt.pipeline import Pipeline
    from lidcam_rt.prepared import Prepared

__all__ = ["check_stream", "run_stream"]

_Job: TypeAlias = "tuple[str, tuple[int, ...], Future[Prepared]]"


def check_stream(images: Any, batch_size: int | None, ahead: int, workers: int | None) -> None:
    """Check the arguments of a stream before anything is read.

    Raises:
        InputError: a number is out of range, or `images` is one picture.
    """
    for name, value, low in (("batch_size", batch_size, 1), ("ahead", ahead, 0), ("workers", workers, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
            raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}")
    if isinstance(images, (str, bytes, os.PathLike)):
        raise InputError(f"stream takes an iterable of pictures, got {describe(images)}: use [picture]")


def run_stream(
    pipeline: Pipeline,
    images: Iterable[ImageSource],
    *,
    labels: Iterable[Sequence[int] | int | None] | None,
    batch_size: int,
    top_k: int | None,
    keep_image: bool,
    refine: Refine | None,
    augment: Augment | None = None,
    ahead: int,
    workers: int | None,
    finish_row: Callable[..., Any] | None = None,
    names: Sequence[str] = OUTPUTS,
) -> Generator[Any, None, None]:
    """See `Localizer.stream`.

    `finish_row` makes the results in place of `Pipeline.finish`, from the outputs `names` of the graph.
    """
    from lidcam_rt.crf.stop import stoppable

    pipeline, networks = pipeline.for_streams()
    stop = Stop()
    pool = ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="lidcam-decode")
    network = ThreadPoolExecutor(networks, thread_name_prefix="lidcam-network")

    def run_batch(jobs: list[_Job]) -> list[Future[Any] | Failure]:
        results: list[Future[Any] | Failure | None] = [None] * len(jobs)
        places, prepared = [], []
        for i, (name, _, future) in enumerate(jobs):
            try:
                prepared.append(future.result())
                places.append(i)
            except InputError as error:
                results[i] = Failure(name, error)
        if prepared:
            wanted = [jobs[i][1] for i in places]
            outputs = pipeline.run(prepared, wanted, names, stop)
            for row, i in enumerate(places):
                finish = partial(finish_row or pipeline.finish, prepared[row], outputs, row, len(wanted[row]), refine)
                results[i] = pool.submit(stoppable, stop, finish)
        return [entry for entry in results if entry is not None]

    def read(count: int) -> list[_Job]:
        jobs: list[_Job] = []
        while len(jobs) < count:
            try:
                image = next(pictures)
            except StopIteration:
                break
            wanted = pipeline.wanted(_next_label(), top_k)
            future = pool.submit(pipeline.prepare, image, keep_image=keep_image, refine=refine, augment=augment)
            jobs.append((describe(image), wanted, future))
        return jobs

    def _next_label() -> Sequence[int] | int | None:
        if given is None:
            return None
        try:
            return next(given)
        except StopIteration:
            raise InputError("labels ended before the pictures did: give one entry per picture") from None

    running: deque[Future[list[Future[Any] | Failure]]] = deque()
    try:
        pictures = iter(images)
        given = None if labels is None else iter(labels)
        exhausted = False
        while True:
            while not exhausted and len(running) <= ahead:
                jobs = read(batch_size)
                exhausted = len(jobs) < batch_size
                if jobs:
                    running.append(network.submit(run_batch, jobs))
                del jobs
            if not running:
                return
            entries = deque(running.popleft().result())
            while entries:  # emptied as results are given out, so that none is kept alive here
                entry = entries.popleft()
                yield entry if isinstance(entry, Failure) else entry.result()
                del entry
    finally:
        stop.set()  # after Ctrl-C, or where the stream is closed early, nobody wants what is still running
        for batch in running:
            batch.cancel()
        # The network first: a batch in progress still hands its post-processing to the pool.
        network.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)
