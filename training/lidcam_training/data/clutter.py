"""`clutter-fashion`: Fashion-MNIST garments, tinted, pasted on crops of photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_fill_holes

from lidcam_training.data.composite import Composite, paste, photo_crop, write_composites
from lidcam_training.data.sources import background_photos, fashion_split, split_photos

__all__ = ["FASHION_CLASSES", "make_clutter_fashion", "tinted_garment"]

FASHION_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)


def tinted_garment(
    picture: npt.NDArray[np.uint8], size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """A garment in one random tint at `size` pixels: uint8 [s, s, 3] and its exact mask."""
    solid = Image.fromarray(binary_fill_holes(picture > 12).astype(np.uint8) * 255)
    mask = np.asarray(solid.resize((size, size), Image.Resampling.BILINEAR)) > 127
    light = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)) / 255.0
    tint = rng.uniform(60, 255, 3)
    colour = (0.25 + 0.75 * light[..., None]) * tint
    if rng.random() < 0.5:
        colour, mask = colour[:, ::-1], mask[:, ::-1]
    return colour.astype(np.uint8), mask


def _composites(
    garments: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    photos: list[npt.NDArray[np.uint8]],
    rng: np.random.Generator,
    size: int,
) -> Iterator[Composite]:
    for picture, label in zip(garments, labels, strict=True):
        background = photo_crop(photos[int(rng.integers(len(photos)))], size, rng)
        colour, mask = tinted_garment(picture, int(rng.integers(size * 3 // 8, size * 11 // 16 + 1)), rng)
        yield paste(background, colour, mask, int(label), rng)


def make_clutter_fashion(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 6000,
    val: int = 500,
    test: int = 1000,
    size: int = 64,
    source: Path | None = None,
    backgrounds: Path | None = None,
) -> None:
    """Make the data set. Garments and photographs of train, val and test are disjoint.

    Args:
        folder: where; must be empty or new.
        seed: the same seed gives the same files.
        train: pictures for training, from the 60,000 training garments.
        val: pictures for choosing thresholds, from the first half of the 10,000 test garments.
        test: pictures for scores, from the second half.
        size: pixels, square.
        source: folder with the IDX files, see `fashion_mnist`.
        backgrounds: folder of photos, see `background_photos`; every fifth goes to val, every fifth to test.
    """
    places = split_photos(background_photos(backgrounds))
    splits = {}
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        rng = np.random.default_rng((seed, number))
        garments, labels = fashion_split(split, source)
        chosen = rng.permutation(len(labels))[:count]
        splits[split] = _composites(garments[chosen], labels[chosen], places[split], rng, size)
    write_composites(folder, "clutter-fashion", FASHION_CLASSES, seed, splits)
