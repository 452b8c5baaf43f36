"""How far a segmentation network of lower precision is from float32 on pictures, and the limits on it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lidcam_bench.data import ImageSet
from lidcam_bench.data.records import Record
from lidcam_bench.evaluation.options import class_map
from lidcam_bench.evaluation.segmentation import labels_of_data
from lidcam_bench.metrics.segmentation import SegmentationScores

from lidcam_rt.errors import InputError
from lidcam_rt.loading import load
from lidcam_rt.results import Failure
from lidcam_rt.segmentation import Segmenter

__all__ = ["LabelGate", "LabelOutcome", "compare_label_maps"]


@dataclass(frozen=True)
class LabelGate:
    """What a lowered precision may cost a segmentation network.

    Attributes:
        flipped: the largest share of pixels whose label changes, 0 to 1; None: no limit.
        label_iou: the smallest mean IoU of the label maps with those in float32, 0 to 1; None: no limit.
        miou: the largest loss of mean IoU against true label maps, 0 to 1; None: no limit.
    """

    flipped: float | None = None
    label_iou: float | None = None
    miou: float | None = None

    def check(self, truth: bool) -> None:
        """Refuse a gate that cannot be measured.

        Args:
            truth: whether there are true label maps of the network's classes.

        Raises:
            InputError: miou is given without them.
        """
        if self.miou is not None and not truth:
            raise InputError(
                "the gate miou needs true label maps of the network's classes, and the held-out pictures have none: "
                "give a data set with label maps in --held-out, or use the gates label_iou and flipped"
            )

    def faults(self, outcome: LabelOutcome) -> list[str]:
        """The limits that the outcome breaks, in words; empty: none.

        Raises:
            InputError: as `check`.
        """
        self.check(outcome.miou is not None)
        faults = []
        if self.flipped is not None and outcome.flipped > self.flipped + 1e-12:
            faults.append(
                f"{100 * outcome.flipped:.2f}% of the pixels change their label, the gate is {100 * self.flipped:g}%"
            )
        if self.label_iou is not None and outcome.label_iou < self.label_iou:
            faults.append(
                f"the mean IoU of the label maps with float32's is {outcome.label_iou:.4f}, the gate is "
                f"{self.label_iou:g}"
            )
        if self.miou is not None and outcome.miou_lost is not None and outcome.miou_lost > self.miou + 1e-12:
            faults.append(f"{100 * outcome.miou_lost:.2f} points of mean IoU are lost, the gate is {100 * self.miou:g}")
        return faults


@dataclass(frozen=True)
class LabelOutcome:
    """Lower precision against float32 on held-out pictures, label maps at the size of the picture.

    Attributes:
        pictures: how many.
        flipped: share of the pixels whose label changes.
        label_iou: mean IoU of the label maps with those of float32: one confusion matrix over all pictures, mean over
            the labels that occur, background included.
        miou: mean IoU of (float32, lower precision) against true label maps, counted as Track 1 counts it; None
            without them.
    """

    pictures: int
    flipped: float
    label_iou: float
    miou: tuple[float, float] | None

    @property
    def miou_lost(self) -> float | None:
        """Mean IoU that is lost, 0 to 1; below 0 for a gain."""
        return None if self.miou is None else self.miou[0] - self.miou[1]

    def describe(self) -> str:
        """In words, for the terminal."""
        text = f"{100 * self.flipped:.2f}% of the pixels change their label, label IoU {self.label_iou:.4f}"
        if self.miou is not None:
            text += f"; mean IoU {100 * self.miou[0]:.2f}% in float32, {100 * self.miou[1]:.2f}% now"
        return text

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for manifest and reports."""
        out = {"pictures": float(self.pictures), "flipped": self.flipped, "label_iou": self.label_iou}
        if self.miou is not None:
            out |= {"miou_fp32": self.miou[0], "miou": self.miou[1]}
        return out


def compare_label_maps(full: Path, lower: Path, pictures: ImageSet) -> LabelOutcome:
    """Segment every picture with both artifacts, in ONNX Runtime on the CPU.

    Args:
        full: the artifact in float32.
        lower: the artifact in lower precision.
        pictures: held out. True label maps count where network and data share a class name; a class that the data do
            not have counts as background.

    Raises:
        InputError: no picture can be read.
        DataError: a true label map cannot be read, or is not of the picture's size.
    """
    records: Sequence[Record] = pictures.records
    files = [record.image for record in records]
    with (
        load(full, backend="onnxruntime", device="cpu") as one,
        load(lower, backend="onnxruntime", device="cpu") as two,
    ):
        assert isinstance(one, Segmenter) and isinstance(two, Segmenter)
        classes = class_map(one.class_names, pictures.class_names)
        table = None if classes is None else labels_of_data(classes, len(one.class_names))
        between = SegmentationScores(1 + len(one.class_names))
        scores = [SegmentationScores(min(1 + len(pictures.class_names), 255)) for _ in range(2)]
        count = 0
        first, second = (entry.stream(files, keep_image=False) for entry in (one, two))
        with closing(first), closing(second):
            for record, a, b in zip(records, first, second, strict=True):
                if isinstance(a, Failure) or isinstance(b, Failure):
                    continue
                count += 1
                between.update(b.labels, a.labels)
                true = record.truth(a.size).label_map() if table is not None else None
                if table is not None and true is not None:
                    for score, result in zip(scores, (a, b), strict=True):
                        score.update(table[result.labels], true)
    if not count:
        raise InputError("none of the held-out pictures can be read: give others with --held-out")
    alike = between.compute()
    against = [score.compute()["mean_iou"] for score in scores]
    miou = None if against[0] is None or against[1] is None else (against[0] / 100, against[1] / 100)
    assert alike["pixel_accuracy"] is not None and alike["mean_iou"] is not None
    pixels = int(between.state["truth"].sum())
    flipped = 1 - int(between.state["hits"].sum()) / pixels
    return LabelOutcome(count, flipped, alike["mean_iou"] / 100, miou)
