"""Pictures with label maps for training: resized, cropped and mirrored together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from lidcam_bench.data import ImageSet, MaskFile, MaskForm
from lidcam_bench.data.masks import IGNORED
from torch.utils.data import Dataset

from lidcam_rt.errors import DataError
from lidcam_training.data.loader import read_picture
from lidcam_training.pseudo.run import label_file
from lidcam_training.recipe import SegmentRecipe

__all__ = ["LabelledPictures", "open_labels"]


def open_labels(images: ImageSet, folder: str | None) -> ImageSet:
    """A split whose masks are label maps: its own, or those of a folder of pseudo labels.

    Raises:
        DataError: a picture has none.
    """
    if folder is not None:
        records = []
        for record in images:
            file = Path(folder).expanduser() / label_file(record)
            if not file.is_file():
                raise DataError(f"{file} is missing: make it with `lidcam pseudo MODEL --data ... -o {folder}`")
            mask = MaskFile(file, MaskForm.LABELS, classes=len(images.class_names))
            records.append(dataclasses.replace(record, mask=mask))
        return dataclasses.replace(images, records=tuple(records))
    bare = next((record for record in images if record.mask is None), None)
    if bare is not None:
        raise DataError(f"{bare.image} has no label map: a segmentation network needs one for every picture")
    return images


class LabelledPictures(Dataset[dict[str, Any]]):
    """Pictures as uint8 [3, S, S] with label maps int64 [S, S]; 255 is ignored.

    Args:
        images: from `open_labels`.
        recipe: of the run.
        train: with augmentation: a random scale, crop, mirror image and jitter, all from (seed, epoch, index).
    """

    def __init__(self, images: ImageSet, recipe: SegmentRecipe, *, train: bool) -> None:
        self.images, self.recipe, self.train = images, recipe, train
        self._cache: dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        read = self._read(index)
        if read is None:
            return {"skipped": str(self.images.records[index].image)}
        image, labels = read
        if self.train:
            image, labels = self._augment(image, labels, np.random.default_rng((self.recipe.seed, epoch, index)))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "target": torch.from_numpy(labels.astype(np.int64)),
            "index": index,
        }

    def _read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None:
        if index in self._cache:
            return self._cache[index]
        record, options = self.images.records[index], self.recipe.data
        image = read_picture(record, options.size, options.interpolation)
        if image is None:
            return None
        labels = record.truth().label_map()
        if labels is None:
            raise DataError(f"{record.image}: its mask does not tell the classes apart")
        if labels.shape != image.shape[:2]:
            labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        if options.cache:
            self._cache[index] = image, labels
        return image, labels

    def _augment(
        self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        options, side = self.recipe.data, self.recipe.data.crop or self.recipe.data.size
        low, high = self.recipe.labels.scales
        size = max(1, round(options.size * float(np.exp(rng.uniform(np.log(low), np.log(high))))))
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        labels = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        if size < side:  # the rest of the crop has the mean's colour and no label
            y, x = rng.integers(0, side - size + 1, 2)
            canvas = np.empty((side, side, 3), np.uint8)
            canvas[:] = np.rint(options.mean)
            marks = np.full((side, side), IGNORED, np.uint8)
            canvas[y : y + size, x : x + size], marks[y : y + size, x : x + size] = image, labels
            image, labels = canvas, marks
        else:
            y, x = rng.integers(0, size - side + 1, 2)
            image, labels = image[y : y + side, x : x + side], labels[y : y + side, x : x + side]
        if options.flip and rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if options.jitter:
            gain, shift = 1 + options.jitter * rng.uniform(-1, 1), 128 * options.jitter * rng.uniform(-1, 1)
            image = np.clip((image.astype(np.float32) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
        return image, labels
