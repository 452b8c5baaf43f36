"""The steps of one localization: the classes that are wanted, a prepared picture, outputs made into results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import Manifest
from lidcam_rt.boxes import largest_box
from lidcam_rt.errors import BackendError, InputError
from lidcam_rt.image import RgbImage, to_original_size
from lidcam_rt.results import ClassScore, Localization

if TYPE_CHECKING:
    from lidcam_rt.crf.localization import MapRefiner

__all__ = ["Prepared", "localizations", "wanted_classes"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A decoded picture and its network input.

    Attributes:
        path: its name for results, or None for pictures from memory.
        size: (width, height) in pixels.
        picture: uint8 [H, W, 3], or None where it is not kept.
        array: network input without its batch dimension.
        keep_image: whether the result gets the picture.
    """

    path: str | None
    size: tuple[int, int]
    picture: RgbImage | None
    array: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    keep_image: bool = True


def wanted_classes(manifest: Manifest, labels: Sequence[int] | int | None, top_k: int | None) -> tuple[int, ...]:
    """What the graph's input `labels` gets for one picture, one entry per localization wanted.

    Args:
        manifest: the artifact's.
        labels: class ids, one class id, or None for the predicted classes (-1 each).
        top_k: how many predicted classes; by default 1.

    Raises:
        InputError: a class id is out of range, there are more than the artifact's top_k, or it takes none.
    """
    most = manifest.top_k
    if labels is None:
        count = 1 if top_k is None else top_k
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
            raise InputError(
                f"top_k must be 1 to {most} for this artifact, got {count!r}; "
                "export it with a larger --top-k"
            )
        return (-1,) * count
    if not manifest.labels_input:
        raise InputError("this artifact takes no labels; export it with the labels input")
    try:
        ids = (
            (int(labels),)
            if isinstance(labels, (int, np.integer))
            else tuple(_class_id(v) for v in labels)
        )
    except TypeError:
        raise InputError(f"labels must be class ids (whole numbers), got {labels!r}") from None
    if not 1 <= len(ids) <= most:
        raise InputError(
            f"1 to {most} labels per picture for this artifact, got {len(ids)}; "
            "export it with a larger --top-k, or call once per label"
        )
    for class_id in ids:
        if not 0 <= class_id < len(manifest.class_names):
            raise InputError(
                f"label {class_id} is out of range: "
                f"the artifact has classes 0 to {len(manifest.class_names) - 1}"
            )
    return ids


def localizations(
    manifest: Manifest,
    entry: Prepared,
    outputs: dict[str, npt.NDArray[Any]],
    row: int,
    count: int,
    refiner: MapRefiner | None = None,
) -> Localization:
    """Post-process row `row` of the network's outputs into `count` localizations at original size.

    Args:
        manifest: the artifact's.
        entry: the picture of that row.
        outputs: logits float32 [N, classes], class_ids int64 [N, K], map8 uint8 [N, K, H, W], threshold float32 [N, K].
        row: 0 to N - 1.
        count: 1 to K; the first is returned, the rest are its `others`.
        refiner: applies the dense CRF.

    Raises:
        BackendError: the logits are not finite.
    """
    logits = outputs["logits"][row].astype(np.float64)
    if not np.isfinite(logits).all():
        raise BackendError(
            f"{entry.path or 'the picture'}: the network gave NaN or infinite scores. Check the weights "
            "that were exported"
        )
    if manifest.task == "multilabel":
        scores = 1.0 / (1.0 + np.exp(-logits))
    else:
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
    best = np.argsort(-scores, kind="stable")[: min(5, scores.size)]
    topk = tuple(ClassScore(int(i), manifest.class_names[int(i)], float(scores[i])) for i in best)
    found: list[Localization] = []
    for rank in reversed(range(count)):
        class_id = int(outputs["class_ids"][row, rank])
        threshold = float(outputs["threshold"][row, rank])
        full = to_original_size(outputs["map8"][row, rank], entry.size, manifest.input)
        level = int(np.floor(threshold))  # map > threshold, in whole numbers
        mask = full > np.uint8(level) if 0 <= level < 255 else np.full(full.shape, level < 0, np.bool_)
        found.append(
            Localization(
                class_id=class_id,
                class_name=manifest.class_names[class_id],
                score=float(scores[class_id]),
                topk=topk,
                box=largest_box(mask),
                mask=mask,
                map=full,
                threshold=threshold,
                path=entry.path,
                image=entry.picture if entry.keep_image else None,
                others=tuple(reversed(found)) if rank == 0 else (),
            )
        )
    if refiner is None:
        return found[-1]
    refined = [
        refiner.localization(plain, outputs["map8"][row, rank], entry, manifest.input)
        for rank, plain in enumerate(reversed(found))
    ]
    return replace(refined[0], others=tuple(refined[1:]))


def _class_id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError
    return int(value)
