"""What a query does: from the bytes of pictures to results, or the call of the network alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lidcam_bench.latency.system import Task
from lidcam_bench.latency.target import Scope, Target
from lidcam_rt.crf import Refine
from lidcam_rt.defaults import views
from lidcam_rt.localizer import Localizer
from lidcam_rt.pipeline import Pipeline
from lidcam_rt.segmentation import SEGMENT_OUTPUTS, Segmenter
from lidcam_rt.segmenter import CamSegmenter, SegmentOptions

__all__ = ["SCOPES", "Tasks"]

#: What the times cover, for the report.
SCOPES: dict[Scope, str] = {
    "end-to-end": "from the encoded picture in memory to class, map, mask and box (or label map) in memory: decoding, "
    "pre-processing, copies to and from the device, network, CAM, PaS, CRF and boxes. Not in it: reading files, "
    "writing results, a network connection.",
    "inference": "the call of the engine alone: from prepared input in host memory to maps in host memory, copies to "
    "and from the device included. Not in it: decoding, pre-processing, CRF, masks at the picture's size, boxes.",
}


@dataclass(frozen=True)
class Tasks:
    """The work of one target on its pictures.

    Args:
        localizer: the open target.
        target: how it is run.
        pictures: encoded.
        scope: what a query covers.
    """

    localizer: Localizer | Segmenter
    target: Target
    pictures: Sequence[bytes]
    scope: Scope

    def task(self) -> Task:
        """For calls one after the other."""
        return self._task(self.localizer.pipeline)

    def concurrent(self) -> tuple[Task, int]:
        """For several threads at once, and how many."""
        pipeline, threads = self.localizer.pipeline.for_streams()
        if self._gives_label_maps and self.scope == "end-to-end":
            return self.task(), threads  # a segmenter of either kind has its own pipeline
        return self._task(pipeline), threads

    def stream(self) -> Callable[[Sequence[int]], Iterable[object]] | None:
        """All pictures through `stream` of a Localizer or Segmenter; None where nothing streams."""
        if self.scope != "end-to-end" or (self._gives_label_maps and not isinstance(self.localizer, Segmenter)):
            return None

        def run(places: Sequence[int]) -> Iterable[object]:
            pictures = (self.pictures[i] for i in places)
            return self.localizer.stream(
                pictures, batch_size=self.target.batch, keep_image=False, refine=self.target.refine or "none"
            )

        return run

    @property
    def _gives_label_maps(self) -> bool:
        return self.target.pipeline == "track1" or isinstance(self.localizer, Segmenter)

    def _task(self, pipeline: Pipeline) -> Task:
        opened, refine = self.localizer, Refine.of(self.target.refine)
        averaged = views(opened.manifest, None)
        if self.scope == "inference":
            prepared = [pipeline.prepare(picture, keep_image=False) for picture in self.pictures]
            if isinstance(opened, Segmenter):
                return lambda places: pipeline.run([prepared[i] for i in places], outputs=SEGMENT_OUTPUTS)
            return lambda places: pipeline.run([prepared[i] for i in places])
        if isinstance(opened, Segmenter):
            return lambda places: opened.batch([self.pictures[i] for i in places], keep_image=False, refine=refine)
        if self.target.pipeline == "track1":
            segmenter = CamSegmenter(opened, SegmentOptions(refine=self.target.refine))
            return lambda places: [segmenter(self.pictures[i], keep_image=False) for i in places]
        wanted = pipeline.wanted()

        def localize(places: Sequence[int]) -> object:
            how: Any = {"keep_image": False, "refine": refine, "augment": averaged}
            entries = [pipeline.prepare(self.pictures[i], **how) for i in places]
            return pipeline.localize(entries, [wanted] * len(entries), refine)

        return localize
