"""Results in the formats of other packages: supervision's Detections, COCO results, pictures for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import MissingExtraError

__all__ = ["coco_result", "coco_rle", "detections", "notebook_png"]

_NOTEBOOK_SIDE = 1024


def detections(localizations: Sequence[Any]) -> Any:
    """`supervision.Detections` of those `Localization`s that have a box. See `Localization.to_supervision`.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise MissingExtraError("to_supervision", "supervision", (error.name or "supervision",)) from None
    boxed = [entry for entry in localizations if entry.box is not None]
    if not boxed:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([entry.box for entry in boxed], np.float32),
        mask=np.stack([entry.mask for entry in boxed]),
        confidence=np.array([entry.score for entry in boxed], np.float32),
        class_id=np.array([entry.class_id for entry in boxed], np.int64),
        data={"class_name": np.array([entry.class_name for entry in boxed])},
    )


def coco_rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths.

    Returns the same text as pycocotools.mask.encode without needing pycocotools: a service should not need an extra to
    return COCO results.

    Args:
        mask: bool [H, W].

    Returns:
        `{"size": [H, W], "counts": text}`.
    """
    flat = np.concatenate(([False], mask.ravel(order="F"), [False]))  # runs go down the columns, background first
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()
    if runs[-1] == 0 and len(runs) > 1:
        runs.pop()
    out = bytearray()
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run  # from the fourth on, the difference from the last one of its kind
        more = True
        while more:  # 5 bits per character, the lowest first
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            out.append(48 + (bits | 0x20 * more))
    return {"size": list(mask.shape), "counts": out.decode("ascii")}


def coco_result(
    mask: npt.NDArray[np.bool_], box: tuple[int, int, int, int] | None, *, image_id: int, category_id: int, score: float
) -> dict[str, Any]:
    """An entry of a COCO results file; a missing box becomes four zeros."""
    x0, y0, x1, y1 = box or (0, 0, 0, 0)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
        "score": score,
        "segmentation": coco_rle(mask),
    }


def notebook_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of a picture for a notebook, at most 1024 pixels wide and high."""
    import cv2

    from lidcam_rt.drawing import encode

    height, width = picture.shape[:2]
    scale = _NOTEBOOK_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return encode(picture, ".png")
