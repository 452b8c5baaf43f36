"""The Lightning module: loss, method, optimizer, averaged weights, validation scores."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from lidcam_bench.data import ImageSet
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import DataError, LidcamError
from lidcam_rt.files import replacing, write_atomically
from lidcam_training.label_scores import LabelScores, label_scores
from lidcam_training.losses import multilabel_loss
from lidcam_training.methods import METHODS
from lidcam_training.models import Classifier, build_classifier
from lidcam_training.models.ae import ErasingChain
from lidcam_training.models.classifier import activation_maps
from lidcam_training.pixels import PixelHistogram
from lidcam_training.recipe import Recipe
from lidcam_training.tensor_file import write_tensor_file

__all__ = ["ClassifierModule", "TrainingError"]


class TrainingError(LidcamError):
    """Training cannot go on: change the recipe or the data."""

    exit_code = 8


@dataclass
class EpochSoFar:
    """Counters of an epoch, kept when a run is cut off in it.

    Attributes:
        epoch: its number.
        pictures: that were trained on.
        loss: sum over these.
        skipped: files that could not be read.
    """

    epoch: int = 0
    pictures: int = 0
    loss: float = 0.0
    skipped: list[str] = field(default_factory=list)


class ClassifierModule(pl.LightningModule):
    """A classifier in training.

    Args:
        recipe: of the run.
        train: pictures for training.
        val: pictures for validation; those with masks give localization scores.
        run: folder of the run.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, train: ImageSet, val: ImageSet, run: Path) -> None:
        super().__init__()
        self.recipe, self.train_set, self.val_set, self.run = recipe, train, val, run
        self.model = build_classifier(recipe.classifier(len(train.class_names)))
        self.ema: Classifier | None = None
        if recipe.optim.ema:
            self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.method = METHODS[recipe.method.name]
        self.method.attach(self.model, recipe.method)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(recipe.data.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.data.std).view(shape), persistent=False)
        self.multilabel = train.multilabel if recipe.optim.loss == "auto" else recipe.optim.loss != "cross_entropy"
        if not self.multilabel and train.multilabel:
            raise DataError(
                f"{train.name} has several labels per picture: cross_entropy cannot learn it, use bce"
            )
        self.so_far = EpochSoFar()
        self.skipped_count = 0

    @property
    def evaluated(self) -> Classifier:
        """The weights that are validated and saved: the averaged ones where there are."""
        return self.model if self.ema is None else self.ema

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to normalised float, in the recipe's memory layout."""
        out = (images.float() - self.mean) / self.std
        return out.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else out

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy for one label; for several that of the recipe, see `lidcam_training.losses`."""
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

    def on_train_epoch_start(self) -> None:
        """Empty the counters; a chain of classifiers goes on to the next when its share of the epochs is over."""
        self.so_far = EpochSoFar(self.current_epoch)
        for model in (self.model, self.ema):
            if isinstance(model, ErasingChain):
                model.activate(self._part(self.current_epoch)[0] + 1)

    def _part(self, epoch: int) -> tuple[int, int, int]:
        """(classifier of the chain that learns in an epoch, its first epoch, how many it has)."""
        count = len(self.model.steps) if isinstance(self.model, ErasingChain) else 1
        share = self.recipe.epochs // count
        part = min(epoch // share, count - 1)
        return part, part * share, share if part < count - 1 else self.recipe.epochs - part * share

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and methods from (seed, epoch, batch, rank), so that a resumed epoch is the same epoch.

        Per batch, since other code draws from the generator at moments that a resumed run does not repeat.
        """
        seed = np.random.SeedSequence((self.recipe.seed, self.current_epoch, batch_idx, self.global_rank))
        torch.manual_seed(int(seed.generate_state(1)[0]))

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor | None:
        """Loss of a batch; an unreadable picture is left out and counted."""
        self.so_far.skipped += batch["skipped"]
        if "image" not in batch:
            if self.trainer.world_size == 1:
                return None
            # the other processes wait for this one's gradients
            return torch.stack([p.sum() for p in self.model.parameters() if p.requires_grad]).sum() * 0.0
        images, target = self.normalise(batch["image"]), batch["target"]
        loss = self.method.loss(self.model, self.recipe.method, images, target, self.loss)
        if not torch.isfinite(loss):
            file = self.run / "nonfinite.safetensors"
            names = [str(self.train_set.records[i].image) for i in batch["index"]]
            with replacing(file) as temporary:
                write_tensor_file(temporary, {"image": batch["image"], "target": target, "files": names})
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {index}. The batch is saved as "
                f"{file}. Lower optim.lr, set optim.clip_norm, or train with precision=32-true"
            )
        self.so_far.pictures += len(images)
        self.so_far.loss += float(loss.detach()) * len(images)
        self.log("loss", loss, prog_bar=True, logger=True, batch_size=len(images))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the averaged weights."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is None:
            return
        step = self.global_step
        decay = min(self.recipe.optim.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for averaged, new in zip(self.ema.state_dict().values(), self.model.state_dict().values(), strict=True):
                if averaged.dtype.is_floating_point:
                    averaged.lerp_(new, 1 - decay)
                else:
                    averaged.copy_(new)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the epoch's counters, of every process."""
        checkpoint["so_far"] = self._of_every_process(dataclasses.asdict(self.so_far))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counters up again."""
        self.so_far = EpochSoFar(**checkpoint["so_far"][self.trainer.global_rank])

    def check_skipped(self) -> None:
        """State the skipped pictures.

        Raises:
            DataError: too many of them.
        """
        names = [name for part in self._of_every_process(self.so_far.skipped) for name in part]
        self.skipped_count = len(names)
        if not names:
            return
        if self.trainer.is_global_zero:
            text = "\n".join(sorted(set(names))) + "\n"
            write_atomically(self.run / "skipped.txt", text.encode("utf-8", "surrogateescape"))
        share = len(names) / max(len(names) + self.so_far.pictures * self.trainer.world_size, 1)
        if share > self.recipe.data.max_skipped:
            raise DataError(
                f"{len(names)} pictures of epoch {self.current_epoch} ({share:.0%}) cannot be read, more than "
                f"data.max_skipped ({self.recipe.data.max_skipped:.0%}); their names are in {self.run}/skipped.txt"
            )

    def on_validation_epoch_start(self) -> None:
        """Empty the counters."""
        self._plain, self._nwc = PixelHistogram(), PixelHistogram()
        self._right = self._count = self._unread = 0
        self._loss = 0.0
        self._answers: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Accuracy, loss, and map values at the pixels of the masks: of every class that a picture has."""
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

    def _of_every_process(self, value: Any) -> list[Any]:
        """A JSON value of every process, in the order of their ranks; sent as JSON, not as a pickle."""
        if self.trainer.world_size == 1:
            return [value]
        text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=self.device)
        lengths = self.all_gather(torch.tensor(len(text), device=self.device))
        assert isinstance(lengths, Tensor)
        padded = self.all_gather(functional.pad(text, (0, int(lengths.max()) - len(text))))
        assert isinstance(padded, Tensor)
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(padded, lengths.tolist(), strict=True)]

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

    def _sum_of_processes(self, values: Tensor) -> Tensor:
        gathered = self.all_gather(values.to(self.device))
        assert isinstance(gathered, Tensor)
        return gathered.sum(0).cpu()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Parameter groups (backbone at a lower rate, no decay on norms and biases) and the schedule per step."""
        options = self.recipe.optim
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                key = (".backbone." in f".{name}", parameter.ndim > 1)
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
        whole = max(int(self.trainer.estimated_stepping_batches), 1)
        per_epoch = whole / self.recipe.epochs

        def factor(step: int) -> float:
            _, first, length = self._part(int(step / per_epoch + 1e-6))
            step -= round(first * per_epoch)  # each classifier of a chain has the whole schedule
            steps = length * per_epoch
            warm = options.warmup_epochs * per_epoch
            if step < warm:
                return (step + 1) / (warm + 1)
            if options.schedule == "cosine":
                return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(steps - warm, 1))))
            if options.schedule == "steps":
                return 0.1 ** sum(step >= milestone * per_epoch for milestone in options.milestones)
            return 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }
