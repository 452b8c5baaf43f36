"""`crest`: the class is a garment and a small mark on it: a small part decides it, while the object is the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import DataError
from lidcam_training.data.clutter import FASHION_CLASSES, tinted_garment
from lidcam_training.data.composite import paste, photo_crop, write_set
from lidcam_training.data.sources import background_photos, fashion_split, split_photos

__all__ = ["CREST_CLASSES", "MARKS", "make_crest", "mark_shape"]

_GARMENTS = ("t-shirt", "trouser", "dress", "bag", "boot")
MARKS = ("ring", "plus", "stripes")
CREST_CLASSES = tuple(f"{garment} with {mark}" for garment in _GARMENTS for mark in MARKS)
_MARK_SHARE = 0.24  # of the garment's side
_LEAST_MARK = 6  # pixels
_CONTRAST = 70.0  # grey levels between the means of mark and garment


@dataclass(frozen=True, eq=False)
class _Crest:
    """A made picture: uint8 [H, W, 3], the masks of garment and mark, bool [H, W], and the class index."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    mark: npt.NDArray[np.bool_]
    label: int


def mark_shape(mark: str, side: int) -> npt.NDArray[np.bool_]:
    """The pixels of a mark, bool [side, side]: `ring`, `plus` or `stripes`."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    if mark == "ring":
        radius = np.hypot(y, x)
        return np.asarray((radius <= side / 2) & (radius > side / 4))
    if mark == "plus":
        return np.asarray((abs(y) <= side / 6) | (abs(x) <= side / 6))
    return np.asarray(np.broadcast_to(np.arange(side)[:, None] * 6 // side % 2 == 0, (side, side)))


def _places(mask: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.intp]:
    """Upper left corners, [n, 2], of all squares of a side that lie in the mask."""
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    full = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side] == side * side
    return np.argwhere(full)


def _mark_colour(mean: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    while True:
        colour = rng.integers(0, 256, 3)
        if abs(float(colour.mean()) - mean) >= _CONTRAST:
            return colour.astype(np.uint8)


def _crests(
    garments: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.intp],
    photos: list[npt.NDArray[np.uint8]],
    count: int,
    rng: np.random.Generator,
    size: int,
) -> Iterator[_Crest]:
    made = 0
    for picture, garment in zip(garments, labels, strict=True):
        if made == count:
            return
        side = int(rng.integers(size * 7 // 16, size * 25 // 32 + 1))
        colour, mask = tinted_garment(picture, side, rng)
        mark_side = max(_LEAST_MARK, round(_MARK_SHARE * side))
        places = _places(mask, mark_side)
        if not len(places):  # trousers whose legs are too thin for the mark
            continue
        kind = int(rng.integers(len(MARKS)))
        y, x = places[int(rng.integers(len(places)))]
        mark = np.zeros_like(mask)
        mark[y : y + mark_side, x : x + mark_side] = mark_shape(MARKS[kind], mark_side)
        colour = np.ascontiguousarray(colour)
        colour[mark] = _mark_colour(float(colour[mask].mean()), rng)
        background = photo_crop(photos[int(rng.integers(len(photos)))], size, rng)
        label = int(garment) * len(MARKS) + kind
        place = int(rng.integers(size - side + 1)), int(rng.integers(size - side + 1))
        whole = paste(background, colour, mask, label, place)
        on_picture = np.zeros_like(whole.mask)
        on_picture[place[0] : place[0] + side, place[1] : place[1] + side] = mark
        made += 1
        yield _Crest(whole.image, whole.mask, on_picture, label)
    if made < count:
        raise DataError(f"crest: {count} pictures were requested, but the garments are enough for {made} only")


def make_crest(
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
    """Make the data set: 15 classes, five garments times three marks; masks of the garment, and `marks` beside them.

    The garment has 7/16 to 25/32 of the picture's side, the mark 0.24 of the garment's (at least 6 pixels), lies
    wholly inside it, and has one colour whose mean differs from the garment's by at least 70. Garments and
    photographs of train, val and test are disjoint.

    Args:
        folder: where; must be empty or new.
        seed: the same seed gives the same files.
        train: pictures for training, from the 60,000 training garments.
        val: pictures for choosing settings, from the first half of the 10,000 test garments.
        test: pictures for scores, from the second half.
        size: pixels, square.
        source: folder with the IDX files, see `fashion_mnist`.
        backgrounds: folder of photos, see `background_photos`; every fifth goes to val, every fifth to test.

    Raises:
        DataError: too few garments for the pictures requested.
    """
    places = split_photos(background_photos(backgrounds))
    wanted = [FASHION_CLASSES.index(name) for name in _GARMENTS]
    splits = {}
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        rng = np.random.default_rng((seed, number))
        garments, labels = fashion_split(split, source)
        chosen = rng.permutation(np.flatnonzero(np.isin(labels, wanted)))
        groups = np.array([wanted.index(int(label)) for label in labels[chosen]], np.intp)
        splits[split] = _crests(garments[chosen], groups, places[split], count, rng, size)

    def write_masks(crest: _Crest, file: Path) -> tuple[int]:
        Image.fromarray(crest.mask.astype(np.uint8) * 255).save(file)
        marks = file.parent.parent / "marks"
        marks.mkdir(exist_ok=True)
        Image.fromarray(crest.mark.astype(np.uint8) * 255).save(marks / file.name)
        return (crest.label,)

    write_set(folder, "crest", CREST_CLASSES, seed, splits, truth=("masks", write_masks), columns=("label",))
