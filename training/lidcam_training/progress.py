"""The progress bar."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

__all__ = ["TimeLeft"]


class TimeLeft(TQDMProgressBar):
    """Lightning's bar of the epoch with the time left of the whole run, validation included."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when, and from where, the run starts or resumes."""
        super().on_train_start(trainer, pl_module)
        self._started, self._from = time.monotonic(), self._done(trainer)

    @staticmethod
    def _done(trainer: pl.Trainer) -> float:
        """Epochs done, with fractions."""
        within = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return trainer.current_epoch + min(within / max(float(trainer.num_training_batches), 1.0), 1.0)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The numbers shown after the bar."""
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        done = self._done(trainer)
        if trainer.max_epochs and done > self._from:
            rate = (time.monotonic() - self._started) / (done - self._from)
            metrics["left"] = str(datetime.timedelta(seconds=round(rate * (trainer.max_epochs - done))))
        return metrics
