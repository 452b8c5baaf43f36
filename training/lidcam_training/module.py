"""The Lightning module: loss, method, optimizer, averaged weights, validation scores."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import DataError, LidcamError
from lidcam_training.data.records import ImageSet
from lidcam_training.methods import attention_dropout, erase_regions, hide_patches
from lidcam_training.methods.erasing import erase_features
from lidcam_training.models import Classifier, build_classifier
from lidcam_training.models.classifier import activation_maps
from lidcam_training.models.fused import FusedClassifier
from lidcam_training.pixels import PixelHistogram
from lidcam_training.recipe import Recipe

__all__ = ["ClassifierModule", "TrainingError"]


class TrainingError(LidcamError):
    """Training cannot go on: change the recipe or the data."""

    exit_code = 8


class ClassifierModule(pl.LightningModule):
    """A classifier in training.

    Args:
        recipe: of the run.
        train: pictures for training.
        val: pictures for validation; those with masks give localization scores.
        run: folder of the run.
    """

    def __init__(self, recipe: Recipe, train: ImageSet, val: ImageSet, run: Path) -> None:
        super().__init__()
        self.recipe, self.train_set, self.val_set, self.run = recipe, train, val, run
        self.model = build_classifier(recipe.classifier(len(train.class_names)))
        self.ema: Classifier | None = None
        if recipe.optim.ema:
            self.ema = copy.deepcopy(self.model).requires_grad_(False)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(recipe.data.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.data.std).view(shape), persistent=False)
        self.multilabel = train.multilabel if recipe.optim.loss == "auto" else recipe.optim.loss == "bce"
        if not self.multilabel and train.multilabel:
            raise DataError(
                f"{train.name} has several labels per picture: cross_entropy cannot learn it, use bce"
            )
        self.skipped: list[str] = []
        self._seen = 0

    @property
    def evaluated(self) -> Classifier:
        """The weights that are validated and saved: the averaged ones where there are."""
        return self.model if self.ema is None else self.ema

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to normalised float, in the recipe's memory layout."""
        out = (images.float() - self.mean) / self.std
        return out.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else out

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy for one label, binary cross-entropy per class for several."""
        if self.multilabel:
            if target.ndim == 1:
                target = functional.one_hot(target, logits.shape[1]).to(logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits.float(), target.float())
        return functional.cross_entropy(
            logits.float(), target, label_smoothing=self.recipe.optim.label_smoothing
        )

    def _method_loss(self, images: Tensor, target: Tensor) -> Tensor:
        method, model = self.recipe.method, self.model
        if method.name == "has":
            images = hide_patches(images, method.grid, method.hide)
        if method.name == "acol" and isinstance(model, FusedClassifier):
            shared = model.shared_features(images)
            first = model.branch_a(shared)
            found = self._class_map(first, target)
            second = model.branch_b(erase_features(shared, found, method.erase))
            bias = model.head.bias
            return self.loss(first.mean((2, 3)) + bias, target) + self.loss(
                second.mean((2, 3)) + bias, target
            )
        features = model.forward_features(images)
        if method.name == "adl":
            features = attention_dropout(features, method.drop_rate, method.erase)
        total = self.loss(model.pool_and_classify(features), target)
        if method.name == "ae" and self.current_epoch >= method.warmup_epochs:
            for _ in range(method.rounds):
                maps = self._class_map(
                    functional.conv2d(features, model.head_weight[:, :, None, None]), target
                )
                images = erase_regions(images, maps, method.erase)
                features = model.forward_features(images)
                total = total + self.loss(model.pool_and_classify(features), target)
            total = total / (1 + method.rounds)
        return total

    @staticmethod
    def _class_map(maps: Tensor, target: Tensor) -> Tensor:
        """Maps [N, K, h, w] of the true classes: [N, h, w], the sum where there are several."""
        if target.ndim == 2:
            return (maps.detach() * target[:, :, None, None].to(maps.dtype)).sum(1)
        return maps.detach()[torch.arange(len(maps), device=maps.device), target]

    def on_train_epoch_start(self) -> None:
        """Empty the counters."""
        self.skipped, self._seen = [], 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and methods from (seed, epoch, batch, rank): a resumed epoch is the same epoch.

        Per batch, since other code draws from the generator at moments that a resumed run does not repeat.
        """
        seed = np.random.SeedSequence((self.recipe.seed, self.current_epoch, batch_idx, self.global_rank))
        torch.manual_seed(int(seed.generate_state(1)[0]))

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor | None:
        """Loss of a batch; an unreadable picture is left out and counted."""
        self.skipped += batch["skipped"]
        if "image" not in batch:
            return None
        self._seen += len(batch["image"])
        images, target = self.normalise(batch["image"]), batch["target"]
        loss = self._method_loss(images, target)
        if not torch.isfinite(loss):
            file = self.run / "nonfinite.pt"
            names = [str(self.train_set.records[i].image) for i in batch["index"]]
            torch.save({"image": batch["image"].cpu(), "target": target.cpu(), "files": names}, file)
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {index}. The batch is "
                f"saved as "
                f"{file}. Lower optim.lr, set optim.clip_norm, or train with precision=32-true"
            )
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the averaged weights."""
        if self.ema is None:
            return
        step = self.global_step
        decay = min(self.recipe.optim.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for mine, new in zip(
                self.ema.state_dict().values(), self.model.state_dict().values(), strict=True
            ):
                if mine.dtype.is_floating_point:
                    mine.lerp_(new, 1 - decay)
                else:
                    mine.copy_(new)

    def on_train_epoch_end(self) -> None:
        """State the skipped pictures; too many stop the run."""
        if not self.skipped:
            return
        (self.run / "skipped.txt").write_text("\n".join(sorted(set(self.skipped))) + "\n")
        share = len(self.skipped) / max(len(self.skipped) + self._seen, 1)
        if share > self.recipe.data.max_skipped:
            raise DataError(
                f"{len(self.skipped)} pictures of epoch {self.current_epoch} ({share:.0%}) cannot be "
                f"read, more than "
                f"data.max_skipped ({self.recipe.data.max_skipped:.0%}); their names are in "
                f"{self.run}/skipped.txt"
            )

    def on_validation_epoch_start(self) -> None:
        """Empty the counters."""
        self._plain, self._nwc = PixelHistogram(), PixelHistogram()
        self._right = self._count = self._unread = 0
        self._loss = 0.0

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Accuracy, loss, and map values at the pixels of the masks."""
        self._unread += len(batch["skipped"])
        if "image" not in batch:
            return
        model, target = self.evaluated.eval(), batch["target"]
        features = model.forward_features(self.normalise(batch["image"]))
        logits = model.pool_and_classify(features)
        self._loss += float(self.loss(logits, target)) * len(target)
        self._count += len(target)
        best = logits.argmax(1)
        right = target.gather(1, best[:, None])[:, 0] > 0 if target.ndim == 2 else best == target
        self._right += int(right.sum())
        labels = target.argmax(1) if target.ndim == 2 else target
        records = [self.val_set.records[i] for i in batch["index"]]
        if not any(record.mask for record in records):
            return
        for histogram, nwc in ((self._plain, False), (self._nwc, True)):
            maps = activation_maps(features.float(), model.head_weight.float(), labels, nwc=nwc)
            for place, record in enumerate(records):
                mask = record.read_mask()
                if mask is None:
                    continue
                if record.mask_values == "classes":
                    wanted = int(labels[place]) + 1
                    mask = np.where(mask == 255, 255, mask == wanted).astype(np.uint8)
                large = functional.interpolate(maps[None, None, place], mask.shape, mode="bilinear")[0, 0]
                histogram.add(large.cpu().numpy(), mask)

    def on_validation_epoch_end(self) -> None:
        """Log the scores, summed over the processes."""
        sums = torch.tensor([self._loss, self._right, self._count, self._unread], dtype=torch.float64)
        bins = torch.from_numpy(np.stack([self._plain.counts, self._nwc.counts]))
        if self.trainer.world_size > 1:
            sums = self.all_gather(sums.to(self.device)).sum(0).cpu()
            bins = self.all_gather(bins.to(self.device)).sum(0).cpu()
        self._plain.counts, self._nwc.counts = bins.numpy()
        count = max(float(sums[2]), 1.0)
        scores = {"val_loss": float(sums[0]) / count, "val_accuracy": float(sums[1]) / count}
        if sums[3]:
            scores["val_skipped"] = float(sums[3])
        if self._plain.counts[1].sum():
            scores["val_pxap_cam"], scores["val_pxap_nwc"] = self._plain.pxap(), self._nwc.pxap()
            scores["val_peak_iou_nwc"] = self._nwc.peak_iou()[0]
        self.log_dict(
            {key: torch.tensor(value) for key, value in scores.items()}, prog_bar=True, rank_zero_only=False
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """Parameter groups (backbone at a lower rate, no decay on norms and biases) and the schedule "
        "per step.
        """
        options = self.recipe.optim
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                key = (name.startswith("backbone."), parameter.ndim > 1)
                groups.setdefault(key, []).append(parameter)
        listed = [
            {
                "params": parameters,
                "lr": options.lr * (options.pretrained_lr_scale if backbone else 1.0),
                "weight_decay": options.weight_decay if decays else 0.0,
            }
            for (backbone, decays), parameters in groups.items()
        ]
        optimizer: torch.optim.Optimizer
        if options.optimizer == "adamw":
            optimizer = torch.optim.AdamW(listed, lr=options.lr)
        else:
            optimizer = torch.optim.SGD(
                listed, lr=options.lr, momentum=options.momentum, nesterov=options.momentum > 0
            )
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        per_epoch = steps / self.recipe.epochs

        def factor(step: int) -> float:
            warm = options.warmup_epochs * per_epoch
            if step < warm:
                return (step + 1) / (warm + 1)
            if options.schedule == "cosine":
                return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(steps - warm, 1))))
            if options.schedule == "steps":
                return 0.1 ** sum(step >= milestone * per_epoch for milestone in options.milestones)
            return 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
