"""Records to batches: decode, stretch, augment; every random choice follows from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lidcam_bench.data import ImageSet, Record
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from lidcam_rt.errors import ImageError
from lidcam_rt.image import read_image
from lidcam_training.losses import UNKNOWN
from lidcam_training.recipe import DataOptions

__all__ = ["EpochSampler", "Pictures", "balanced_weights", "collate", "make_loader", "read_picture"]

_RESIZE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read_picture(record: Record, size: int, interpolation: str) -> npt.NDArray[np.uint8] | None:
    """Decode and stretch to uint8 [size, size, 3] RGB, both as the runtime does; None if unreadable."""
    try:
        image = read_image(record.image, strict=False)
    except ImageError:
        return None
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), _RESIZE[interpolation]))


class Pictures(Dataset[dict[str, Any]]):
    """Pictures as uint8 [3, size, size] tensors with their targets.

    Args:
        images: the split.
        options: of the recipe.
        train: with augmentation.
        seed: of the run.
    """

    def __init__(self, images: ImageSet, options: DataOptions, *, train: bool, seed: int = 0) -> None:
        self.images = images
        self.options = options
        self.train = train
        self.seed = seed
        self._cache: dict[int, npt.NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        record = self.images.records[index]
        image = self._cache.get(index)
        if image is None:
            image = read_picture(record, self.options.size, self.options.interpolation)
            if image is None:
                return {"skipped": str(record.image)}
            if self.options.cache:
                self._cache[index] = image
        if self.train:
            image = self._augment(image, np.random.default_rng((self.seed, epoch, index)))
        if self.images.multilabel:
            target = np.zeros(len(self.images.class_names), np.float32)
            target[list(record.labels)] = 1
            if self.options.unknown == "ignore":
                target[list(record.unknown)] = UNKNOWN
        else:
            target = np.asarray(record.labels[0])
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "target": torch.from_numpy(target), "index": index}

    def _augment(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        options = self.options
        if options.crop is not None and options.crop < options.size:
            y, x = rng.integers(0, options.size - options.crop + 1, 2)
            image = image[y : y + options.crop, x : x + options.crop]
        if options.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if options.jitter:
            gain, shift = 1 + options.jitter * rng.uniform(-1, 1), 128 * options.jitter * rng.uniform(-1, 1)
            image = np.clip((image.astype(np.float32) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
        return image


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) in an order that follows from seed and epoch alone; every rank takes its share.

    For training all ranks get the same number, so that none waits for another; a few pictures come twice for that.
    Without shuffling each comes once.

    Args:
        length: of the data set.
        seed: of the run.
        rank: of this process.
        world: number of processes.
        shuffle: for training.
        weights: float [length], how often each index comes in proportion to others, drawn with replacement; None: each
            once. With shuffling only.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.length, self.seed, self.rank, self.world, self.shuffle = length, seed, rank, world, shuffle
        self.weights = None if weights is None else weights / weights.sum()
        self.epoch = 0
        self._resumed = (-1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, done: int) -> None:
        """Skip the first `done` pictures of this rank in one epoch; its length stays as it is."""
        self.epoch, self._resumed = epoch, (epoch, done)

    def __len__(self) -> int:
        return -(-self.length // self.world) if self.shuffle else len(range(self.rank, self.length, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            rng = np.random.default_rng((self.seed, self.epoch))
            if self.weights is None:
                order = rng.permutation(self.length)
            else:
                order = rng.choice(self.length, self.length, p=self.weights)
            order = np.resize(order, len(self) * self.world)
        epoch, done = self._resumed
        start = done if epoch == self.epoch else 0
        for index in order[self.rank :: self.world][start:]:
            yield self.epoch, int(index)


def balanced_weights(images: ImageSet) -> npt.NDArray[np.float64]:
    """The mean over a picture's classes of 1 / (pictures of the class), float64 [pictures]; see `DataOptions.sampling`.

    A picture without a class weighs as much as the mean of the others.
    """
    counts = np.bincount([i for record in images for i in record.labels], minlength=len(images.class_names))
    weights = np.array([np.mean([1 / counts[i] for i in r.labels]) if r.labels else np.nan for r in images], np.float64)
    return np.where(np.isnan(weights), np.nanmean(weights) if counts.any() else 1.0, weights)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the readable pictures; the names of the others under `skipped`."""
    good = [sample for sample in samples if "image" in sample]
    batch: dict[str, Any] = {"skipped": [sample["skipped"] for sample in samples if "skipped" in sample]}
    for key in ("image", "target") if good else ():
        batch[key] = torch.stack([sample[key] for sample in good])
    batch["index"] = [sample["index"] for sample in good]
    return batch


def make_loader(
    images: ImageSet,
    options: DataOptions,
    pictures: Dataset[dict[str, Any]] | None = None,
    *,
    train: bool,
    seed: int,
    rank: int = 0,
    world: int = 1,
    resume: tuple[int, int] = (0, 0),
) -> DataLoader[dict[str, Any]]:
    """A loader of batches; the last short batch of a training epoch is left out where there are others.

    Args:
        images: the split.
        options: of the recipe.
        pictures: the data set that returns the samples; None: `Pictures`.
        train: shuffle and augment.
        seed: of the run.
        rank: of this process.
        world: number of processes.
        resume: (epoch, batches already done in it).
    """
    weights = balanced_weights(images) if train and options.sampling == "balanced" else None
    sampler = EpochSampler(len(images), seed, rank=rank, world=world, shuffle=train, weights=weights)
    sampler.resume(resume[0], resume[1] * options.batch_size)
    return DataLoader(
        pictures or Pictures(images, options, train=train, seed=seed),
        batch_size=options.batch_size,
        sampler=sampler,
        num_workers=options.workers,
        collate_fn=collate,
        drop_last=train and len(sampler) >= options.batch_size,
        persistent_workers=options.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
