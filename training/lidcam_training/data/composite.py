"""Data sets that are made: objects pasted on photographs, with exact masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import OutputError
from lidcam_rt.files import replacing

__all__ = ["Composite", "paste", "photo_crop", "write_composites"]


@dataclass(frozen=True, eq=False)
class Composite:
    """A made picture: uint8 [H, W, 3], bool [H, W], and the class index."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    label: int


def photo_crop(photo: npt.NDArray[np.uint8], size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A random square crop of a photo, one to four times `size` wide, flipped at random, resized to `size`."""
    short = min(photo.shape[:2])
    side = int(rng.integers(min(size, short), min(4 * size, short) + 1))
    y = int(rng.integers(0, photo.shape[0] - side + 1))
    x = int(rng.integers(0, photo.shape[1] - side + 1))
    crop = photo[y : y + side, x : x + side]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BILINEAR)
    )


def paste(
    background: npt.NDArray[np.uint8],
    colour: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_],
    label: int,
    rng: np.random.Generator,
) -> Composite:
    """Paste an object at a random place, wholly inside; the mask is exactly the changed region."""
    height, width = mask.shape
    y = int(rng.integers(0, background.shape[0] - height + 1))
    x = int(rng.integers(0, background.shape[1] - width + 1))
    image = background.copy()
    image[y : y + height, x : x + width][mask] = colour[mask]
    whole = np.zeros(background.shape[:2], bool)
    whole[y : y + height, x : x + width] = mask
    return Composite(image, whole, label)


def write_composites(
    folder: Path, name: str, class_names: tuple[str, ...], seed: int, splits: Mapping[str, Iterable[Composite]]
) -> None:
    """Write a data set; the folder appears when it is complete.

    Raises:
        OutputError: the folder is there and not empty, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty: give a new folder, or remove it first")
    with replacing(folder) as temporary:
        temporary.mkdir()
        for split, composites in splits.items():
            (temporary / split / "masks").mkdir(parents=True)
            with (temporary / f"{split}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(("file", "label"))
                for index, composite in enumerate(composites):
                    Image.fromarray(composite.image).save(
                        temporary / split / f"{index:06d}.png", compress_level=1
                    )
                    mask = Image.fromarray(composite.mask.astype(np.uint8) * 255)
                    mask.save(temporary / split / "masks" / f"{index:06d}.png")
                    table.writerow((f"{index:06d}.png", composite.label))
        record = {"name": name, "seed": seed, "class_names": class_names}
        (temporary / "dataset.json").write_text(json.dumps(record, indent=1))
