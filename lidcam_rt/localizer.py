"""Load an artifact and localize: the class that most users need."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends import Backend, open_backend
from lidcam_rt.backends.engine_file import manifest_of
from lidcam_rt.errors import InputError
from lidcam_rt.image import MAX_PIXELS, ImageSource, describe, network_input, read_image
from lidcam_rt.pipeline import Prepared, localizations, wanted_classes
from lidcam_rt.results import Failure, Localization

if TYPE_CHECKING:
    from lidcam_rt.crf.localization import MapRefiner
    from lidcam_rt.crf.options import CrfOptions

__all__ = ["Localizer", "Prepared", "load"]

_OUTPUTS = ("logits", "class_ids", "map8", "threshold")


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Localizer:
    """Load an artifact.

    Args:
        path: an .onnx file made by `lidcam export`, or an .engine file made by `lidcam build`.
        backend: `auto`, `onnxruntime` (artifacts) or `tensorrt` (engines).
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`. What is asked for is what runs: there is no silent
            change to the CPU.
        threads: threads of one network call on the CPU; 0: one per usable core.
        max_pixels: pictures of more pixels are refused.

    Raises:
        ArtifactError: the file is missing, damaged, not a lidcam artifact, or of a newer schema.
        BackendError: backend or device cannot be had here.
        InputError: an argument is none that is known.
    """
    manifest = manifest_of(path)
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels must be a positive number of pixels, got {max_pixels!r}")
    engine = open_backend(path, manifest, backend=backend, device=device, threads=threads)
    return Localizer(engine, manifest, path=Path(path), max_pixels=max_pixels)


class Localizer:
    """Finds where a class is in a picture. Made by `load`.

    One localizer may be used from several threads. It is a context manager; after `close` it refuses to work.

    Args:
        backend: the engine.
        manifest: the artifact's manifest.
        path: the artifact.
        max_pixels: pictures of more pixels are refused.
    """

    def __init__(
        self, backend: Backend, manifest: Manifest, *, path: Path | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._backend: Backend | None = backend
        self._manifest = manifest
        self._lock = threading.Lock()
        self._description = f"{backend.name} on {backend.device}"
        self.path = path
        self.max_pixels = max_pixels

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self._manifest

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self._manifest.class_names

    @property
    def backend(self) -> Backend:
        """The engine.

        Raises:
            InputError: the localizer is closed.
        """
        backend = self._backend
        if backend is None:
            raise InputError(
                "this Localizer is closed: load the artifact again, or use it inside its `with` block"
            )
        return backend

    @property
    def device(self) -> str:
        """Where it runs: `cpu` or `cuda:INDEX`."""
        return self.backend.device

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._backend is None

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._description
        return f"<Localizer {self.path.name if self.path else ''} ({state}, {len(self.class_names)} classes)>"

    def __enter__(self) -> Localizer:
        _ = self.backend
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine. May be called twice; calls that are under way in other threads end normally."""
        with self._lock:
            backend, self._backend = self._backend, None
        del backend  # the last user frees it: another thread may be inside run()

    def __call__(
        self,
        image: ImageSource,
        *,
        labels: Sequence[int] | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        crf: CrfOptions | str | None = None,
        crf_size: str = "network",
    ) -> Localization:
        """Localize in one picture.

        Args:
            image: a path, the bytes of a file, a uint8 array [H, W, 3] RGB (or [H, W], [H, W, 4]), a
                Pillow image.
            labels: class ids to localize instead of the predicted ones (ground-truth-known
                localization), at most the artifact's top_k.
            top_k: predicted classes to localize, 1 to the artifact's top_k; the best is the result, the
                rest are in its `others`. By default 1.
            keep_image: keep the picture in the result, for `overlay`.
            crf: refine map, mask and box by the picture with a dense CRF: a preset (psa, irn, deeplab, example) or
                CrfOptions. The PaS threshold is where foreground and background tie
                (`lidcam_rt.crf.foreground_probability`).
            crf_size: `network` or `original`, see `lidcam_rt.crf.MapRefiner`.

        Raises:
            ImageError: the picture cannot be read.
            InputError: labels, top_k or crf are out of range, or the localizer is closed.
            BackendError: the engine failed.
        """
        backend = self.backend
        wanted, refiner = self.check_labels(labels, top_k), _refiner(crf, crf_size)
        return self.run(backend, [self.prepare(image, keep_image=keep_image, refiner=refiner)], [wanted], refiner)[0]

    @overload
    def batch(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[Sequence[int] | int | None] | None = ...,
        top_k: int | None = ...,
        keep_image: bool = ...,
        on_error: Literal["raise"] = ...,
        crf: CrfOptions | str | None = ...,
        crf_size: str = ...,
    ) -> list[Localization]: ...

    @overload
    def batch(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[Sequence[int] | int | None] | None = ...,
        top_k: int | None = ...,
        keep_image: bool = ...,
        on_error: Literal["yield"],
        crf: CrfOptions | str | None = ...,
        crf_size: str = ...,
    ) -> list[Localization | Failure]: ...

    def batch(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[Sequence[int] | int | None] | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        on_error: Literal["raise", "yield"] = "raise",
        crf: CrfOptions | str | None = None,
        crf_size: str = "network",
    ) -> Any:
        """Localize in several pictures with one call of the network.

        Args:
            images: the pictures, of any sizes.
            labels: per picture its class ids, one class id, or None for the predicted ones.
            top_k: as in `__call__`.
            keep_image: as in `__call__`.
            on_error: `raise` the error of a picture that cannot be read, or `yield` a Failure in its place.
            crf: as in `__call__`.
            crf_size: as in `__call__`.

        Returns:
            One Localization (or Failure) per picture, in order; an empty list for no pictures.
        """
        _check_on_error(on_error)
        backend, refiner = self.backend, _refiner(crf, crf_size)
        sources = _listed(images)
        if labels is not None and len(labels) != len(sources):
            raise InputError(
                f"labels must have one entry per picture: {len(labels)} for {len(sources)} pictures"
            )
        wanted = [
            self.check_labels(None if labels is None else labels[i], top_k) for i in range(len(sources))
        ]
        results: list[Localization | Failure | None] = [None] * len(sources)
        prepared, places = [], []
        for i, source in enumerate(sources):
            try:
                prepared.append(self.prepare(source, keep_image=keep_image, refiner=refiner))
                places.append(i)
            except InputError as error:
                if on_error == "raise":
                    raise
                results[i] = Failure(describe(source), error)
        if prepared:
            found = self.run(backend, prepared, [wanted[i] for i in places], refiner)
            for i, result in zip(places, found, strict=True):
                results[i] = result
        return results

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Iterable[Sequence[int] | int | None] | None = None,
        batch_size: int | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        on_error: Literal["raise", "yield"] = "raise",
        ahead: int = 4,
        workers: int | None = None,
        crf: CrfOptions | str | None = None,
        crf_size: str = "network",
    ) -> Generator[Localization | Failure, None, None]:
        """Localize in a stream of pictures: decoding, network and post-processing overlap; order is kept.

        Nothing is read before the first result is asked for. At most `(ahead + 1) * batch_size` pictures
        are held; closing the generator (or an error, or Ctrl-C) ends its threads.

        Args:
            images: any iterable, also an endless one; it is read in the caller's thread.
            labels: as in `batch`, read along with `images`.
            batch_size: pictures per call of the network; by default 1 on the CPU, where larger batches were
                measured slower (benchmarks/README.md), and 8 on a GPU.
            top_k: as in `__call__`.
            keep_image: as in `__call__`.
            on_error: `raise` the error of the first picture that cannot be read, after the results
                before it; or `yield` a Failure in its place and go on.
            ahead: batches that are read ahead of the one being given out.
            workers: threads for decoding and post-processing; by default one per usable core.
            crf: as in `__call__`; the CRFs of several pictures run at once.
            crf_size: as in `__call__`.
        """
        from lidcam_rt.stream import run_stream

        _check_on_error(on_error)
        for name, value, low in (("batch_size", batch_size, 1), ("ahead", ahead, 0), ("workers", workers, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
                raise InputError(f"{name} must be a whole number of at least {low}, got {value!r}")
        self.check_labels(None, top_k)
        if batch_size is None:
            batch_size = 1 if self.device == "cpu" else 8
        if isinstance(images, (str, bytes, os.PathLike)):
            raise InputError(f"stream takes an iterable of pictures, got {describe(images)}: use [picture]")
        return run_stream(
            self,
            images,
            labels=labels,
            batch_size=batch_size,
            top_k=top_k,
            keep_image=keep_image,
            on_error=on_error,
            ahead=ahead,
            workers=workers,
            refiner=_refiner(crf, crf_size),
        )

    # The steps, for those who arrange them in their own way (stream, evaluation, serving).

    def check_labels(self, labels: Sequence[int] | int | None, top_k: int | None) -> tuple[int, ...]:
        """What the graph's input `labels` gets for one picture, one entry per localization wanted.

        Raises:
            InputError: a class id is out of range, there are more than the artifact's top_k, or it takes
                none.
        """
        return wanted_classes(self._manifest, labels, top_k)

    def prepare(
        self, image: ImageSource, *, keep_image: bool = True, refiner: MapRefiner | None = None
    ) -> Prepared:
        """Decode a picture and make its network input. What `refiner` will need of the picture is kept.

        Raises:
            ImageError: the picture cannot be read.
        """
        picture = read_image(image, max_pixels=self.max_pixels)
        path = describe(image) if isinstance(image, (str, os.PathLike)) else None
        if path is None and isinstance(name := getattr(image, "filename", None), str) and name:
            path = name
        size = (picture.shape[1], picture.shape[0])
        array = network_input(picture, self._manifest.input)
        keep_picture = keep_image or (refiner is not None and refiner.size == "original")
        return Prepared(path, size, picture if keep_picture else None, array, keep_image)

    def forward(
        self, backend: Backend, prepared: Sequence[Prepared], wanted: Sequence[tuple[int, ...]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the network on prepared pictures."""
        labels = None
        if self._manifest.labels_input:
            labels = np.full((len(prepared), self._manifest.top_k), -1, np.int64)
            for row, ids in zip(labels, wanted, strict=True):
                row[: len(ids)] = ids
        stacked: Any = np.stack([entry.array for entry in prepared])
        return backend.run(stacked, labels, _OUTPUTS)

    def finish(
        self,
        entry: Prepared,
        outputs: dict[str, npt.NDArray[Any]],
        row: int,
        count: int,
        refiner: MapRefiner | None = None,
    ) -> Localization:
        """Post-process row `row` of the network's outputs into `count` localizations at original size."""
        return localizations(self._manifest, entry, outputs, row, count, refiner)

    def run(
        self,
        backend: Backend,
        prepared: Sequence[Prepared],
        wanted: Sequence[tuple[int, ...]],
        refiner: MapRefiner | None = None,
    ) -> list[Localization]:
        """`forward`, then `finish` of each."""
        outputs = self.forward(backend, prepared, wanted)
        return [self.finish(entry, outputs, i, len(wanted[i]), refiner) for i, entry in enumerate(prepared)]


def _refiner(crf: CrfOptions | str | None, size: str) -> MapRefiner | None:
    if crf is None and size == "network":
        return None  # nothing of the CRF is imported
    from lidcam_rt.crf.localization import MapRefiner

    return MapRefiner.of(crf, size)


def _check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "yield"):
        raise InputError(f"on_error must be raise or yield, got {on_error!r}")


def _listed(images: Iterable[ImageSource]) -> list[ImageSource]:
    if isinstance(images, (str, bytes, bytearray, os.PathLike)) or not isinstance(images, Iterable):
        raise InputError(f"batch takes several pictures, got {describe(images)}: use [picture]")
    return list(images)
