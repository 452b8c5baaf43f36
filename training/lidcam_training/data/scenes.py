"""`scenes`: photographs with one to four objects of several classes, and exact label maps (LID 2020 Track 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_dilation, binary_fill_holes

from lidcam_training.data.clutter import FASHION_CLASSES
from lidcam_training.data.composite import photo_crop, write_set
from lidcam_training.data.label_png import label_png
from lidcam_training.data.sources import background_photos, fashion_split, installed_folder, split_photos
from lidcam_training.data.stamps import STAMP_CLASSES, cut_out, stamp_files

__all__ = ["Scene", "compose_scene", "make_scenes", "make_stamp_scenes"]

#: Longest side of an object, in shares of the picture's side.
SIZES = (0.08, 0.60)
#: Objects per picture.
COUNT = (1, 4)
#: An object is placed where every object below it keeps this share of its pixels in sight.
_VISIBLE = 0.5
_TRIES = 12
#: A class with fewer visible pixels is neither present nor absent: its label is unknown.
_FEW = 12
_BORDER = 255

Colour = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
#: (longest side in pixels, generator) to colours uint8 [h, w, 3], mask bool [h, w] and class index.
Draw = Callable[[int, np.random.Generator], tuple[Colour, Mask, int]]


@dataclass(frozen=True, eq=False)
class Scene:
    """A made picture.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        labels: uint8 [H, W]: class index + 1, 0 background, 255 on the pixels around each object.
        present: classes that are visible.
        unknown: classes with too few visible pixels to call them present or absent.
    """

    image: Colour
    labels: npt.NDArray[np.uint8]
    present: tuple[int, ...]
    unknown: tuple[int, ...]


def compose_scene(background: Colour, draw: Draw, rng: np.random.Generator) -> Scene:
    """Paste one to four objects on a photograph, later ones over earlier ones, each wholly inside.

    Args:
        background: uint8 [S, S, 3]; stays as it is.
        draw: makes an object.
        rng: of the picture.
    """
    side = background.shape[0]
    image, owner = background.copy(), np.full((side, side), -1, np.int16)
    border = np.zeros((side, side), bool)
    classes: list[int] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(COUNT[0], COUNT[1] + 1))):
        number = len(areas)
        # log-uniform: as many objects of 10 to 20 % as of 20 to 40 %
        share = float(np.exp(rng.uniform(*np.log(SIZES))))
        colour, mask, label = draw(max(4, round(share * side)), rng)
        height, width = mask.shape
        for _attempt in range(_TRIES):
            y, x = int(rng.integers(0, side - height + 1)), int(rng.integers(0, side - width + 1))
            place = np.s_[y : y + height, x : x + width]
            left = owner.copy()
            left[place][mask] = number
            if all(np.count_nonzero(left == i) >= _VISIBLE * area for i, area in enumerate(areas)):
                break
        else:
            continue
        image[place][mask] = colour[mask]
        whole = left == number
        border = (border & ~whole) | (binary_dilation(whole) & ~whole)
        owner = left
        classes.append(label)
        areas.append(int(mask.sum()))
    labels = np.array([*(c + 1 for c in classes), 0], np.uint8)[owner]
    labels[border] = _BORDER
    pixels = {label: int(np.count_nonzero(labels == label + 1)) for label in sorted(set(classes))}
    return Scene(
        image,
        labels,
        tuple(label for label, count in pixels.items() if count >= _FEW),
        tuple(label for label, count in pixels.items() if count < _FEW),
    )


def _texture(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Plain, stripes, checks, dots or grain: float [height, width, 1] of 0 to 1, the share of the second colour."""
    kind = int(rng.integers(5))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    if kind == 0:
        out = np.zeros((height, width))
    elif kind == 4:
        coarse = rng.random((max(2, height // 3), max(2, width // 3)))
        out = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    else:
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 8)
        first = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        second = np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period)
        out = (first > 0) if kind == 1 else (first * second > 0) if kind == 2 else (first + second > 1)
    return np.asarray(out, np.float64)[..., None]


def _garments(pictures: Colour, labels: npt.NDArray[np.uint8]) -> Draw:
    """Garments in two random tints with a texture, mirrored at random."""

    def draw(longest: int, rng: np.random.Generator) -> tuple[Colour, Mask, int]:
        index = int(rng.integers(len(pictures)))
        solid = binary_fill_holes(pictures[index] > 12)
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows.size else np.s_[:, :]
        grey, solid = pictures[index][box], solid[box]
        scale = longest / max(grey.shape)
        size = (max(2, round(grey.shape[1] * scale)), max(2, round(grey.shape[0] * scale)))
        resample = Image.Resampling.BILINEAR
        mask = np.asarray(Image.fromarray(solid.astype(np.uint8) * 255).resize(size, resample)) > 127
        light = np.asarray(Image.fromarray(grey).resize(size, resample))[..., None] / 255.0
        tints = rng.uniform(40, 255, (2, 3))
        share = _texture(size[1], size[0], rng)
        colour = ((0.35 + 0.65 * light) * (tints[0] * (1 - share) + tints[1] * share)).astype(np.uint8)
        if rng.random() < 0.5:
            colour, mask = colour[:, ::-1], mask[:, ::-1]
        return colour, mask, int(labels[index])

    return draw


def _stamps(files: Sequence[tuple[Path, int]]) -> Draw:
    def draw(longest: int, rng: np.random.Generator) -> tuple[Colour, Mask, int]:
        while True:
            file, label = files[int(rng.integers(len(files)))]
            cut = cut_out(file, longest, rng)
            if cut is not None and cut[1].any():
                return *cut, label

    return draw


def _scenes(
    draw: Draw, photos: Sequence[Colour], count: int, seed: tuple[int, int], size: int
) -> Iterator[Scene]:
    for index in range(count):
        rng = np.random.default_rng((*seed, index))
        yield compose_scene(photo_crop(photos[int(rng.integers(len(photos)))], size, rng), draw, rng)


def make_scenes(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 2000,
    val: int = 300,
    test: int = 500,
    size: int = 128,
    source: Path | None = None,
    backgrounds: Path | None = None,
) -> None:
    """Make the main form: tinted and textured garments of Fashion-MNIST, 10 classes.

    Garments and photographs of train, val and test are disjoint.

    Args:
        folder: where; must be empty or new.
        seed: the same seed gives the same files.
        train: pictures for training, from the 60,000 training garments.
        val: pictures for choosing settings, from the first half of the 10,000 test garments.
        test: pictures for scores, from the second half.
        size: pixels, square.
        source: folder with the IDX files, see `fashion_mnist`.
        backgrounds: folder of photos, see `background_photos`.

    Raises:
        DataError: a source is missing.
        OutputError: the folder is not empty or cannot be written.
    """
    photos = split_photos(background_photos(backgrounds))
    splits = {}
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        garments = _garments(*fashion_split(split, source))
        splits[split] = _scenes(garments, photos[split], count, (seed, number), size)
    _write(folder, "scenes", FASHION_CLASSES, seed, splits)


def make_stamp_scenes(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 700,
    val: int = 100,
    test: int = 200,
    size: int = 128,
    source: Path | None = None,
    backgrounds: Path | None = None,
) -> None:
    """Make the second form: photographic cut-outs, a smoke test (13 to 71 per class are too few to generalise).

    Args:
        folder: where; must be empty or new.
        seed: the same seed gives the same files.
        train: pictures for training.
        val: pictures for choosing settings.
        test: pictures for scores.
        size: pixels, square.
        source: folder `stamps` of Debian's tuxpaint-stamps-default.
        backgrounds: folder of photos, see `background_photos`.

    Raises:
        DataError: a source is missing, or a class has fewer than five cut-outs.
        OutputError: the folder is not empty or cannot be written.
    """
    source = source or installed_folder("tuxpaint-stamps-default", "/usr/share/tuxpaint/stamps", "--source")
    photos, files = split_photos(background_photos(backgrounds)), stamp_files(source)
    splits = {
        split: _scenes(_stamps(files[split]), photos[split], count, (seed, number), size)
        for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items())
    }
    _write(folder, "scenes-stamps", tuple(STAMP_CLASSES), seed, splits)


def _write(
    folder: Path, name: str, class_names: tuple[str, ...], seed: int, splits: Mapping[str, Iterator[Scene]]
) -> None:
    def write_labels(scene: Scene, file: Path) -> tuple[str, str]:
        file.write_bytes(label_png(scene.labels))
        return " ".join(map(str, scene.present)), " ".join(map(str, scene.unknown))

    truth = ("labels", write_labels)
    write_set(folder, name, class_names, seed, splits, truth=truth, columns=("labels", "unknown"))
