"""A classifier in training: loss, method, validation scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lidcam_bench.data import ImageSet
from torch import Tensor
from torch.nn import functional

from lidcam_rt.errors import DataError
from lidcam_rt.files import write_atomically
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.label_scores import LabelScores, label_scores
from lidcam_training.losses import multilabel_loss
from lidcam_training.methods import METHODS
from lidcam_training.models import Classifier, build_classifier
from lidcam_training.models.ae import ErasingChain
from lidcam_training.models.classifier import activation_maps
from lidcam_training.pixels import PixelHistogram
from lidcam_training.recipe import Recipe
from lidcam_training.training_module import TrainingError, TrainingModule

__all__ = ["ClassifierModule", "TrainingError"]


class ClassifierModule(TrainingModule):
    """A classifier in training.

    Args:
        recipe: of the run.
        train: pictures for training.
        val: pictures for validation; those with masks give localization scores.
        run: folder of the run.
    """

    recipe: Recipe
    model: Classifier
    ema: Classifier | None

    def __init__(self, recipe: Recipe, train: ImageSet, val: ImageSet, run: Path) -> None:
        multilabel = train.multilabel if recipe.optim.loss == "auto" else recipe.optim.loss != "cross_entropy"
        if not multilabel and train.multilabel:
            raise DataError(f"{train.name} has several labels per picture: cross_entropy cannot learn them, use bce")
        super().__init__(recipe, build_classifier(recipe.classifier(len(train.class_names))), train, val, run)
        self.multilabel = multilabel
        self.method = METHODS[recipe.method.name]
        self.method.attach(self.model, recipe.method)
        self.unused_parameters = recipe.method.name == "ae"

    @property
    def evaluated(self) -> Classifier:
        """The weights that are validated and saved: the averaged ones if there are any."""
        return self.model if self.ema is None else self.ema

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy for one label; for several the recipe's loss, see `lidcam_training.losses`."""
        options = self.recipe.optim
        if self.multilabel:
            if target.ndim == 1:
                target = functional.one_hot(target, logits.shape[1]).to(logits.dtype)
            return multilabel_loss(
                logits,
                target,
                options.loss if options.loss in ("soft_margin", "asl") else "bce",
                gamma_negative=options.asl_gamma_negative,
                gamma_positive=options.asl_gamma_positive,
                shift=options.asl_shift,
            )
        return functional.cross_entropy(
            logits.float(), target, label_smoothing=options.label_smoothing
        )

    def batch_loss(self, images: Tensor, target: Tensor) -> Tensor:
        """As the training method defines it."""
        return self.method.loss(self.model, self.recipe.method, images, target, self.loss)

    def save(self, folders: list[Path], scores: dict[str, float], fingerprint: str) -> None:
        """As the base class."""
        recipe = self.recipe
        meta = CheckpointMeta(
            classifier=self.model.spec,
            class_names=self.train_set.class_names,
            size=(recipe.data.size, recipe.data.size),
            mean=recipe.data.mean,
            std=recipe.data.std,
            interpolation=recipe.data.interpolation,
            task="multilabel" if self.multilabel else "localization",
            percentile=recipe.pas.percentile,
            theta=recipe.pas.theta,
            nwc=recipe.pas.nwc,
            recipe=recipe.to_dict(),
            metrics=scores,
            data_fingerprint=fingerprint,
        )
        for folder in folders:
            save_checkpoint(self.evaluated, meta, folder)

    def on_train_epoch_start(self) -> None:
        """As the base class; a chain of classifiers moves on to the next when its share of the epochs is over."""
        super().on_train_epoch_start()
        for model in (self.model, self.ema):
            if isinstance(model, ErasingChain):
                model.activate(self._part(self.current_epoch)[0] + 1)

    def _part(self, epoch: int) -> tuple[int, int, int]:
        """(classifier of the chain that learns in an epoch, its first epoch, how many it has)."""
        count = len(self.model.steps) if isinstance(self.model, ErasingChain) else 1
        share = self.recipe.epochs // count
        part = min(epoch // share, count - 1)
        return part, part * share, share if part < count - 1 else self.recipe.epochs - part * share

    def on_validation_epoch_start(self) -> None:
        """Empty the counters."""
        self._plain, self._nwc = PixelHistogram(), PixelHistogram()
        self._right = self._count = self._unread = 0
        self._loss = 0.0
        self._answers: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Accuracy, loss, and map values at the pixels of the masks, for every class that a picture has."""
        self._unread += len(batch["skipped"])
        if "image" not in batch:
            return
        model, target = self.evaluated.eval(), batch["target"]
        features = model.forward_features(self.normalise(batch["image"]))
        logits = model.pool_and_classify(features)
        self._loss += float(self.loss(logits, target)) * len(target)
        self._count += len(target)
        predicted = logits.argmax(1)
        right = target.gather(1, predicted[:, None])[:, 0] > 0 if target.ndim == 2 else predicted == target
        self._right += int(right.sum())
        if target.ndim == 2:
            self._answers.append((logits.float().cpu().numpy(), target.float().cpu().numpy()))
        for place, index in enumerate(batch["index"]):
            record = self.val_set.records[index]
            if record.mask is None:
                continue
            truth = record.truth()
            for label in record.labels:
                mask = truth.object_mask(label)
                if mask is not None:
                    self._count_pixels(features[place : place + 1], label, mask)

    def _count_pixels(self, features: Tensor, label: int, mask: npt.NDArray[np.uint8]) -> None:
        """Count the values of a class's map, with and without NWC, at the pixels of its mask."""
        model = self.evaluated
        chosen = torch.tensor([label], device=features.device)
        for histogram, nwc in ((self._plain, False), (self._nwc, True)):
            with torch.autocast(features.device.type, enabled=False):
                maps = activation_maps(features.float(), model.head_weight.float(), chosen, nwc=nwc)
            large = functional.interpolate(maps[None], mask.shape, mode="bilinear")[0, 0]
            histogram.add(large.cpu().numpy(), mask)

    def on_validation_epoch_end(self) -> None:
        """Log the scores, summed over the processes."""
        seen = (self.so_far.loss, self.so_far.pictures)
        sums = torch.tensor([self._loss, self._right, self._count, self._unread, *seen], dtype=torch.float64)
        bins = torch.from_numpy(np.stack([self._plain.counts, self._nwc.counts]))
        if self.trainer.world_size > 1:
            sums = self._sum_of_processes(sums)
            bins = self._sum_of_processes(bins)
        self._plain.counts, self._nwc.counts = bins.numpy()
        count = max(float(sums[2]), 1.0)
        scores = {"val_loss": float(sums[0]) / count, "val_accuracy": float(sums[1]) / count}
        scores["train_loss"] = float(sums[4]) / max(float(sums[5]), 1.0)
        if sums[3]:
            scores["val_skipped"] = float(sums[3])
        if self._plain.counts[1].sum():
            scores["val_pxap_cam"], scores["val_pxap_nwc"] = self._plain.pxap(), self._nwc.pxap()
            scores["val_peak_iou_nwc"] = self._nwc.peak_iou()[0]
        if (classes := self._class_scores()) is not None:
            scores |= {f"val_{name}": value for name, value in classes.mean.items()}
        self.log_dict(
            {key: torch.tensor(value) for key, value in scores.items()}, prog_bar=True, rank_zero_only=False
        )

    def _class_scores(self) -> LabelScores | None:
        """Scores per class, of all processes; kept in RUN/val_classes.csv. None for data of one label per picture."""
        if not self.val_set.multilabel:
            return None
        empty = np.zeros((0, len(self.val_set.class_names)), np.float32)
        logits, targets = (
            self._rows_of_processes(np.concatenate([empty, *(answer[part] for answer in self._answers)]))
            for part in (0, 1)
        )
        if not len(logits):
            return None
        scores = label_scores(logits, targets)
        if self.trainer.is_global_zero:
            write_atomically(self.run / "val_classes.csv", scores.to_csv(self.val_set.class_names))
        return scores

    def _rows_of_processes(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Float [n, K] of every process, one after the other."""
        if self.trainer.world_size == 1:
            return rows
        counts = self._of_every_process(len(rows))
        padded = np.zeros((max(counts), rows.shape[1]), np.float32)
        padded[: len(rows)] = rows
        gathered = self.all_gather(torch.from_numpy(padded).to(self.device))
        assert isinstance(gathered, Tensor)
        return np.concatenate([part[:count] for part, count in zip(gathered.cpu().numpy(), counts, strict=True)])

