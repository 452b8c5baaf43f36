"""Label maps: one class or the background per pixel, from the localization maps of the picture's classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError
from lidcam_rt.image import ImageSource
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import ClassScore, Localization

if TYPE_CHECKING:
    from lidcam_rt.crf import CrfOptions, DenseCRF, Refine
    from lidcam_rt.prepared import Prepared

__all__ = ["SegmentOptions", "Segmentation", "CamSegmenter"]

#: Label of pixels that the ground truth leaves out; no class may have it.
IGNORED = 255
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """How class maps become a label map. Maps are in 0..1 (the artifact's map8 / 255).

    Attributes:
        score: a predicted class is drawn from this score on (sigmoid of a multilabel artifact, softmax of a
            localization one). The best class is drawn whatever its score, unless `empty`.
        empty: leave a picture without a class of that score entirely background.
        background: the background score.
            `mask`: the artifact's PaS threshold t_c, class by class: a pixel belongs to the class with the highest
                map_c / t_c, if that is above 1. (PaS, ECCV 2020: the percentile is the standard, not the maximum.)
            `constant`: `level` (irn: 0.15); the class with the highest map wins.
            `power`: (1 - max_c map_c) ** `alpha` (psa 4 and 32, SEAM 24).
        level: for `constant`, 0 to 1.
        alpha: for `power`, above 0.
        refine: refine the probabilities (scores divided by their sum) with a dense CRF over all classes: a preset (psa,
            irn, deeplab, example), CrfOptions, or `lidcam_rt.crf.Refine`. It always works at the picture's size. None:
            no CRF.

    Raises:
        InputError: a value is out of its range.
    """

    score: float = 0.5
    empty: bool = False
    background: Literal["mask", "constant", "power"] = "mask"
    level: float = 0.15
    alpha: float = 4.0
    refine: Refine | CrfOptions | str | None = None

    def __post_init__(self) -> None:
        _crf_of(self.refine)
        if not 0 <= self.score <= 1 or not 0 <= self.level <= 1:
            raise InputError(f"score and level must be in 0..1, got {self.score!r} and {self.level!r}")
        if not self.alpha > 0:
            raise InputError(f"alpha must be a number above 0, got {self.alpha!r}")
        if self.background not in ("mask", "constant", "power"):
            raise InputError(f"background must be mask, constant or power, got {self.background!r}")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map.

    Attributes:
        labels: uint8 [height, width] at original size: 0 background, else 1 + class index.
        classes: the classes that were drawn, best first; `class_id` is the model's.
        indices: label of each of them in `labels`.
        path: file the picture came from, or None.
        image: uint8 [height, width, 3] RGB, or None where it was not kept.
    """

    labels: npt.NDArray[np.uint8] = field(repr=False)
    classes: tuple[ClassScore, ...]
    indices: tuple[int, ...]
    path: str | None = None
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels."""
        return self.labels.shape[1], self.labels.shape[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as plain values that JSON takes."""
        return {
            "image": self.path,
            "width": self.size[0],
            "height": self.size[1],
            "classes": [
                {"label": label, "pixels": int(np.count_nonzero(self.labels == label)), **entry.to_dict()}
                for label, entry in zip(self.indices, self.classes, strict=True)
            ],
        }

    def overlay(self, *, alpha: float = 0.55, legend: bool = False) -> npt.NDArray[np.uint8]:
        """The picture with a colour per class laid over it, uint8 [height, width, 3] RGB.

        Args:
            alpha: weight of the colours, 0 to 1.
            legend: write the names of the classes below the picture, which makes the result taller.

        Raises:
            InputError: the picture was not kept, or alpha is not in 0..1.
        """
        from lidcam_rt.drawing import label_overlay

        if self.image is None:
            raise InputError("the picture was not kept: call the segmenter with keep_image=True")
        names = {label: entry.class_name for label, entry in zip(self.indices, self.classes, strict=True)}
        return label_overlay(self.image, self.labels, alpha=alpha, legend=names if legend else None)

    def to_coco(self, *, image_id: int = 0, categories: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Entries of a COCO results file, one per class that has pixels; the box encloses all of these.

        Args:
            image_id: id of the picture in the data set.
            categories: category of each of `classes` in the data set; by default the model's `class_id`.

        Raises:
            InputError: there is not one category per class.
        """
        from lidcam_rt.interop import coco_result

        ids = [entry.class_id for entry in self.classes] if categories is None else list(categories)
        if len(ids) != len(self.classes):
            raise InputError(f"categories must have one entry per class: {len(ids)} for {len(self.classes)} classes")
        out = []
        for label, entry, category in zip(self.indices, self.classes, ids, strict=True):
            mask = self.labels == label
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if rows.size:
                box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
                out.append(coco_result(mask, box, image_id=image_id, category_id=category, score=entry.score))
        return out

    def _repr_png_(self) -> bytes | None:
        """The overlay, for notebooks; None where the picture was not kept."""
        from lidcam_rt.interop import notebook_png

        return None if self.image is None else notebook_png(self.overlay())

    def save(self, folder: str | Path, *, name: str | None = None) -> dict[str, Path]:
        """Write `NAME_labels.png` (8-bit grey, the labels themselves) and `NAME_labels.json`; all or nothing.

        No file is overwritten: a number is added to a name that is in use.

        Args:
            folder: created if it is missing.
            name: what the file names begin with; by default the picture's name.

        Returns:
            The written files by kind: `png`, `json`.

        Raises:
            OutputError: a file cannot be written.
        """
        from lidcam_rt.drawing import encode
        from lidcam_rt.files import write_new

        stem = name if name is not None else Path(self.path).stem if self.path else "segmentation"
        return write_new(
            Path(folder),
            f"{stem}_labels",
            {"png": (".png", encode(self.labels, ".png"))},
            lambda names: (json.dumps({**self.to_dict(), "file": names["png"]}, indent=1) + "\n").encode(),
        )


class CamSegmenter:
    """Makes label maps from a Localizer's maps (LID 2020 Track 1; pseudo labels for a segmentation network).

    Args:
        localizer: an artifact, preferably of task `multilabel` and exported with a `--top-k` as large as the number of
            classes in a picture; for further classes the network runs again.
        options: how class maps become a label map.
        classes: the model's class for label 1, 2, ... (-1: none); None: label 1 + class id. No others are drawn.

    Raises:
        InputError: a class is not one of the model's, or there are more than 254.
    """

    def __init__(
        self,
        localizer: Localizer,
        options: SegmentOptions | None = None,
        *,
        classes: Sequence[int] | None = None,
    ) -> None:
        self.localizer = localizer
        self.options = options or SegmentOptions()
        ids = range(len(localizer.class_names)) if classes is None else classes
        if any(not -1 <= i < len(localizer.class_names) for i in ids):
            raise InputError(f"classes must be the model's: 0 to {len(localizer.class_names) - 1}, got {list(ids)}")
        if len(ids) >= IGNORED and classes is not None:
            raise InputError(f"a label map has 8 bits: at most {IGNORED - 1} classes, got {len(ids)}")
        self._label = {class_id: label for label, class_id in enumerate(ids, start=1) if class_id >= 0}
        self._crf = _crf_of(self.options.refine)

    def __call__(
        self, image: ImageSource, *, labels: Sequence[int] | None = None, keep_image: bool = True
    ) -> Segmentation:
        """Segment one picture.

        Args:
            image: as for a Localizer.
            labels: class ids that are in the picture (as image-level labels say); None: the predicted ones, at most
                the five best, or the artifact's top_k if that is more.
            keep_image: keep the picture in the result, for `overlay`.

        Raises:
            ImageError: the picture cannot be read.
            InputError: a label is out of range.
            BackendError: the engine failed.
        """
        if labels is not None and not labels:
            raise InputError("no labels: give the picture's class ids, or None for the predicted ones")
        pipeline = self.localizer.pipeline
        limit = pipeline.manifest.top_k
        wanted = pipeline.wanted(None, limit) if labels is None else pipeline.wanted(list(labels)[:limit])
        prepared = pipeline.prepare(image, keep_image=keep_image or self._crf is not None)
        result = self._complete(lambda: prepared, pipeline.localize([prepared], [wanted])[0], labels)
        return result if keep_image else replace(result, image=None)

    def complete(
        self, image: ImageSource, localization: Localization, *, labels: Sequence[int] | None = None
    ) -> Segmentation:
        """As a call, but from an existing localization; classes whose maps it lacks are localized.

        Args:
            image: the picture.
            localization: one of that picture, with `others`, and with its picture kept where a CRF is wanted.
            labels: as in a call.
        """
        return self._complete(lambda: self.localizer.pipeline.prepare(image, keep_image=False), localization, labels)

    def _complete(
        self, prepare: Callable[[], Prepared], localization: Localization, labels: Sequence[int] | None
    ) -> Segmentation:
        pipeline = self.localizer.pipeline
        maps = {entry.class_id: entry for entry in (localization, *localization.others)}
        if labels is None:
            wanted = self._predicted(localization, maps)
        else:
            wanted = [class_id for class_id in dict.fromkeys(int(v) for v in labels) if class_id in self._label]
        missing = [class_id for class_id in wanted if class_id not in maps]
        if missing:
            prepared, limit = prepare(), pipeline.manifest.top_k
            for start in range(0, len(missing), limit):
                more = pipeline.localize([prepared], [pipeline.wanted(missing[start : start + limit])])[0]
                maps |= {entry.class_id: entry for entry in (more, *more.others)}
        return self.compose([maps[class_id] for class_id in wanted], localization)

    def _predicted(self, localization: Localization, maps: dict[int, Localization]) -> list[int]:
        scores = {entry.class_id: entry.score for entry in localization.topk}
        scores |= {entry.class_id: entry.score for entry in maps.values()}
        ranked = sorted((i for i in scores if i in self._label), key=lambda i: (-scores[i], i))
        if not self.localizer.manifest.labels_input:
            ranked = [i for i in ranked if i in maps]
        chosen = [i for i in ranked if scores[i] >= self.options.score]
        return chosen if chosen or self.options.empty else ranked[:1]

    def compose(self, entries: Sequence[Localization], localization: Localization) -> Segmentation:
        """The label map of these localizations of one picture.

        Args:
            entries: one per class, of one picture.
            localization: any localization of that picture, for its name, size and pixels.

        Raises:
            InputError: the maps differ in size, a label does not fit into 8 bits, or the picture was not kept
                although a CRF is wanted.
        """
        if any(entry.map.shape != localization.map.shape for entry in entries):
            raise InputError("these localizations are of pictures of different sizes")
        entries = sorted(entries, key=lambda entry: (-entry.score, entry.class_id))
        labels = [self._label[entry.class_id] for entry in entries]
        for label, entry in zip(labels, entries, strict=True):
            if label >= IGNORED:
                raise InputError(
                    f"class {entry.class_name} would be label {label}: a label map has 8 bits, 254 classes at most. "
                    "Use an artifact of fewer classes, or in Python give the CamSegmenter `classes`"
                )
        out, stage = np.zeros(localization.map.shape, np.uint8), self.localizer.pipeline.stage
        if entries:
            with stage("compose"):
                scores = self._scores(entries)
            if self._crf is not None:
                if localization.image is None:
                    raise InputError("the CRF needs the picture: localize with keep_image=True")
                with stage("crf"):
                    total = np.maximum(scores.sum(0, keepdims=True), _TINY)
                    scores = self._crf.refine(localization.image, scores / total)
            with stage("compose"):
                out = np.array([0, *labels], np.uint8)[scores.argmax(0)]
        chosen = tuple(ClassScore(entry.class_id, entry.class_name, entry.score) for entry in entries)
        return Segmentation(out, chosen, tuple(labels), localization.path, localization.image)

    def _scores(self, entries: Sequence[Localization]) -> npt.NDArray[np.float32]:
        """Scores of background and classes, float32 [1 + classes, height, width]; ties go to the background."""
        maps = np.stack([entry.map for entry in entries]).astype(np.float32) / np.float32(255)
        out = np.empty((len(entries) + 1, *maps.shape[1:]), np.float32)
        out[1:] = maps
        if self.options.background == "mask":
            for k, entry in enumerate(entries, start=1):
                out[k] /= np.float32(max(entry.threshold / 255, _TINY))
                # At the threshold the comparison in whole numbers decides, as in the mask.
                out[k][~entry.mask] = np.minimum(out[k][~entry.mask], np.float32(1))
                out[k][entry.mask] = np.maximum(out[k][entry.mask], np.nextafter(np.float32(1), np.float32(2)))
            out[0] = 1
        elif self.options.background == "constant":
            out[0] = self.options.level
        else:
            out[0] = (1 - maps.max(0)) ** np.float32(self.options.alpha)
        return out


def _crf_of(refine: Refine | CrfOptions | str | None) -> DenseCRF | None:
    if refine is None:
        return None
    from lidcam_rt.crf import DenseCRF, Refine

    how = Refine.of(refine)
    return None if how is None else DenseCRF(how.options)
