"""Results: what a localizer returns. They draw and save themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError

__all__ = ["Box", "ClassScore", "Failure", "Localization"]

#: x0, y0, x1, y1 in pixels of the original image; x1 and y1 are one past the last pixel.
Box = tuple[int, int, int, int]

_OF_THE_PICTURE = ("image", "width", "height", "topk", "crf", "missing", "engine")


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class and its score.

    Attributes:
        class_id: index of the logit.
        class_name: its name in the manifest.
        score: softmax (localization) or sigmoid (multilabel), 0 to 1.
    """

    class_id: int
    class_name: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"class_id": self.class_id, "class_name": self.class_name, "score": self.score}


@dataclass(frozen=True, eq=False)
class Localization:
    """Where one class is in one picture.

    Attributes:
        class_id: the class that was localized.
        class_name: its name.
        score: its softmax or sigmoid score, 0 to 1.
        topk: the best classes of the picture, best first (they need not contain `class_id` when labels
            were given).
        box: (x0, y0, x1, y1) of the largest connected component of `mask`, in pixels of the original image,
            x1 and y1 one past the last pixel; None where the mask is empty.
        mask: bool [height, width] at original size: `map` > `threshold`.
        map: uint8 [height, width] at original size, the localization map.
        threshold: in units of `map`, 0 to 255.
        path: file the picture came from, or None.
        image: uint8 [height, width, 3] RGB, the picture as localized (upright), or None where it was not
            kept.
        others: localizations of further classes of the same picture (artifacts exported with top_k > 1,
            or several labels).
        crf: the options of the CRF that refined `map`, `mask` and `box` (`lidcam_rt.crf.Refine.to_dict`), or None.
            `map` is then 255 times the foreground's probability and `threshold` 127.
        unrefined: this localization before the CRF, or None.
        missing: what was missing or damaged in the picture's file, where such pictures are accepted
            (`load(..., strict=False)`), or None.
        engine: what ran the network, such as `onnxruntime 1.24.1 on cpu, fp32`.
    """

    class_id: int
    class_name: str
    score: float
    topk: tuple[ClassScore, ...]
    box: Box | None
    mask: npt.NDArray[np.bool_] = field(repr=False)
    map: npt.NDArray[np.uint8] = field(repr=False)
    threshold: float
    path: str | None = None
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    others: tuple[Localization, ...] = field(default=(), repr=False)
    crf: Mapping[str, Any] | None = None
    unrefined: Localization | None = field(default=None, repr=False)
    missing: str | None = None
    engine: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels."""
        return self.map.shape[1], self.map.shape[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as plain values that JSON takes."""
        out: dict[str, Any] = {
            "image": self.path,
            "width": self.size[0],
            "height": self.size[1],
            "class_id": self.class_id,
            "class_name": self.class_name,
            "score": self.score,
            "box": list(self.box) if self.box else None,
            "mask_pixels": int(np.count_nonzero(self.mask)),
            "threshold": self.threshold,
            "topk": [entry.to_dict() for entry in self.topk],
            "engine": self.engine,
        }
        if self.crf is not None:
            out["crf"] = dict(self.crf)
        if self.missing is not None:
            out["missing"] = self.missing
        if self.others:
            out["others"] = [
                {k: v for k, v in other.to_dict().items() if k not in _OF_THE_PICTURE} for other in self.others
            ]
        return out

    def overlay(self, *, alpha: float = 0.5) -> npt.NDArray[np.uint8]:
        """The picture with map, mask outline, box and label drawn on it.

        Args:
            alpha: weight of the map's colours, 0 to 1.

        Returns:
            uint8 [height, width, 3] RGB.

        Raises:
            InputError: the picture was not kept (`keep_image=False`), or alpha is not between 0 and 1.
        """
        from lidcam_rt.drawing import overlay

        if self.image is None:
            raise InputError("the picture was not kept: call the localizer with keep_image=True")
        text = f"{self.class_name} {self.score:.0%}"
        return overlay(self.image, self.map, self.mask, box=self.box, text=text, alpha=alpha)

    def to_supervision(self) -> Any:
        """This localization and its `others` as `supervision.Detections`; needs the extra `supervision`.

        Returns:
            Detections of those that have a box: xyxy float32 [n, 4] (x1 and y1 one past the last pixel), mask bool
            [n, height, width] (the whole mask; the box is that of its largest component), confidence, class_id, and
            class_name in `data`.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        from lidcam_rt.interop import detections

        return detections((self, *self.others))

    def to_coco(self, *, image_id: int = 0, category_id: int | None = None) -> dict[str, Any]:
        """An entry of a COCO results file: image_id, category_id, bbox [x, y, width, height], score, segmentation.

        The whole mask is given, as run lengths that pycocotools reads; the box is that of its largest component, four
        zeros for an empty mask. `others` need entries of their own: `[r.to_coco() for r in (result, *result.others)]`.

        Args:
            image_id: id of the picture in the data set.
            category_id: id of the class in the data set; by default the model's `class_id`.
        """
        from lidcam_rt.interop import coco_result

        category = self.class_id if category_id is None else category_id
        return coco_result(self.mask, self.box, image_id=image_id, category_id=category, score=self.score)

    def _repr_png_(self) -> bytes | None:
        """The overlay, for notebooks; None where the picture was not kept."""
        from lidcam_rt.interop import notebook_png

        return None if self.image is None else notebook_png(self.overlay())

    def save(self, folder: str | Path, *, name: str | None = None) -> dict[str, Path]:
        """Write overlay, mask, map and a JSON file; all or nothing. No file is overwritten.

        Args:
            folder: created if it is missing.
            name: what the file names begin with; by default the picture's name. A number is added if it is in use.

        Returns:
            The written files by kind: `overlay` (where the picture was kept), `mask`, `map`, `json`.

        Raises:
            OutputError: a file cannot be written; those of this call that were written are removed.
        """
        from lidcam_rt.drawing import encode
        from lidcam_rt.files import write_new

        files = {
            "mask": ("_mask.png", encode(self.mask.astype(np.uint8) * np.uint8(255), ".png")),
            "map": ("_map.png", encode(self.map, ".png")),
        }
        if self.image is not None:
            files["overlay"] = ("_overlay.jpg", encode(self.overlay(), ".jpg"))
        stem = name if name is not None else Path(self.path).stem if self.path else "localization"
        return write_new(
            Path(folder),
            stem,
            files,
            lambda names: (json.dumps({**self.to_dict(), "files": names}, indent=1) + "\n").encode(),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that could not be localized, in a run over several.

    Attributes:
        path: the file, or a description of the input.
        error: the error that says why.
    """

    path: str
    error: Exception

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"image": self.path, "error": type(self.error).__name__, "message": str(self.error)}
