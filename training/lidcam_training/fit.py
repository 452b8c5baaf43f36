"""One training run: it can be killed at any moment and resumes from the state saved last in its folder."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import logging
import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lidcam_bench.data import ImageSet, open_data
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.utilities import rank_zero_only

from lidcam_rt.artifact import json_object
from lidcam_rt.errors import DataError, InputError, LidcamError, OutputError
from lidcam_rt.files import output_folder, read_file, write_atomically
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.data.loader import Pictures, make_loader
from lidcam_training.module import ClassifierModule
from lidcam_training.progress import TimeLeft
from lidcam_training.recipe import BaseRecipe, Recipe, SegmentRecipe
from lidcam_training.segmentation.checkpoint import load_segmentation
from lidcam_training.segmentation.module import SegmentationModule
from lidcam_training.segmentation.pictures import LabelledPictures, open_labels
from lidcam_training.state import PlainCheckpoints, read_progress
from lidcam_training.training_module import TrainingModule

__all__ = ["fit"]

_STATE = "state.safetensors"

#: Errors of the system where nothing more can be written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class _Keeper(Callback):
    """After each epoch: scores, checkpoint, best checkpoint; and the state to resume from, also within an epoch.

    Each is written whole or not at all.
    """

    def __init__(self, run: Path, fingerprint: str) -> None:
        self.run, self.fingerprint = run, fingerprint
        self.rows: list[dict[str, float]] = []
        self.resume: tuple[int, int] = (0, 0)
        self.finished = False
        self.started = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = True

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "resume": self.resume, "finished": self.finished}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        recipe, done = pl_module.recipe, batch_idx + 1
        if not recipe.save_steps or done % recipe.optim.accumulate or done >= trainer.num_training_batches:
            return
        if trainer.global_step % recipe.save_steps == 0:
            self.resume = (pl_module.current_epoch, done)
            self._save_state(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        pl_module.check_skipped()
        scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key != "loss"}
        self.rows.append({"epoch": pl_module.current_epoch, "skipped": pl_module.skipped_count, **scores})
        if trainer.is_global_zero:
            self._save(pl_module, scores)
        self.resume, self.finished = (pl_module.current_epoch + 1, 0), trainer.should_stop
        self._save_state(trainer)

    def _save_state(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.run / _STATE)  # all processes gather the state, the first writes it

    def _save(self, module: TrainingModule, scores: dict[str, float]) -> None:
        monitor = module.recipe.monitor
        folders = [self.run / "checkpoint"]
        monitored = [row[monitor] for row in self.rows if monitor in row]
        better = min if monitor.endswith("loss") else max
        if monitored and monitored[-1] == better(monitored):
            folders.append(self.run / "best")
        module.save(folders, scores, self.fingerprint)
        names = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(self.rows)
        write_atomically(self.run / "metrics.csv", text.getvalue().encode())


def _open(recipe: BaseRecipe, run: Path) -> tuple[ImageSet, ImageSet]:
    import dataclasses

    train = open_data(recipe.data.source, recipe.data.train)
    apart = recipe.labels.val if isinstance(recipe, SegmentRecipe) else None
    val = open_data(apart or recipe.data.source, recipe.data.val)
    if train.class_names != val.class_names:
        raise DataError(f"{train.name} and {val.name} have different classes")
    if not train.class_names:
        raise DataError(f"{train.name} has no class names: training needs them (for a plain folder, in classes.txt)")
    bare = next((r for images in (train, val) for r in images if not r.labels and not images.multilabel), None)
    if bare is not None:
        raise DataError(f"{bare.image} has no label: training and validation need one for every picture")
    if recipe.data.train != recipe.data.val and [r.image for r in train] == [r.image for r in val]:
        raise DataError(
            f"{recipe.data.source}: {recipe.data.train} and {recipe.data.val} are the same pictures; validation would "
            "be meaningless. Give a data set with splits: for a plain folder DIR/train/images and DIR/val/images"
        )
    if recipe.data.limit:
        train = dataclasses.replace(train, records=train.records[: recipe.data.limit])
    if isinstance(recipe, SegmentRecipe):
        train, val = open_labels(train, recipe.labels.folder), open_labels(val, None)
    return train, val


def _read_about(path: Path) -> dict[str, Any]:
    """run.json: recipe and fingerprint of the data.

    Raises:
        DataError: it is damaged.
    """
    try:
        about = json_object(read_file(path))
        if not (isinstance(about.get("recipe"), dict) and isinstance(about.get("data_fingerprint"), str)):
            raise ValueError("without a recipe and a fingerprint of the data")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not from a training run ({error}): give a new folder with --output") from None
    return about


def _is_first_process() -> bool:
    """Whether this process writes the files of a run that several processes train."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _check_world(recipe: BaseRecipe) -> None:
    """Raise InputError where torchrun started a number of processes other than the recipe's."""
    started = os.environ.get("WORLD_SIZE")
    if started is not None and int(started) != recipe.devices * recipe.nodes:
        raise InputError(
            f"torchrun started {started} processes, but the recipe says devices={recipe.devices} nodes={recipe.nodes}: "
            "their product must be the number of processes"
        )


def fit(recipe: BaseRecipe, run: str | Path, *, progress: bool = True) -> Path:
    """Train, or resume a run that was cut off.

    Args:
        recipe: all options.
        run: folder of the run. If it holds the state of the same recipe, training resumes from there, with the same
            result as an uninterrupted run.
        progress: show a progress bar with the time left.

    Returns:
        The checkpoint folder, `RUN/checkpoint`.

    Raises:
        InputError: the folder holds a run of another recipe.
        DataError: the data are not as expected, or changed since the run began.
        OutputError: the folder cannot be written, or another process is writing into it.
        TrainingError: the loss is not finite.
    """
    run = Path(run)
    train, val = _open(recipe, run)
    with output_folder(run) if _is_first_process() else contextlib.nullcontext():
        return _fit(recipe, run, train, val, progress)


def _fit(recipe: BaseRecipe, run: Path, train: ImageSet, val: ImageSet, progress: bool) -> Path:
    fingerprint = train.fingerprint()
    record = json.loads(json.dumps({"recipe": recipe.to_dict(), "data_fingerprint": fingerprint}))
    about, state = run / "run.json", run / _STATE
    if about.exists():
        former = _read_about(about)
        if former["recipe"] != record["recipe"]:
            changed = [key for key in record["recipe"] if former["recipe"].get(key) != record["recipe"][key]]
            raise InputError(
                f"{run} holds a run of another recipe (different: {', '.join(changed)}): give a new "
                f"folder with --output"
            )
        if former["data_fingerprint"] != fingerprint:
            raise DataError(
                f"{run}: the training pictures changed since this run began: give a new folder with --output"
            )
    if _is_first_process():
        write_atomically(about, json.dumps(record, indent=1).encode())
    resume, finished = read_progress(state, _Keeper.__name__)
    if finished:
        return _checked(recipe, run / "checkpoint")
    _check_world(recipe)
    if recipe.accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("recipe: accelerator is gpu, but torch sees no GPU: set accelerator=cpu or auto")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    pl.seed_everything(recipe.seed, verbose=False)
    module = _module(recipe, train, val, run)
    if recipe.channels_last:
        module.model.to(memory_format=torch.channels_last)
    callbacks: list[Callback] = []
    if recipe.patience:
        mode = "min" if recipe.monitor.endswith("loss") else "max"
        stop = EarlyStopping(recipe.monitor, patience=recipe.patience, mode=mode, check_on_train_epoch_end=False)
        callbacks.append(stop)
    keeper = _Keeper(run, fingerprint)
    callbacks.append(keeper)
    logger: Any = False
    if recipe.logger == "tensorboard":
        from pytorch_lightning.loggers import TensorBoardLogger

        logger = TensorBoardLogger(str(run), name="", version="tensorboard")
    if progress:
        callbacks.append(TimeLeft())
    world = recipe.devices * recipe.nodes
    trainer = pl.Trainer(
        strategy="auto" if world == 1 else "ddp_find_unused_parameters_true" if module.unused_parameters else "ddp",
        max_epochs=recipe.epochs,
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        precision=recipe.precision,
        accumulate_grad_batches=recipe.optim.accumulate,
        gradient_clip_val=recipe.optim.clip_norm or None,
        deterministic=recipe.deterministic,
        callbacks=callbacks,
        plugins=[PlainCheckpoints()],
        logger=logger,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    rank, world = trainer.global_rank, trainer.world_size
    loaders = (
        make_loader(
            train, recipe.data, _pictures(recipe, train, train=True),
            train=True, seed=recipe.seed, rank=rank, world=world, resume=resume,
        ),
        make_loader(
            val, recipe.data, _pictures(recipe, val, train=False),
            train=False, seed=recipe.seed, rank=rank, world=world,
        ),
    )
    _train(trainer, module, loaders, state, keeper)
    return _checked(recipe, run / "checkpoint")


def _module(recipe: BaseRecipe, train: ImageSet, val: ImageSet, run: Path) -> TrainingModule:
    if isinstance(recipe, SegmentRecipe):
        return SegmentationModule(recipe, train, val, run)
    assert isinstance(recipe, Recipe)
    return ClassifierModule(recipe, train, val, run)


def _pictures(recipe: BaseRecipe, images: ImageSet, *, train: bool) -> Pictures | LabelledPictures:
    if isinstance(recipe, SegmentRecipe):
        return LabelledPictures(images, recipe, train=train)
    return Pictures(images, recipe.data, train=train, seed=recipe.seed)


def _checked(recipe: BaseRecipe, folder: Path) -> Path:
    """The checkpoint folder, after a check that it can be read."""
    if isinstance(recipe, SegmentRecipe):
        load_segmentation(folder)
    else:
        load_checkpoint(folder)
    return folder


def _train(
    trainer: pl.Trainer, module: TrainingModule, loaders: tuple[Any, Any], state: Path, keeper: _Keeper
) -> None:
    """Lightning's loop, with errors and interrupts handled as in the other verbs."""
    resumed = state.exists()
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        trainer.fit(module, *loaders, ckpt_path=str(state) if resumed else None, weights_only=True)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning ends the process silently
            raise KeyboardInterrupt from None
        raise
    except (LidcamError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise OutputError(
                f"{keeper.run}: cannot be written ({error.strerror}). Free space and run the same command again: it "
                "resumes where it stopped"
            ) from error
        if resumed and not keeper.started:
            raise DataError(f"{state} does not fit this run ({error!r:.300}): remove it to begin again") from error
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
