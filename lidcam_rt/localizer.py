"""`Localizer`, which localizes classes in pictures: what most users need."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

from lidcam_rt.defaults import refinement, views
from lidcam_rt.errors import InputError
from lidcam_rt.image import ImageSource, describe
from lidcam_rt.loaded import Loaded
from lidcam_rt.results import Failure, Localization

if TYPE_CHECKING:
    from lidcam_rt.augment import Augment
    from lidcam_rt.crf.localization import Refine
    from lidcam_rt.crf.options import CrfOptions

__all__ = ["Localizer", "listed"]


class Localizer(Loaded):
    """Localizes classes in pictures. `lidcam_rt.load` makes one from an artifact of task localization or multilabel.

    A localizer may be used from several threads. It is a context manager; after `close` it cannot be used.
    """

    def __call__(
        self,
        image: ImageSource,
        *,
        labels: Sequence[int] | int | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
        augment: Augment | str | None = None,
    ) -> Localization:
        """Localize in one picture.

        Args:
            image: a path, the bytes of a file, a file opened for reading bytes, a uint8 array or CPU tensor
                [H, W, 3] RGB (or [H, W], [H, W, 4]), a Pillow image.
            labels: class ids to localize instead of the predicted ones (ground-truth-known
                localization), at most the artifact's top_k.
            top_k: how many predicted classes to localize, 1 to the artifact's top_k; the best is the result, the
                rest are in its `others`. By default 1.
            keep_image: keep the picture in the result, for `overlay`.
            refine: refine map, mask and box with a dense CRF on the picture: a preset (psa, irn, deeplab, example),
                which works at the network's size; a preset at the picture's size (`psa@original`); CrfOptions; or
                `lidcam_rt.crf.Refine`. Foreground and background tie at the PaS threshold
                (`lidcam_rt.crf.foreground_probability`). None: as `lidcam tune` recorded in the artifact, otherwise no
                CRF; `none`: no CRF.
            augment: average the maps of several views: `flip`, `ms-flip` (scales 0.5, 1, 1.5, 2, each also
                mirrored), or a `lidcam_rt.augment.Augment`. The network runs on every view; scales other than 1 need
                free height and width. None: as `lidcam tune` recorded in the artifact, otherwise one view; `none`: one
                view.

        Raises:
            ImageError: the picture cannot be read.
            InputError: labels, top_k or refine are out of range, or the localizer is closed.
            BackendError: the engine failed.
        """
        pipeline = self.pipeline
        how, averaged = refinement(self.manifest, refine), views(self.manifest, augment)
        wanted = pipeline.wanted(labels, top_k)
        prepared = pipeline.prepare(image, keep_image=keep_image, refine=how, augment=averaged)
        return pipeline.localize([prepared], [wanted], how)[0]

    def batch(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Sequence[Sequence[int] | int | None] | None = None,
        top_k: int | None = None,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
        augment: Augment | str | None = None,
    ) -> list[Localization]:
        """Localize in several pictures with one call of the network: all of them, or none.

        `stream`, in contrast, continues after a picture that cannot be read.

        Args:
            images: the pictures, of any sizes.
            labels: for each picture its class ids, one class id, or None for the predicted classes.
            top_k: as in a call.
            keep_image: as in a call.
            refine: as in a call.
            augment: as in a call.

        Returns:
            One Localization per picture, in order; an empty list for no pictures.

        Raises:
            ImageError: a picture cannot be read; the message says which.
            InputError: as in a call, or labels does not have one entry per picture.
            BackendError: the engine failed.
        """
        pipeline = self.pipeline
        how, averaged = refinement(self.manifest, refine), views(self.manifest, augment)
        sources = listed(images)
        if labels is not None and len(labels) != len(sources):
            raise InputError(f"labels must have one entry per picture: {len(labels)} for {len(sources)} pictures")
        wanted = [pipeline.wanted(entry, top_k) for entry in (labels if labels is not None else [None] * len(sources))]
        prepared = []
        for number, source in enumerate(sources):
            try:
                prepared.append(pipeline.prepare(source, keep_image=keep_image, refine=how, augment=averaged))
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
        augment: Augment | str | None = None,
        ahead: int = 4,
        workers: int | None = None,
    ) -> Generator[Localization | Failure, None, None]:
        """Localize in a stream of pictures: decoding, network and post-processing overlap; order is kept.

        Nothing is read before the first result is requested. At most `(ahead + 1) * batch_size` pictures
        are held; closing the generator (or an error, or Ctrl-C) ends its threads.

        Args:
            images: any iterable, even an endless one; it is read in the caller's thread.
            labels: as in `batch`, read along with `images`.
            batch_size: pictures per call of the network; by default 1 on the CPU, where larger batches were
                measured slower (benchmarks/README.md), and 8 on a GPU.
            top_k: as in a call.
            keep_image: as in a call.
            refine: as in a call; several pictures are refined at once.
            augment: as in a call.
            ahead: batches that are read ahead of the one being yielded.
            workers: threads for decoding and post-processing; by default one per usable core.

        Yields:
            One result per picture: a Localization, or a Failure with the error where a picture cannot be read.

        Raises:
            InputError: an argument is out of range, labels end before the pictures do, or the localizer is closed.
            BackendError: the engine failed.
        """
        from lidcam_rt.stream import check_stream, run_stream

        check_stream(images, batch_size, ahead, workers)
        pipeline, how = self.pipeline, refinement(self.manifest, refine)
        pipeline.wanted(None, top_k)
        if batch_size is None:
            batch_size = 1 if self.device == "cpu" else 8
        return run_stream(
            pipeline,
            images,
            labels=labels,
            batch_size=batch_size,
            top_k=top_k,
            keep_image=keep_image,
            refine=how,
            augment=views(self.manifest, augment),
            ahead=ahead,
            workers=workers,
        )


def listed(images: Iterable[ImageSource]) -> list[ImageSource]:
    """The pictures of a batch; a single picture is refused."""
    if isinstance(images, (str, bytes, bytearray, os.PathLike)) or not isinstance(images, Iterable):
        raise InputError(f"batch takes several pictures, got {describe(images)}: use [picture]")
    return list(images)
