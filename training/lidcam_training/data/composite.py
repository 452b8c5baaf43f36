"""Data sets that are made: objects pasted on photographs, with exact masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import OutputError
from lidcam_rt.files import replacing

__all__ = ["Composite", "paste", "photo_crop", "write_composites", "write_set"]


class _Made(Protocol):
    """Anything with a picture, uint8 [H, W, 3]."""

    @property
    def image(self) -> npt.NDArray[np.uint8]: ...


_M = TypeVar("_M", bound=_Made)


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
    place: np.random.Generator | tuple[int, int],
) -> Composite:
    """Paste an object at a place, or at a random one, wholly inside; the mask is exactly the changed region."""
    height, width = mask.shape
    if isinstance(place, tuple):
        y, x = place
    else:
        y = int(place.integers(0, background.shape[0] - height + 1))
        x = int(place.integers(0, background.shape[1] - width + 1))
    image = background.copy()
    image[y : y + height, x : x + width][mask] = colour[mask]
    whole = np.zeros(background.shape[:2], bool)
    whole[y : y + height, x : x + width] = mask
    return Composite(image, whole, label)


def write_composites(
    folder: Path, name: str, class_names: tuple[str, ...], seed: int, splits: Mapping[str, Iterable[Composite]]
) -> None:
    """Write a data set with a class and a mask per picture, see `write_set`."""

    def write_mask(composite: Composite, file: Path) -> tuple[int]:
        Image.fromarray(composite.mask.astype(np.uint8) * 255).save(file)
        return (composite.label,)

    write_set(folder, name, class_names, seed, splits, truth=("masks", write_mask), columns=("label",))


def write_set(
    folder: Path,
    name: str,
    class_names: tuple[str, ...],
    seed: int,
    splits: Mapping[str, Iterable[_M]],
    *,
    truth: tuple[str, Callable[[_M, Path], Iterable[object]]],
    columns: tuple[str, ...],
) -> None:
    """Write a data set; the folder appears when it is complete.

    Args:
        folder: where; must be empty or new.
        name: of the data set.
        class_names: in the order of the class indices.
        seed: that it was made with.
        splits: pictures of each split.
        truth: folder for ground truth beside the pictures, and a function that writes one picture's to a
            file and returns its row of SPLIT.csv.
        columns: of SPLIT.csv, after the file's name.

    Raises:
        OutputError: the folder is there and not empty, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty: give a new folder, or remove it first")
    inside, write_truth = truth
    with replacing(folder) as temporary:
        temporary.mkdir()
        for split, pictures in splits.items():
            (temporary / split / inside).mkdir(parents=True)
            with (temporary / f"{split}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(("file", *columns))
                for index, made in enumerate(pictures):
                    png = f"{index:06d}.png"
                    Image.fromarray(made.image).save(temporary / split / png, compress_level=1)
                    table.writerow((png, *write_truth(made, temporary / split / inside / png)))
        record = {"name": name, "seed": seed, "class_names": class_names}
        (temporary / "dataset.json").write_text(json.dumps(record, indent=1))
