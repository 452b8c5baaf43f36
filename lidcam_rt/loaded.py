"""An artifact loaded on an engine: opening it, closing it, and what Localizer and Segmenter share."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends import Backend, manifest_of, open_backend
from lidcam_rt.errors import InputError
from lidcam_rt.image import MAX_PIXELS
from lidcam_rt.pipeline import Pipeline

__all__ = ["Loaded", "load_again", "open_loaded"]

_Kind = TypeVar("_Kind", bound="Loaded")
_DEFAULTS: dict[str, Any] = {"max_pixels": MAX_PIXELS, "strict": True, "deadline": None}


class Loaded:
    """An artifact loaded on an engine: the base of Localizer and Segmenter.

    It may be used from several threads. It is a context manager; after `close` it cannot be used.

    The options are those of `lidcam_rt.load`.
    """

    def __init__(
        self,
        backend: Backend,
        manifest: Manifest,
        *,
        path: Path | None = None,
        max_pixels: int = MAX_PIXELS,
        strict: bool = True,
        deadline: float | None = None,
    ) -> None:
        limits: dict[str, Any] = {"max_pixels": max_pixels, "strict": strict, "deadline": deadline}
        self._pipeline: Pipeline | None = Pipeline(manifest, backend, name=str(path or "the artifact"), **limits)
        self._manifest = manifest
        self._process = os.getpid()
        self._loaded_with: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._description = self._pipeline.engine
        self.path = path

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self._manifest

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self._manifest.class_names

    @property
    def pipeline(self) -> Pipeline:
        """The steps of a localization, for callers that combine them differently (evaluation, serving).

        Raises:
            InputError: it is closed, or was made in another process.
        """
        if os.getpid() != self._process:
            raise InputError(
                f"this {type(self).__name__} was made before a fork, which its engine's threads do not survive: load "
                "the artifact in each process, or start the processes with the method `spawn`"
            )
        pipeline = self._pipeline
        if pipeline is None:
            raise InputError(
                f"this {type(self).__name__} is closed: load the artifact again, or use it inside its `with` block"
            )
        return pipeline

    @property
    def backend(self) -> Backend:
        """The engine.

        Raises:
            InputError: it is closed.
        """
        return self.pipeline.backend

    @property
    def device(self) -> str:
        """Where it runs: `cpu` or `cuda:INDEX`."""
        return self.backend.device

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._pipeline is None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the path and the options of `load`: the other process loads the artifact again."""
        _ = self.pipeline
        if self._loaded_with is None or self.path is None:
            raise InputError(
                f"this {type(self).__name__} was not made by load: only one that load made from a path can be pickled"
            )
        return load_again, (type(self), self.path.absolute(), self._loaded_with)

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._description
        name = self.path.name if self.path else ""
        return f"<{type(self).__name__} {name} ({state}, {len(self.class_names)} classes)>"

    def __enter__(self) -> Self:
        _ = self.pipeline
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine. May be called twice; calls still running in other threads end normally."""
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
        del pipeline  # the last user frees the engine: another thread may be inside run()


def open_loaded(kind: type[_Kind], path: str | os.PathLike[str], manifest: Manifest, options: dict[str, Any]) -> _Kind:
    """Start an engine on an artifact; the options are those of `lidcam_rt.load`, with their defaults."""
    options = {**_DEFAULTS, **options}
    max_pixels, deadline = options["max_pixels"], options["deadline"]
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels must be a positive number of pixels, got {max_pixels!r}")
    if deadline is not None and not (isinstance(deadline, (int, float)) and deadline > 0):
        raise InputError(f"deadline must be a number of seconds above 0, got {deadline!r}")
    limits = {name: options.pop(name) for name in ("max_pixels", "strict", "deadline")}
    loaded = kind(open_backend(path, manifest, **options), manifest, path=Path(path), **limits)
    loaded._loaded_with = {**options, **limits}
    return loaded


def load_again(kind: type[_Kind], path: Path, options: dict[str, Any]) -> _Kind:
    """Called in the other process when a pickle is loaded there."""
    return open_loaded(kind, path, manifest_of(path), options)
