"""What every network in training shares: optimizer and schedule, averaged weights, counters, seeds of each batch."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lidcam_bench.data import ImageSet
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from lidcam_rt.errors import DataError, LidcamError
from lidcam_rt.files import replacing, write_atomically
from lidcam_training.recipe import BaseRecipe
from lidcam_training.tensor_file import write_tensor_file

__all__ = ["TrainingError", "TrainingModule"]


class TrainingError(LidcamError):
    """Training cannot continue: change the recipe or the data."""

    exit_code = 8


@dataclass
class EpochSoFar:
    """Counters of an epoch, kept if a run is cut off during it.

    Attributes:
        epoch: its number.
        pictures: number trained on.
        loss: sum over these.
        skipped: files that could not be read.
    """

    epoch: int = 0
    pictures: int = 0
    loss: float = 0.0
    skipped: list[str] = field(default_factory=list)


class TrainingModule(pl.LightningModule):
    """A network in training.

    Args:
        recipe: of the run.
        model: the network.
        train: pictures for training.
        val: pictures for validation.
        run: folder of the run.

    Attributes:
        ema: the averaged weights, or None.
        unused_parameters: whether some weights are unused in some steps.
    """

    mean: Tensor
    std: Tensor
    unused_parameters = False

    def __init__(self, recipe: BaseRecipe, model: nn.Module, train: ImageSet, val: ImageSet, run: Path) -> None:
        super().__init__()
        self.recipe, self.train_set, self.val_set, self.run = recipe, train, val, run
        self.model = model
        self.ema: nn.Module | None = None
        if recipe.optim.ema:
            self.ema = copy.deepcopy(model).requires_grad_(False)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(recipe.data.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(recipe.data.std).view(shape), persistent=False)
        self.so_far = EpochSoFar()
        self.skipped_count = 0

    @abstractmethod
    def batch_loss(self, images: Tensor, target: Tensor) -> Tensor:
        """The loss of normalised pictures, float [N, 3, H, W], and their targets."""

    @abstractmethod
    def save(self, folders: list[Path], scores: dict[str, float], fingerprint: str) -> None:
        """Write the evaluated weights as a checkpoint into each folder.

        Args:
            folders: `RUN/checkpoint`, and `RUN/best` if it is the best.
            scores: of the last validation.
            fingerprint: of the training pictures.
        """

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to normalised float, in the recipe's memory layout."""
        out = (images.float() - self.mean) / self.std
        return out.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else out

    def on_train_epoch_start(self) -> None:
        """Empty the counters."""
        self.so_far = EpochSoFar(self.current_epoch)

    def _part(self, epoch: int) -> tuple[int, int, int]:
        """(part of the network that learns in an epoch, its first epoch, how many it has); here there is one part."""
        return 0, 0, self.recipe.epochs

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and methods from (seed, epoch, batch, rank), so that a resumed epoch is the same epoch.

        Per batch, since other code draws from the generator at times that a resumed run does not repeat.
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
        loss = self.batch_loss(images, target)
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
        """Restore the counters."""
        self.so_far = EpochSoFar(**checkpoint["so_far"][self.trainer.global_rank])

    def check_skipped(self) -> None:
        """Report the skipped pictures.

        Raises:
            DataError: too many were skipped.
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
            if options.schedule == "poly":
                return math.pow(1 - min(1.0, (step - warm) / max(steps - warm, 1)), 0.9)
            if options.schedule == "steps":
                return 0.1 ** sum(step >= milestone * per_epoch for milestone in options.milestones)
            return 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }
