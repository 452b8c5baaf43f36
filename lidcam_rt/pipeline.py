"""The life of a picture: prepare it, run the network on a batch, finish each result.

The Localizer, the stream, the CamSegmenter, evaluation and comparison share `Pipeline`, so that inputs are made in one
place and outputs become results in one place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Backend, StageHook, Stop, engine_text, unobserved
from lidcam_rt.backends.outputs import OutputCheck
from lidcam_rt.boxes import largest_box
from lidcam_rt.errors import BackendError, InputError
from lidcam_rt.image import (
    MAX_PIXELS,
    ImageSource,
    decode,
    describe,
    network_input,
    network_pixels,
    placement,
    to_original_size,
)
from lidcam_rt.prepared import Outputs, Prepared
from lidcam_rt.results import ClassScore, Localization
from lidcam_rt.watch import Watch

if TYPE_CHECKING:
    from lidcam_rt.augment import Augment
    from lidcam_rt.crf.localization import Refine

__all__ = ["OUTPUTS", "Pipeline"]

#: The outputs of the graph that a localization is made of.
OUTPUTS = ("logits", "class_ids", "map8", "threshold")
_TOP = 5


class Pipeline:
    """The steps of a localization with an artifact on an engine. May be used from several threads at once.

    Args:
        manifest: the artifact's manifest.
        backend: the engine that runs it.
        name: of the artifact, for messages.
        max_pixels: pictures with more pixels are refused.
        strict: pictures with missing data are refused.
        deadline: seconds that the first run may take; None: no limit.

    Attributes:
        engine: what runs, for results and reports: engine, version, device and precision.
        stage: entered around each step; see `observe`.
        check: compares outputs with the manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        *,
        name: str = "the artifact",
        max_pixels: int = MAX_PIXELS,
        strict: bool = True,
        deadline: float | None = None,
    ) -> None:
        self.manifest = manifest
        self.backend = backend
        self.name = name
        self.engine = engine_text(backend)
        self.max_pixels = max_pixels
        self.strict = strict
        self.deadline = deadline
        self.stage: StageHook = unobserved
        self.check = OutputCheck(manifest, name)
        self._first = True
        self._watch = Watch()

    def observe(self, stage: StageHook) -> None:
        """Have a hook entered around each step from now on.

        The steps are `decode`, `preprocess`, `network` (and within it those of the backend, if it reports any), `maps`
        (maps and masks at the picture's size), `crf` and `boxes`; and `compose`, which makes label maps.
        """
        self.stage = stage
        if (observe := getattr(self.backend, "observe", None)) is not None:
            observe(stage)

    def for_streams(self) -> tuple[Pipeline, int]:
        """This pipeline on the engine set up for many pictures, and how many threads should call its `run`."""
        backend, threads = self.backend.for_streams()
        if backend is self.backend:
            return self, threads
        limits: Any = {"max_pixels": self.max_pixels, "strict": self.strict, "deadline": self.deadline}
        pipeline = Pipeline(self.manifest, backend, name=self.name, **limits)
        pipeline.observe(self.stage)
        return pipeline, threads

    def wanted(self, labels: Sequence[int] | int | None = None, top_k: int | None = None) -> tuple[int, ...]:
        """The graph's input `labels` for one picture: one entry per requested localization.

        Args:
            labels: class ids, one class id, or None for the predicted classes (-1 each).
            top_k: how many predicted classes; by default 1.

        Raises:
            InputError: a class id is out of range, there are more than the artifact's top_k, or it takes no labels.
        """
        limit = self.manifest.top_k
        if labels is None:
            count = 1 if top_k is None else top_k
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= limit:
                raise InputError(
                    f"top_k must be 1 to {limit} for this artifact, got {count!r}; export it with a larger --top-k"
                )
            return (-1,) * count
        if not self.manifest.labels_input:
            raise InputError("this artifact takes no labels; export it with the labels input")
        ids = _class_ids(labels)
        if not 1 <= len(ids) <= limit:
            raise InputError(
                f"1 to {limit} labels per picture for this artifact, got {len(ids)}; "
                "export it with a larger --top-k, or call once per label"
            )
        classes = len(self.manifest.class_names)
        for class_id in ids:
            if not 0 <= class_id < classes:
                raise InputError(f"label {class_id} is out of range: the artifact has classes 0 to {classes - 1}")
        return ids

    def prepare(
        self,
        image: ImageSource,
        *,
        keep_image: bool = True,
        refine: Refine | None = None,
        augment: Augment | None = None,
    ) -> Prepared:
        """Decode a picture and make its network input.

        Args:
            image: the picture.
            keep_image: whether the result gets the picture.
            refine: how the result will be refined; the picture is kept where that needs it.
            augment: views whose maps are averaged.

        Raises:
            ImageError: the picture cannot be read.
            InputError: the artifact cannot run the views.
        """
        with self.stage("decode"):
            decoded = decode(image, max_pixels=self.max_pixels, strict=self.strict)
        picture = decoded.pixels
        path = describe(image) if isinstance(image, (str, os.PathLike)) else None
        if path is None and isinstance(name := getattr(image, "filename", None), str) and name:
            path = name
        size = (picture.shape[1], picture.shape[0])
        with self.stage("preprocess"):
            array = network_input(picture, self.manifest.input)
            spec = self.manifest.segmentation
            multiple = 1 if spec is None else spec.multiple
            views = () if augment is None else tuple(augment.inputs(picture, self.manifest.input, multiple))
        by_pixels = self.manifest.task == "segmentation"
        keep_picture = keep_image or (refine is not None and (by_pixels or refine.size == "original"))
        kept = picture if keep_picture else None
        return Prepared(path, size, kept, array, keep_image, decoded.missing, views, augment)

    def run(
        self,
        prepared: Sequence[Prepared],
        wanted: Sequence[tuple[int, ...]] | None = None,
        outputs: Sequence[str] = OUTPUTS,
        stop: Stop | None = None,
    ) -> Outputs:
        """Run the network on prepared pictures, and check its outputs against the manifest.

        The first run requests every output and checks them all. In the main thread, Ctrl-C ends a run.

        Args:
            prepared: the pictures, at least one.
            wanted: what `wanted` returned for each; None: the predicted classes.
            outputs: names of the outputs of the graph that are needed.
            stop: ends the run early.

        Returns:
            The outputs by name, each with a row per picture.

        Raises:
            BackendError: the engine failed, was stopped, returned NaN, or passed the deadline.
            ArtifactError: an output is not what the manifest says.
        """
        labels = None
        if self.manifest.labels_input:
            labels = np.full((len(prepared), self.manifest.top_k), -1, np.int64)
            for row, ids in zip(labels, wanted or [()] * len(prepared), strict=True):
                row[: len(ids)] = ids
        names, first = tuple(outputs), self._first
        if first:
            declared = (str(entry["name"]) for entry in self.backend.outputs)
            names = tuple(dict.fromkeys((*names, *(name for name in declared if name in self.check.outputs))))
        with self.stage("network"):
            stacked: Any = np.stack([entry.array for entry in prepared])
            results = self.call(stacked, labels, names, stop or Stop(), self.deadline if first else None)
        (self.check.all_values if first else self.check.values)(results, labels, len(prepared))
        self._first = False
        results = {name: results[name] for name in outputs}
        if not prepared[0].views:
            return results
        from lidcam_rt.averaging import averaged

        return averaged(self, prepared, results, stop or Stop())

    def call(self, image: Any, labels: Any, names: tuple[str, ...], stop: Stop, deadline: float | None) -> Outputs:
        """One run of the engine, unchecked; in another thread if Ctrl-C or a deadline may have to end it."""
        if deadline is None and threading.current_thread() is not threading.main_thread():
            return self.backend.run(image, labels, names, stop)
        try:
            return self._watch.call(lambda: self.backend.run(image, labels, names, stop), stop, deadline)
        except TimeoutError:
            if deadline is None:
                raise
            raise BackendError(
                f"{self.name}: its first run took more than {deadline:g} s on {self.backend.name} and was abandoned: "
                "its graph may never end. Allow more time (deadline=..., --deadline), or use another artifact"
            ) from None

    def finish(
        self, entry: Prepared, outputs: Outputs, row: int = 0, count: int = 1, refine: Refine | None = None
    ) -> Localization:
        """Post-process a row of the network's outputs into localizations at original size.

        Args:
            entry: the picture of that row.
            outputs: at least those of `OUTPUTS`: logits float32 [N, classes], class_ids int64 [N, K], map8 uint8
                [N, K, H, W], threshold float32 [N, K].
            row: 0 to N - 1.
            count: 1 to K; the first is returned, the rest are its `others`.
            refine: refine map, mask and box with a dense CRF.

        Raises:
            InputError: the picture is to be refined at its original size, but was not kept.
        """
        scores = self._scores(outputs["logits"][row])
        names = self.manifest.class_names
        best = np.argsort(-scores, kind="stable")[:_TOP]
        topk = tuple(ClassScore(int(i), names[int(i)], float(scores[i])) for i in best)
        plain: list[Localization] = []
        for rank in range(count):
            class_id, threshold = int(outputs["class_ids"][row, rank]), float(outputs["threshold"][row, rank])
            level = int(np.floor(threshold))  # map > threshold, in whole numbers
            with self.stage("maps"):
                full = to_original_size(outputs["map8"][row, rank], entry.size, self.manifest.input)
                mask = full > np.uint8(level) if 0 <= level < 255 else np.full(full.shape, level < 0, np.bool_)
            with self.stage("boxes"):
                box = largest_box(mask)
            plain.append(
                Localization(
                    class_id=class_id,
                    class_name=names[class_id],
                    score=float(scores[class_id]),
                    topk=topk,
                    box=box,
                    mask=mask,
                    map=full,
                    threshold=threshold,
                    path=entry.path,
                    image=entry.picture if entry.keep_image else None,
                    missing=entry.missing,
                    engine=self.engine,
                )
            )
        plain[0] = replace(plain[0], others=tuple(plain[1:]))
        if refine is None:
            return plain[0]
        refined = [self._refined(p, outputs["map8"][row, rank], entry, refine) for rank, p in enumerate(plain)]
        return replace(refined[0], others=tuple(refined[1:]))

    def localize(
        self, prepared: Sequence[Prepared], wanted: Sequence[tuple[int, ...]], refine: Refine | None = None
    ) -> list[Localization]:
        """`run`, then `finish` of each row."""
        outputs = self.run(prepared, wanted)
        return [self.finish(entry, outputs, i, len(wanted[i]), refine) for i, entry in enumerate(prepared)]

    def _scores(self, row: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        logits = row.astype(np.float64)
        if self.manifest.task == "multilabel":
            return np.asarray(1.0 / (1.0 + np.exp(-logits)))
        scores: npt.NDArray[np.float64] = np.exp(logits - logits.max())
        scores /= scores.sum()
        return scores

    def _refined(
        self, plain: Localization, map8: npt.NDArray[np.uint8], entry: Prepared, refine: Refine
    ) -> Localization:
        """A localization with its map refined; it keeps the plain one as `unrefined`."""
        spec, level = self.manifest.input, int(np.floor(plain.threshold))
        if refine.size == "original":
            if entry.picture is None:
                raise InputError("refining at the original size needs the picture: pass `refine` to `prepare` too")
            with self.stage("crf"):
                full = refine.apply(entry.picture, plain.map, level)
        else:
            place = placement(entry.size, spec)
            inside = np.s_[: place.height, : place.width]
            with self.stage("crf"):
                refined = np.zeros_like(map8)
                refined[inside] = refine.apply(network_pixels(entry.array, spec)[inside], map8[inside], level)
            with self.stage("maps"):
                full = to_original_size(refined, entry.size, spec)
        with self.stage("maps"):
            mask = full > np.uint8(refine.level)
        with self.stage("boxes"):
            box = largest_box(mask)
        return replace(
            plain,
            box=box,
            mask=mask,
            map=full,
            threshold=float(refine.level),
            crf=refine.to_dict(),
            unrefined=plain,
        )


def _class_ids(labels: Sequence[int] | int) -> tuple[int, ...]:
    """Class ids as a tuple.

    Raises:
        InputError: they are not whole numbers.
    """
    try:
        values: list[Any] = [labels] if isinstance(labels, (int, np.integer)) else list(labels)
    except TypeError:
        values = [None]
    if any(isinstance(value, bool) or not isinstance(value, (int, np.integer)) for value in values):
        raise InputError(f"labels must be class ids (whole numbers), got {labels!r}")
    return tuple(int(value) for value in values)
