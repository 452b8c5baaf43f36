"""Prometheus metrics of a server, over all of its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE", "Metrics", "ModelMetrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The metrics of a process. With PROMETHEUS_MULTIPROC_DIR set (by the supervisor) `text` adds up all processes."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        label = ["model"]
        self.requests = Counter(
            "lidcam_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.errors = Counter("lidcam_errors", "Requests that were not answered, by kind.", ["kind"], registry=registry)
        self.under_way = Gauge(
            "lidcam_requests_under_way",
            "HTTP requests that are not answered yet.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.request_seconds = Histogram(
            "lidcam_request_seconds",
            "From a request's head to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "lidcam_stage_seconds",
            "Time of each step: decode, preprocess, network, maps, crf, boxes, compose.",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "lidcam_batch_rows",
            "Rows of each call of the network.",
            label,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.dropped = Counter(
            "lidcam_dropped", "Requests that nobody waited for any more, by the step that was skipped.",
            ["model", "stage"], registry=registry,
        )  # fmt: skip
        self.queue_rows = Gauge(
            "lidcam_queue_rows",
            "Rows waiting for the network.",
            label,
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.reloads = Counter(
            "lidcam_reloads", "Reloads of models, by outcome.", ["model", "outcome"], registry=registry
        )

    def text(self) -> bytes:
        """In Prometheus's text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


class ModelMetrics:
    """The metrics of one model: the observer of its batcher, and the hook around the steps of its pipeline.

    Args:
        metrics: of the process.
        name: of the model.
    """

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics, self._name = metrics, name
        self._queue = metrics.queue_rows.labels(name)
        self._rows = metrics.batch_rows.labels(name)

    def queued(self, rows: int) -> None:
        """This many rows wait."""
        self._queue.set(rows)

    def batch(self, rows: int) -> None:
        """The network runs on this many rows."""
        self._rows.observe(rows)

    def dropped(self, stage: str) -> None:
        """A job was dropped before that stage."""
        self._metrics.dropped.labels(self._name, stage).inc()

    def stage(self, name: str, stream: int | None = None) -> AbstractContextManager[object]:
        """Time one step; see `lidcam_rt.backends.base.StageHook`."""
        del stream
        return self._timed(name)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.stage_seconds.labels(self._name, name).observe(time.perf_counter() - start)
