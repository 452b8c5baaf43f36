"""A segmentation network in training: cross-entropy over the labelled pixels, mean IoU in validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lidcam_bench.data import ImageSet
from lidcam_bench.data.masks import IGNORED
from lidcam_bench.metrics import SegmentationScores
from torch import Tensor
from torch.nn import functional

from lidcam_training.recipe import SegmentRecipe
from lidcam_training.segmentation.checkpoint import SegmentationMeta, save_segmentation
from lidcam_training.segmentation.network import SegmentationNetwork, build_network
from lidcam_training.segmentation.spec import NetworkSpec
from lidcam_training.training_module import TrainingModule

__all__ = ["SegmentationModule", "pixel_loss"]


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels, logits resized to the label map; 0 where no pixel has a label.

    Args:
        logits: float [N, labels, h, w].
        target: int64 [N, H, W], 255 without a label.
    """
    large = functional.interpolate(logits.float(), target.shape[1:], mode="bilinear", align_corners=False)
    total = functional.cross_entropy(large, target, ignore_index=IGNORED, reduction="sum")
    return total / (target != IGNORED).sum().clamp(min=1)


class SegmentationModule(TrainingModule):
    """A segmentation network in training.

    Args:
        recipe: of the run.
        train: from `open_labels`.
        val: from `open_labels`, with exact label maps.
        run: folder of the run.
    """

    recipe: SegmentRecipe
    model: SegmentationNetwork
    ema: SegmentationNetwork | None

    def __init__(self, recipe: SegmentRecipe, train: ImageSet, val: ImageSet, run: Path) -> None:
        options = {key: getattr(recipe.network, key) for key in recipe.network.__dataclass_fields__}
        spec = NetworkSpec(**options, num_labels=len(train.class_names) + 1)
        super().__init__(recipe, build_network(spec), train, val, run)

    @property
    def evaluated(self) -> SegmentationNetwork:
        """The weights that are validated and saved: the averaged ones if there are any."""
        return self.model if self.ema is None else self.ema

    def batch_loss(self, images: Tensor, target: Tensor) -> Tensor:
        """See `pixel_loss`."""
        return pixel_loss(self.model(images), target)

    def save(self, folders: list[Path], scores: dict[str, float], fingerprint: str) -> None:
        """As the base class."""
        data = self.recipe.data
        meta = SegmentationMeta(
            network=self.model.spec,
            class_names=self.train_set.class_names,
            size=(data.size, data.size),
            mean=data.mean,
            std=data.std,
            interpolation=data.interpolation,
            recipe=self.recipe.to_dict(),
            metrics=scores,
            data_fingerprint=fingerprint,
        )
        for folder in folders:
            save_segmentation(self.evaluated, meta, folder)

    def on_validation_epoch_start(self) -> None:
        """Empty the counters."""
        self._scores = SegmentationScores(self.model.spec.num_labels)
        self._loss, self._count, self._unread = 0.0, 0, 0

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Loss, and the confusion of the label maps at the network's size."""
        self._unread += len(batch["skipped"])
        if "image" not in batch:
            return
        target = batch["target"]
        logits = self.evaluated.eval()(self.normalise(batch["image"]))
        self._loss += float(pixel_loss(logits, target)) * len(target)
        self._count += len(target)
        large = functional.interpolate(logits.float(), target.shape[1:], mode="bilinear", align_corners=False)
        labels = large.argmax(1).to(torch.uint8).cpu().numpy()
        for found, true in zip(labels, target.cpu().numpy().astype(np.uint8), strict=True):
            self._scores.update(found, true)

    def on_validation_epoch_end(self) -> None:
        """Log the scores, summed over the processes."""
        seen = (self.so_far.loss, self.so_far.pictures)
        sums = torch.tensor([self._loss, self._count, self._unread, *seen], dtype=torch.float64)
        confusion = torch.from_numpy(self._scores.confusion)
        if self.trainer.world_size > 1:
            sums, confusion = self._sum_of_processes(sums), self._sum_of_processes(confusion)
        table = confusion.numpy().astype(np.float64)
        union = table.sum(0) + table.sum(1) - np.diag(table)
        iou = np.diag(table)[union > 0] / union[union > 0]
        scores = {
            "val_loss": float(sums[0]) / max(float(sums[1]), 1.0),
            "val_mean_iou": float(100 * iou.mean()) if iou.size else 0.0,
            "train_loss": float(sums[3]) / max(float(sums[4]), 1.0),
        }
        if sums[2]:
            scores["val_skipped"] = float(sums[2])
        self.log_dict({k: torch.tensor(v) for k, v in scores.items()}, prog_bar=True, rank_zero_only=False)
