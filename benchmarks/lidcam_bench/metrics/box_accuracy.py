"""Box accuracy over map thresholds: MaxBoxAcc and MaxBoxAccV2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.base import Accumulator, Metric, Score
from lidcam_bench.metrics.checks import check_array, check_boxes, check_map, check_number, check_whole
from lidcam_bench.metrics.sample import Sample
from lidcam_rt.errors import InputError

__all__ = ["METRICS", "BoxAccuracy", "LevelBoxes", "box_iou", "evaluator_box", "level_boxes"]


@dataclass(frozen=True, slots=True, eq=False)
class LevelBoxes:
    """The result of `level_boxes`, one entry per level.

    Attributes:
        boxes: int32 [T, 4], the box of the contour of the largest area.
        areas: float64 [T], that area in square pixels, as cv2.contourArea gives it.
        iou_largest: float64 [T], best IoU of that box with a ground-truth box.
        iou_all: float64 [T], best IoU over the boxes of all contours.
        contours: int32 [T], number of contours, those of holes included.
    """

    boxes: npt.NDArray[np.int32]
    areas: npt.NDArray[np.float64]
    iou_largest: npt.NDArray[np.float64]
    iou_all: npt.NDArray[np.float64]
    contours: npt.NDArray[np.int32]


def level_boxes(map8: npt.NDArray[np.uint8], levels: Any, truth: Any) -> LevelBoxes:
    """Boxes of the contours of {map > level}, for many levels of one map.

    The same as cv2.findContours (RETR_TREE), contourArea and boundingRect at each level, without tracing
    a contour; of contours of equal area the one that OpenCV lists first. x1 and y1 are min(x + w, W - 1)
    and min(y + h, H - 1). Maps of up to four runs of pixels per pixel (all levels together) are done level by level,
    noisier ones by a tree of components over all levels, with the same result.

    Args:
        map8: uint8 [height, width].
        levels: whole numbers [T], -1 to 255.
        truth: ground-truth boxes [n, 4].

    Raises:
        InputError: an argument is not like that.
    """
    from lidcam_rt import _kernels

    given = check_array("levels", levels)
    if given.ndim != 1 or given.dtype.kind not in "iu" or (given < -1).any() or (given > 255).any():
        raise InputError(f"levels must be whole numbers [T] from -1 to 255, got {given.dtype} {given.tolist()!r:.80}")
    values = np.ascontiguousarray(given, np.int32)
    boxes, areas, largest, every, number = _kernels.metrics.level_boxes(check_map(map8), values, check_boxes(truth))
    return LevelBoxes(boxes, areas / 2, largest, every, number)


def evaluator_box(box: Sequence[int], size: tuple[int, int]) -> list[int]:
    """A half-open box as the public evaluator writes its own: x1 = min(x + w, W - 1), y1 likewise.

    Args:
        box: x0, y0, x1, y1, x1 and y1 one past the last pixel.
        size: (W, H) of the picture in pixels.
    """
    return [int(box[0]), int(box[1]), min(int(box[2]), size[0] - 1), min(int(box[3]), size[1] - 1)]


def box_iou(a: Any, b: Any) -> npt.NDArray[np.float64]:
    """IoU of boxes [n, 4] with boxes [m, 4], inclusive pixels (each side + 1): float64 [n, m]."""
    first, second = check_boxes(a)[:, None], check_boxes(b)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]) + 1
    inter = np.maximum(sides, 0).prod(-1)
    whole = (first[..., 2:] - first[..., :2] + 1).prod(-1) + (second[..., 2:] - second[..., :2] + 1).prod(-1) - inter
    iou: npt.NDArray[np.float64] = inter / whole
    return iou


class BoxAccuracy(Accumulator):
    """Share of images whose box is right, at the best map threshold of the set.

    Source: Choe et al., CVPR 2020 and clovaai/wsolevaluation. At threshold tau the map is cut at `map >
    int(tau * max(map))`; each contour gives the box [x, y, min(x+w, W-1), min(y+h, H-1)], nothing above gives
    [0, 0, 0, 0]; IoU counts pixels inclusively (x1 - x0 + 1); right means IoU >= delta with any ground-
    truth box. BoxAcc(tau, delta) is the share of right images in percent.

    MaxBoxAcc: delta 0.5, largest contour, maximum over tau: `BoxAccuracy((0.5,),
    "largest").scores()["max_box_acc"]`.
    MaxBoxAccV2: deltas 0.3, 0.5, 0.7, all contours, mean of the three maxima, each at its own tau.
    Contours are those of RETR_TREE, as in the public code: with `all`, islands in holes and the borders
    of holes are candidates too. Area is that of the contour polygon, holes filled.

    Conventions: boxes at the original size (the public code resizes maps and boxes to 224x224); maps are
    uint8 already; ground truth [x0, y0, x1, y1] is taken as given.

    What it is not: a detection measure (one right box among many wrong ones is enough with `all`), nor
    that of a threshold chosen beforehand; and with ground-truth classes it says nothing about
    classification.

    Args:
        deltas: IoUs at which a box is right, each above 0 and at most 1.
        contours: `largest` or `all`.
        thresholds: number of taus: 0, 1/n, 2/n ...
        replicates: bootstrap copies, see `Accumulator`.
    """

    def __init__(
        self,
        deltas: Sequence[float] = (0.3, 0.5, 0.7),
        contours: str = "all",
        *,
        thresholds: int = 100,
        replicates: int = 0,
    ) -> None:
        super().__init__(replicates)
        self.deltas = tuple(check_number("a delta", d) for d in check_array("deltas", deltas).ravel())
        if not self.deltas or not all(0 < d <= 1 for d in self.deltas):
            raise InputError(f"deltas must be IoUs above 0 and at most 1, got {deltas}")
        if contours not in ("largest", "all"):
            raise InputError(f"contours must be largest or all, got {contours!r}")
        thresholds = check_whole("thresholds", thresholds, 1, 100000)
        self.contours = contours
        self.taus = np.arange(thresholds) / thresholds
        self.options = {"deltas": list(self.deltas), "contours": contours, "thresholds": thresholds}
        self._allocate(right=(len(self.deltas), thresholds), number=(1,))

    def levels(self, map8: npt.NDArray[np.uint8], truth: Any) -> LevelBoxes:
        """`level_boxes` at this metric's thresholds."""
        checked = check_map(map8)
        return level_boxes(checked, (self.taus * int(checked.max())).astype(np.int32), truth)

    def update(self, map8: npt.NDArray[np.uint8], truth: Any, *, key: str | None = None) -> npt.NDArray[np.float64]:
        """Count one image.

        Args:
            map8: uint8 [height, width] at the size that the boxes refer to.
            truth: ground-truth boxes [n, 4], x0, y0, x1, y1 in whole pixels, n >= 1.
            key: name of the image, for the bootstrap.

        Returns:
            Best IoU per threshold, float64 [thresholds].

        Raises:
            InputError: an argument is not like that.
        """
        return self.update_levels(self.levels(map8, truth), key=key)

    def update_levels(self, boxes: LevelBoxes, *, key: str | None = None) -> npt.NDArray[np.float64]:
        """As `update`, from the result of `levels` (so that several variants share it)."""
        if not isinstance(boxes, LevelBoxes):
            raise InputError(f"boxes at the levels are those of `levels`, got {type(boxes).__name__}")
        iou = boxes.iou_largest if self.contours == "largest" else boxes.iou_all
        if iou.shape != self.taus.shape:
            raise InputError(f"these are boxes at {iou.size} thresholds, this metric has {self.taus.size}")
        right = (iou[None] >= np.array(self.deltas)[:, None]).astype(np.int64)
        self._add(key, right=right, number=np.ones(1, np.int64))
        return iou

    def count(self, sample: Sample) -> dict[str, Any]:
        """See `Accumulator.count`; boxes are compared in the evaluator's convention (`evaluator_box`)."""
        map8 = sample.map8
        if map8 is None or not sample.boxes:
            return {}
        truth = [evaluator_box(box, sample.size) for box in sample.boxes]
        boxes = sample.share(("levels", self.taus.size), lambda: self.levels(map8, truth))
        iou = self.update_levels(boxes, key=sample.key)
        return {"best_box_iou": float(iou.max())} if self.contours == "largest" else {}

    def compute(self) -> npt.NDArray[np.float64]:
        """BoxAcc(tau, delta) in percent, float64 [deltas, thresholds]; NaN before the first image."""
        number = int(self.state["number"][0])
        return 100 * self.state["right"] / number if number else np.full(self.state["right"].shape, np.nan)

    def _scores(self, state: dict[str, npt.NDArray[np.int64]]) -> dict[str, float | None]:
        number = int(state["number"][0])
        names = [f"max_box_acc@{delta:g}" for delta in self.deltas]
        if not number:
            return dict.fromkeys(["max_box_acc", *names])
        best = 100 * state["right"].max(axis=1) / number
        return {"max_box_acc": float(best.mean()), **{n: float(b) for n, b in zip(names, best, strict=True)}}

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with the accuracy per threshold and the best tau per delta."""
        curve = self.compute()
        return {
            **super().to_dict(),
            "best_tau": None if np.isnan(curve).any() else [float(self.taus[int(np.argmax(row))]) for row in curve],
            "curve": [[None if np.isnan(v) else float(v) for v in row] for row in curve],
        }


METRICS = (
    Metric(
        "max_box_acc",
        "wsol",
        "MaxBoxAcc",
        "Percent of pictures where the box of the map's largest contour has IoU >= 0.5 with a true box, at the one map "
        "threshold tau that is best for the set.",
        "Top-1 Loc: no classification is in it, and tau is chosen on these very pictures",
        lambda replicates, _: BoxAccuracy((0.5,), "largest", replicates=replicates),
        (Score("max_box_acc", "MaxBoxAcc, %"),),
        ("max_box_acc",),
    ),
    Metric(
        "max_box_acc_v2",
        "wsol",
        "MaxBoxAccV2",
        "Mean of three such percentages, at IoU 0.3, 0.5 and 0.7, each at its own best tau; a picture is right if the "
        "box of any contour is.",
        "comparable with MaxBoxAcc (one right contour among many is enough, borders of holes too), or a detection "
        "measure",
        lambda replicates, _: BoxAccuracy(replicates=replicates),
        (
            Score("max_box_acc", "MaxBoxAccV2, %"),
            *(Score(f"max_box_acc@{delta}", f"at IoU {delta}, %") for delta in (0.3, 0.5, 0.7)),
        ),
        ("max_box_acc",),
    ),
)
