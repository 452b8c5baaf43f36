"""Classification and localization together: Top-1 Loc, Top-5 Loc, GT-known Loc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.base import Accumulator, Metric, Score
from lidcam_bench.metrics.box_accuracy import box_iou, evaluator_box
from lidcam_bench.metrics.checks import check_array, check_boxes, check_number
from lidcam_bench.metrics.sample import Sample
from lidcam_rt.errors import InputError

__all__ = ["METRICS", "LocalizationAccuracy"]

_Box = Sequence[int]


class LocalizationAccuracy(Accumulator):
    """Shares of images in percent, at the box that the model gives (no threshold is searched).

    Source: the ILSVRC localization task (Russakovsky et al., IJCV 2015), and its WSOL use. With delta 0.5:
        top1_cls, top5_cls: a true class is first, or among the first five.
        top1_loc: the first class is true and its box has IoU >= delta with a true box.
        gt_known_loc: the box of the true class's map has IoU >= delta, whatever was predicted.
        top5_loc: a true class is among the first five and the box of its map has IoU >= delta.
    IoU counts pixels inclusively, as in `BoxAccuracy`, boxes as given. A missing box counts as wrong.

    What it is not: MaxBoxAcc. That one searches the best threshold on the scored images.

    Args:
        delta: IoU from which a box is right.
        replicates: bootstrap copies, see `Accumulator`.
    """

    _NAMES = ("top1_cls", "top5_cls", "top1_loc", "top5_loc", "gt_known_loc")

    def __init__(self, delta: float = 0.5, *, replicates: int = 0) -> None:
        super().__init__(replicates)
        self.delta = check_number("delta", delta)
        if not 0 < self.delta <= 1:
            raise InputError(f"delta must be an IoU above 0 and at most 1, got {delta}")
        self.options = {"delta": self.delta}
        self._allocate(right=(5,), number=(5,))

    def update(
        self,
        labels: Sequence[int],
        ranked: Sequence[int],
        *,
        truth: Sequence[_Box] = (),
        box: _Box | None = None,
        known_box: _Box | None = None,
        known: bool = False,
        key: str | None = None,
    ) -> dict[str, bool | None]:
        """Count one image.

        Args:
            labels: its true classes, at least one.
            ranked: predicted classes, best first; the first five are compared.
            truth: ground-truth boxes; none: only the classification is counted.
            box: box of the first class's map, None where it has none.
            known_box: box of the true class's map.
            known: whether `known_box` was requested; without it Top-5 and GT-known Loc are not counted.
            key: name of the image, for the bootstrap.

        Returns:
            What was right, by name; None for what was not counted.

        Raises:
            InputError: no label or no prediction, a class id that is not a whole number, or an invalid box.
        """
        true, predicted = set(_class_ids("labels", labels)), _class_ids("ranked", ranked)
        first, five = predicted[0] in true, any(v in true for v in predicted[:5])
        row: dict[str, bool | None] = {"top1_cls": first, "top5_cls": five}
        if check_array("truth", truth).size:
            boxes = check_boxes(truth)
            row["top1_loc"] = first and self._fits(box, boxes)
            if known:
                row["gt_known_loc"] = self._fits(known_box, boxes)
                row["top5_loc"] = five and bool(row["gt_known_loc"])
        row = {name: row.get(name) for name in self._NAMES}
        self._add(
            key,
            right=np.array([bool(v) for v in row.values()], np.int64),
            number=np.array([v is not None for v in row.values()], np.int64),
        )
        return row

    def count(self, sample: Sample) -> dict[str, Any]:
        """See `Accumulator.count`; boxes are compared in the evaluator's convention (`evaluator_box`)."""
        answer = sample.answer
        if answer is None:
            return {}
        return self.update(
            answer.labels,
            answer.ranked,
            truth=[evaluator_box(box, sample.size) for box in sample.boxes],
            box=None if answer.box is None else evaluator_box(answer.box, sample.size),
            known_box=None if answer.known_box is None else evaluator_box(answer.known_box, sample.size),
            known=answer.known,
            key=sample.key,
        )

    def _fits(self, box: _Box | None, truth: Any) -> bool:
        return box is not None and bool((box_iou([box], truth) >= self.delta).any())

    def compute(self) -> dict[str, float | None]:
        """The shares in percent by name; None for what was never counted."""
        return self._scores(self.state)

    def _scores(self, state: dict[str, npt.NDArray[np.int64]]) -> dict[str, float | None]:
        return {
            name: 100 * int(right) / int(number) if number else None
            for name, right, number in zip(self._NAMES, state["right"], state["number"], strict=True)
        }


def _class_ids(name: str, values: Any) -> list[int]:
    """Class ids of a list or an array.

    Raises:
        InputError: none, or not whole numbers from 0 on (fractions are not class ids, whole ones of floats neither).
    """
    array = check_array(name, values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu" or (array < 0).any():
        raise InputError(f"{name} are class ids, at least one, whole numbers from 0 on; got {values!r:.80}")
    ids: list[int] = array.tolist()
    return ids


METRICS = (
    Metric(
        "localization",
        "wsol",
        "Class and box together",
        "Percent of pictures that are right as the model answers them, with its own box and threshold. Cls: a true "
        "class is first (among the first five). Loc: class, and box with IoU >= 0.5. GT-known Loc: the box of the true "
        "class's map, whatever was predicted.",
        "MaxBoxAcc: no threshold is searched here",
        lambda replicates, _: LocalizationAccuracy(replicates=replicates),
        (
            Score("top1_cls", "Top-1 Cls"),
            Score("top5_cls", "Top-5 Cls"),
            Score("top1_loc", "Top-1 Loc"),
            Score("top5_loc", "Top-5 Loc"),
            Score("gt_known_loc", "GT-known Loc"),
        ),
        ("top1_loc", "gt_known_loc"),
        against_blob=False,
    ),
)
