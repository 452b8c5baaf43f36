"""The models of a server by name and version: loading, reloading, and lending them to requests."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import ArtifactError
from lidcam_rt.files import file_sha256
from lidcam_rt.loading import load
from lidcam_rt.localizer import Localizer
from lidcam_rt.pipeline import OUTPUTS, Pipeline
from lidcam_rt.segmentation import SEGMENT_OUTPUTS, Segmenter
from lidcam_serve.batching import Batcher
from lidcam_serve.described import describe_manifest
from lidcam_serve.errors import NotFound
from lidcam_serve.metrics import Metrics, ModelMetrics
from lidcam_serve.options import ModelSpec, ServeOptions

__all__ = ["Model", "Models"]

_log = logging.getLogger("lidcam_serve")


class Model:
    """One artifact on its engine, with its batcher.

    Args:
        spec: name, version and file.
        options: of the server.
        device: what runs it.
        pool: decodes and finishes.
        metrics: of the process.

    Raises:
        LidcamError: what `lidcam_rt.load` raises.
    """

    def __init__(
        self, spec: ModelSpec, options: ServeOptions, device: str, pool: ThreadPoolExecutor, metrics: Metrics
    ) -> None:
        self.spec = spec
        try:
            self.digest = file_sha256(spec.path)  # before it is loaded: a file that changes meanwhile is loaded again
        except OSError as error:
            raise ArtifactError(
                f"{spec.path}: cannot be read ({error.strerror or error}). Make it with `lidcam export`"
            ) from None
        self.loaded: Localizer | Segmenter = load(
            spec.path,
            backend=options.backend,
            device=device,
            precision=options.precision,
            max_pixels=options.max_pixels,
        )
        observer = ModelMetrics(metrics, spec.name)
        self.pipeline, parallel = self.loaded.pipeline.for_streams()
        cores = max(1, usable_cores() // options.workers)
        _warm_up(self.pipeline)
        if self.loaded.pipeline is not self.pipeline:
            _warm_up(self.loaded.pipeline)  # for label maps whose classes take a second call
        for pipeline in (self.pipeline, self.loaded.pipeline):
            pipeline.stage = observer.stage
        self.batcher = Batcher(
            self.pipeline,
            parallel if self.loaded.device != "cpu" else max(1, min(parallel, cores)),
            pool,
            max_batch=options.max_batch or (1 if self.loaded.device == "cpu" else 8),
            max_delay=options.max_delay,
            queue=options.queue,
            observer=observer,
        )
        self._idle = threading.Condition()
        self._lent = 0

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self.loaded.manifest

    @property
    def segments(self) -> bool:
        """Whether it is a segmentation network."""
        return isinstance(self.loaded, Segmenter)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of the graph that may be requested."""
        declared = (str(entry["name"]) for entry in self.pipeline.backend.outputs)
        return tuple(name for name in declared if name in self.pipeline.check.outputs)

    def lend(self) -> None:
        """Count one more user."""
        with self._idle:
            self._lent += 1

    def give_back(self) -> None:
        """Count one user less."""
        with self._idle:
            self._lent -= 1
            self._idle.notify_all()

    def retire(self) -> None:
        """Close it once its last user is gone."""
        with self._idle:
            self._idle.wait_for(lambda: self._lent == 0)
        self.batcher.close()
        self.loaded.close()


def _warm_up(pipeline: Pipeline) -> None:
    """Run the network once, so that no request pays for it and a broken artifact is detected at the start."""
    spec = pipeline.manifest.input
    grey = np.full((spec.height, spec.width, 3), 128, np.uint8)
    prepared = pipeline.prepare(grey, keep_image=False)
    pipeline.run([prepared], outputs=SEGMENT_OUTPUTS if pipeline.manifest.task == "segmentation" else OUTPUTS)


class Models:
    """All models of a process.

    Args:
        options: of the server.
        device: what runs them.
        metrics: of the process.

    Raises:
        LidcamError: one cannot be loaded.
    """

    def __init__(self, options: ServeOptions, device: str, metrics: Metrics) -> None:
        self._options, self._device, self._metrics = options, device, metrics
        cores = max(1, usable_cores() // options.workers)
        self.pool = ThreadPoolExecutor(cores, thread_name_prefix="lidcam-decode")
        self._lock, self._reloading = threading.Lock(), threading.Lock()
        self._models: dict[tuple[str, str], Model] = {}
        self._retiring: list[threading.Thread] = []
        try:
            for spec in options.models:
                self._models[spec.name, spec.version] = self._open(spec)
        except BaseException:
            self.close()
            raise

    def _open(self, spec: ModelSpec) -> Model:
        return Model(spec, self._options, self._device, self.pool, self._metrics)

    @property
    def default(self) -> str:
        """Name of the model for requests that name none."""
        return self._options.models[0].name

    def all(self) -> list[Model]:
        """All models, in the order in which they were given."""
        with self._lock:
            return list(self._models.values())

    def versions(self, name: str) -> list[str]:
        """The versions of a model, the newest last.

        Raises:
            NotFound: there is no such model.
        """
        found = sorted((v for n, v in self._models if n == name), key=int)
        if not found:
            raise NotFound(f"there is no model {name[:128]!r}")
        return found

    def get(self, name: str, version: str = "") -> Model:
        """A model, by default its newest version.

        Raises:
            NotFound: there is no such model or version.
        """
        version = version or self.versions(name)[-1]
        with self._lock:
            model = self._models.get((name, version))
        if model is None:
            self.versions(name)
            raise NotFound(f"model {name!r} has no version {version[:16]!r}")
        return model

    @contextmanager
    def lent(self, name: str, version: str = "") -> Iterator[Model]:
        """A model for the duration of a request; it is not closed before that ends, whatever is loaded meanwhile."""
        version = version or self.versions(name)[-1]
        with self._lock:
            model = self._models.get((name, version))
            if model is not None:
                model.lend()
        if model is None:
            raise NotFound(f"model {name[:128]!r} has no version {version[:16]!r}")
        try:
            yield model
        finally:
            model.give_back()

    def reload(self, name: str | None = None) -> dict[str, str]:
        """Reload what has changed on disk. Running requests finish on the model they began on.

        A file that cannot be loaded leaves the old model in place.

        Args:
            name: of one model; None: all.

        Returns:
            What became of each model `NAME:VERSION`: `unchanged`, `loaded` or `failed`.

        Raises:
            NotFound: there is no such model.
        """
        if name is not None:
            self.versions(name)
        outcome: dict[str, str] = {}
        with self._reloading:
            for old in self.all():
                if name is not None and old.spec.name != name:
                    continue
                spec = old.spec
                outcome[f"{spec.name}:{spec.version}"] = result = self._reload(old)
                self._metrics.reloads.labels(spec.name, result).inc()
        return outcome

    def _reload(self, old: Model) -> str:
        spec = old.spec
        try:
            if file_sha256(spec.path) == old.digest:
                return "unchanged"
            new = self._open(spec)
        except Exception as error:  # whatever a broken file raises: the old model stays in use
            reason = f"{type(error).__name__}: {error}"
            _log.error("reload failed", extra={"fields": {"model": spec.name, "reason": reason}})
            return "failed"
        with self._lock:
            self._models[spec.name, spec.version] = new
        thread = threading.Thread(target=old.retire, name="lidcam-retire")
        thread.start()
        self._retiring = [entry for entry in self._retiring if entry.is_alive()] + [thread]
        _log.info(
            "model loaded",
            extra={"fields": {"model": spec.name, "version": spec.version, "sha256": new.digest, "pid": os.getpid()}},
        )
        return "loaded"

    def close(self) -> None:
        """Close all models, once their last users are gone."""
        for model in self.all():
            model.retire()
        for thread in self._retiring:
            thread.join()
        self.pool.shutdown()

    def describe(self) -> list[dict[str, Any]]:
        """For `/v1/models` and the page."""
        return [
            {
                "name": model.spec.name,
                "version": model.spec.version,
                **describe_manifest(model.manifest),
                "input": [model.manifest.input.height, model.manifest.input.width],
                "sha256": model.digest,
            }
            for model in self.all()
        ]
