"""Label maps of a segmentation network: what `lidcam_rt.load` returns for an artifact of task `segmentation`."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lidcam_rt.defaults import refinement, views
from lidcam_rt.image import ImageSource
from lidcam_rt.loaded import Loaded
from lidcam_rt.localizer import listed
from lidcam_rt.prepared import Outputs, Prepared
from lidcam_rt.results import ClassScore, Failure
from lidcam_rt.segmenter import Segmentation

if TYPE_CHECKING:
    from lidcam_rt.augment import Augment
    from lidcam_rt.crf.localization import Refine
    from lidcam_rt.crf.options import CrfOptions

__all__ = ["SEGMENT_OUTPUTS", "Segmenter"]

#: The outputs of the graph that a label map is made of.
SEGMENT_OUTPUTS = ("logits", "label_map", "scores")


class Segmenter(Loaded):
    """Makes label maps: background or one class per pixel. Made by `lidcam_rt.load`.

    A segmenter may be used from several threads. It is a context manager; after `close` it cannot be used. For label
    maps from the activation maps of a classifier, use `CamSegmenter`.
    """

    def __call__(
        self,
        image: ImageSource,
        *,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
        augment: Augment | str | None = None,
    ) -> Segmentation:
        """Segment one picture.

        Where the picture has the network's size, the label map is the graph's; else the logits of the classes in it
        are resized bilinearly to the picture's size, and the highest wins (labels are never resized).

        Args:
            image: as for a Localizer.
            keep_image: keep the picture in the result, for `overlay`.
            refine: a dense CRF over all classes of the label map, at the picture's size: a preset (psa, irn, deeplab,
                example), CrfOptions, or `lidcam_rt.crf.Refine`.
            augment: average the logits of several views: `flip`, `ms-flip`, or a `lidcam_rt.augment.Augment`.

        Raises:
            ImageError: the picture cannot be read.
            InputError: refine or augment is out of range, or the segmenter is closed.
            BackendError: the engine failed.
        """
        return self.batch([image], keep_image=keep_image, refine=refine, augment=augment)[0]

    def batch(
        self,
        images: Iterable[ImageSource],
        *,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
        augment: Augment | str | None = None,
    ) -> list[Segmentation]:
        """Segment several pictures of any sizes with one call of the network: all of them, or none.

        The options are those of a call.

        Raises:
            ImageError: a picture cannot be read.
            InputError: as in a call.
            BackendError: the engine failed.
        """
        pipeline = self.pipeline
        how, averaged = refinement(self.manifest, refine), views(self.manifest, augment)
        prepared = [
            pipeline.prepare(image, keep_image=keep_image, refine=how, augment=averaged) for image in listed(images)
        ]
        if not prepared:
            return []
        outputs = pipeline.run(prepared, outputs=SEGMENT_OUTPUTS)
        return [self.finish(entry, outputs, row, refine=how) for row, entry in enumerate(prepared)]

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int | None = None,
        keep_image: bool = True,
        refine: Refine | CrfOptions | str | None = None,
        augment: Augment | str | None = None,
        ahead: int = 4,
        workers: int | None = None,
    ) -> Generator[Segmentation | Failure, None, None]:
        """Segment a stream of pictures: decoding, network and post-processing overlap; order is kept.

        The options are those of a call and of `Localizer.stream`.

        Yields:
            A Segmentation per picture, or a Failure with the error where a picture cannot be read.

        Raises:
            InputError: an argument is out of range, or the segmenter is closed.
            BackendError: the engine failed.
        """
        from lidcam_rt.stream import check_stream, run_stream

        check_stream(images, batch_size, ahead, workers)
        return run_stream(
            self.pipeline,
            images,
            labels=None,
            batch_size=batch_size or (1 if self.device == "cpu" else 8),
            top_k=None,
            keep_image=keep_image,
            refine=refinement(self.manifest, refine),
            augment=views(self.manifest, augment),
            ahead=ahead,
            workers=workers,
            finish_row=self.finish,
            names=SEGMENT_OUTPUTS,
        )

    def finish(
        self, entry: Prepared, outputs: Outputs, row: int = 0, count: int = 1, refine: Refine | None = None
    ) -> Segmentation:
        """Post-process a row of the network's outputs into a label map at the picture's size.

        Args:
            entry: the picture of that row.
            outputs: at least those of `SEGMENT_OUTPUTS`.
            row: 0 to N - 1.
            count: as for `Pipeline.finish`; a label map has no ranks.
            refine: refine the label map with a dense CRF.
        """
        import cv2

        stage, names = self.pipeline.stage, self.class_names
        labels: npt.NDArray[np.uint8] = outputs["label_map"][row]
        logits = outputs["logits"][row]
        if entry.views:
            labels = logits.argmax(0).astype(np.uint8)
        width, height = entry.size
        if refine is not None or entry.views or labels.shape != (height, width):
            with stage("maps"):
                present = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(logits)))
                size = (width, height)
                planes = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in logits[present]]
                large = np.stack(planes).astype(np.float32)
            if refine is not None and len(present) > 1:
                from lidcam_rt.crf import DenseCRF, from_logits

                assert entry.picture is not None
                with stage("crf"):
                    large = DenseCRF(refine.options).refine(entry.picture, from_logits(large))
            with stage("compose"):
                labels = present.astype(np.uint8)[large.argmax(0)]
        scores = outputs["scores"][row]
        found = [int(label) for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)) if label]
        found.sort(key=lambda label: (-float(scores[label - 1]), label))
        classes = tuple(ClassScore(label - 1, names[label - 1], float(scores[label - 1])) for label in found)
        picture = entry.picture if entry.keep_image else None
        return Segmentation(np.ascontiguousarray(labels), classes, tuple(found), entry.path, picture)

