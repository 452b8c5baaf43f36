"""Load an artifact and localize: the class that most users need."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends import Backend, manifest_of, open_backend
from lidcam_rt.errors import InputError
from lidcam_rt.image import MAX_PIXELS, ImageSource, describe
from lidcam_rt.pipeline import Pipeline
from lidcam_rt.results import Failure, Localization

if TYPE_CHECKING:
    from lidcam_rt.crf.localization import Refine
    from lidcam_rt.crf.options import CrfOptions

__all__ = ["Localizer", "load"]


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
    strict: bool = True,
    deadline: float | None = None,
) -> Localizer:
    """Load an artifact.

    Args:
        path: an .onnx file made by `lidcam export`, or an .engine file made by `lidcam build`.
        backend: `auto`, `onnxruntime` or `openvino` (artifacts), `tensorrt` (engines). `auto` is TensorRT for engines;
            for artifacts ONNX Runtime, but on the CPU OpenVINO for those of `lidcam quantize` in int8, where it is
            installed; where the first lacks the precision, the installed engine that has it.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`. What is asked for is what runs: there is no silent
            change to the CPU.
        threads: threads of one network call on the CPU; 0: one per usable core.
        precision: of the network's arithmetic: `auto` (as exported or built), `fp32`, or `bf16` (OpenVINO; faster where
            the processor has AMX or AVX-512-BF16, and less exact).
        max_pixels: pictures of more pixels are refused.
        strict: refuse pictures of which data is missing or damaged; False: localize in what can be read of them, and
            say what was missing in the result.
        deadline: seconds that the first run of the network may take, for artifacts of unknown origin, whose graph may
            never end; None: any time.

    Raises:
        ArtifactError: the file is missing, damaged, not a lidcam artifact, or of a newer schema.
        BackendError: the backend or device is not available here.
        MissingExtraError: the backend is not installed.
        InputError: an argument is not recognised.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"load needs the path of an artifact or engine, got {type(path).__name__}: write it to a file")
    manifest = manifest_of(path)
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels must be a positive number of pixels, got {max_pixels!r}")
    if deadline is not None and not (isinstance(deadline, (int, float)) and deadline > 0):
        raise InputError(f"deadline must be a number of seconds above 0, got {deadline!r}")
    asked: dict[str, Any] = {"backend": backend, "device": device, "threads": threads, "precision": precision}
    limits: dict[str, Any] = {"max_pixels": max_pixels, "strict": strict, "deadline": deadline}
    localizer = Localizer(open_backend(path, manifest, **asked), manifest, path=Path(path), **limits)
    localizer._loaded_with = {**asked, **limits}
    return localizer


def _load_again(path: Path, options: dict[str, Any]) -> Localizer:
    return load(path, **options)


class Localizer:
    """Localizes classes in pictures. Made by `load`.

    A localizer may be used from several threads. It is a context manager; after `close` it cannot be used.

    Args:
        backend: the engine.
        manifest: the artifact's manifest.
        path: the artifact.
        max_pixels: pictures of more pixels are refused.
        strict: of `load`.
        deadline: seconds that the first run of the network may take; None: any time.
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
            InputError: the localizer is closed, or was made in another process.
        """
        if os.getpid() != self._process:
            raise InputError(
                "this Localizer came here by fork, and its engine's threads did not: load the artifact in each process "
                "or give the Localizer to processes that are started with the method `spawn`"
            )
        pipeline = self._pipeline
        if pipeline is None:
            raise InputError("this Localizer is closed: load the artifact again, or use it inside its `with` block")
        return pipeline

    @property
    def backend(self) -> Backend:
        """The engine.

        Raises:
            InputError: the localizer is closed.
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
            raise InputError("this Localizer was not made by load: only a path and options of load can be pickled")
        return _load_again, (self.path.absolute(), self._loaded_with)

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._description
        return f"<Localizer {self.path.name if self.path else ''} ({state}, {len(self.class_names)} classes)>"

    def __enter__(self) -> Localizer:
        _ = self.pipeline
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine. May be called twice; calls that are under way in other threads end normally."""
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
        del pipeline  # the last user frees the engine: another thread may be inside run()

    def __call__(
        self,
        image: ImageSource,
        *,
        labels: Sequence[int] | int | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
    ) -> Localization:
        """Localize in one picture.

        Args:
            image: a path, the bytes of a file, a file opened for reading bytes, a uint8 array or CPU tensor
                [H, W, 3] RGB (or [H, W], [H, W, 4]), a Pillow image.
            labels: class ids to localize instead of the predicted ones (ground-truth-known
                localization), at most the artifact's top_k.
            top_k: predicted classes to localize, 1 to the artifact's top_k; the best is the result, the
                rest are in its `others`. By default 1.
            keep_image: keep the picture in the result, for `overlay`.
            refine: refine map, mask and box by the picture with a dense CRF: a preset (psa, irn, deeplab, example),
                which works at the network's size, a preset at the picture's size (`psa@original`), CrfOptions, or
                `lidcam_rt.crf.Refine`. Foreground and background tie at the PaS threshold
                (`lidcam_rt.crf.foreground_probability`).

        Raises:
            ImageError: the picture cannot be read.
            InputError: labels, top_k or refine are out of range, or the localizer is closed.
            BackendError: the engine failed.
        """
        pipeline, how = self.pipeline, _refine(refine)
        wanted = pipeline.wanted(labels, top_k)
        return pipeline.localize([pipeline.prepare(image, keep_image=keep_image, refine=how)], [wanted], how)[0]

    def batch(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[Sequence[int] | int | None] | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
    ) -> list[Localization]:
        """Localize in several pictures with one call of the network: all of them, or none.

        `stream` goes on after a picture that cannot be read.

        Args:
            images: the pictures, of any sizes.
            labels: per picture its class ids, one class id, or None for the predicted ones.
            top_k: as in a call.
            keep_image: as in a call.
            refine: as in a call.

        Returns:
            One Localization per picture, in order; an empty list for no pictures.

        Raises:
            ImageError: a picture cannot be read; the message says which.
            InputError: as in a call, or labels does not have one entry per picture.
            BackendError: the engine failed.
        """
        pipeline, how = self.pipeline, _refine(refine)
        sources = _listed(images)
        if labels is not None and len(labels) != len(sources):
            raise InputError(f"labels must have one entry per picture: {len(labels)} for {len(sources)} pictures")
        wanted = [pipeline.wanted(entry, top_k) for entry in (labels if labels is not None else [None] * len(sources))]
        prepared = []
        for number, source in enumerate(sources):
            try:
                prepared.append(pipeline.prepare(source, keep_image=keep_image, refine=how))
            except InputError as error:
                raise type(error)(f"images[{number}]: {error}") from error
        return pipeline.localize(prepared, wanted, how) if prepared else []

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Iterable[Sequence[int] | int | None] | None = None,
        batch_size: int | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
        ahead: int = 4,
        workers: int | None = None,
    ) -> Generator[Localization | Failure, None, None]:
        """Localize in a stream of pictures: decoding, network and post-processing overlap; order is kept.

        Nothing is read before the first result is asked for. At most `(ahead + 1) * batch_size` pictures
        are held; closing the generator (or an error, or Ctrl-C) ends its threads.

        Args:
            images: any iterable, also an endless one; it is read in the caller's thread.
            labels: as in `batch`, read along with `images`.
            batch_size: pictures per call of the network; by default 1 on the CPU, where larger batches were
                measured slower (benchmarks/README.md), and 8 on a GPU.
            top_k: as in a call.
            keep_image: as in a call.
            refine: as in a call; several pictures are refined at once.
            ahead: batches that are read ahead of the one being given out.
            workers: threads for decoding and post-processing; by default one per usable core.

        Yields:
            One result per picture: a Localization, or a Failure with the error where a picture cannot be read.

        Raises:
            InputError: an argument is out of range, labels end before the pictures do, or the localizer is closed.
            BackendError: the engine failed.
        """
        from lidcam_rt.stream import run_stream

        for name, value, low in (("batch_size", batch_size, 1), ("ahead", ahead, 0), ("workers", workers, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
                raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}")
        pipeline, how = self.pipeline, _refine(refine)
        pipeline.wanted(None, top_k)
        if batch_size is None:
            batch_size = 1 if self.device == "cpu" else 8
        if isinstance(images, (str, bytes, os.PathLike)):
            raise InputError(f"stream takes an iterable of pictures, got {describe(images)}: use [picture]")
        return run_stream(
            pipeline,
            images,
            labels=labels,
            batch_size=batch_size,
            top_k=top_k,
            keep_image=keep_image,
            refine=how,
            ahead=ahead,
            workers=workers,
        )


def _refine(value: Refine | CrfOptions | str | None) -> Refine | None:
    if value is None:
        return None  # nothing of the CRF is imported
    from lidcam_rt.crf.localization import Refine

    return Refine.of(value)


def _listed(images: Iterable[ImageSource]) -> list[ImageSource]:
    if isinstance(images, (str, bytes, bytearray, os.PathLike)) or not isinstance(images, Iterable):
        raise InputError(f"batch takes several pictures, got {describe(images)}: use [picture]")
    return list(images)
