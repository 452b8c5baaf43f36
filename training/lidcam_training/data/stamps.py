"""`stamps`: photo cut-outs with alpha (Debian tuxpaint-stamps-default, GPL-2) pasted on photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import DataError
from lidcam_training.data.composite import Composite, paste, photo_crop, write_composites
from lidcam_training.data.sources import background_photos, installed_folder

__all__ = ["STAMP_CLASSES", "cut_out", "make_stamps", "stamp_files"]

#: class name: folders of the package; each class has at least 12 cut-outs
STAMP_CLASSES = {
    "mammal": ("animals/mammals", "animals/marsupials"),
    "bird": ("animals/birds",),
    "insect": ("animals/insects",),
    "fish": ("animals/fish", "animals/shellfish"),
    "fruit": ("food/fruit",),
    "vegetable": ("food/vegetables",),
    "flower": ("plants/flowers",),
    "house": ("town/houses",),
    "vehicle": ("vehicles", "military/vehicles"),
    "tool": ("household/tools",),
}


def cut_out(
    file: Path, longest: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None:
    """A cut-out at a size, mirrored at random: uint8 [h, w, 3] and bool [h, w]; None where nothing is opaque."""
    with Image.open(file) as image:
        stamp = image.convert("RGBA")
    box = stamp.getchannel("A").point(lambda a: 255 if a > 127 else 0).getbbox()
    if box is None:
        return None
    stamp = stamp.crop(box)
    scale = longest / max(stamp.size)
    size = (max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale)))
    pixels = np.asarray(stamp.resize(size, Image.Resampling.BILINEAR))
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    return pixels[..., :3], pixels[..., 3] > 127


def _composites(
    files: list[tuple[Path, int]],
    photos: list[npt.NDArray[np.uint8]],
    count: int,
    rng: np.random.Generator,
    size: int,
) -> Iterator[Composite]:
    made = 0
    while made < count:
        file, label = files[int(rng.integers(len(files)))]
        cut = cut_out(file, int(rng.integers(size * 2 // 5, size * 4 // 5 + 1)), rng)
        if cut is None or cut[1].sum() < 16:
            continue
        made += 1
        yield paste(photo_crop(photos[int(rng.integers(len(photos)))], size, rng), *cut, label, rng)


def stamp_files(source: Path) -> dict[str, list[tuple[Path, int]]]:
    """The cut-outs of each split with their class index: three, one and one of every five of a class.

    Raises:
        DataError: a class has fewer than five.
    """
    files: dict[str, list[tuple[Path, int]]] = {"train": [], "val": [], "test": []}
    for label, (name, folders) in enumerate(STAMP_CLASSES.items()):
        found = sorted(file for inside in folders for file in (source / inside).rglob("*.png"))
        if len(found) < 5:
            raise DataError(
                f"{source}: {len(found)} cut-outs of class {name} in {', '.join(folders)}; 5 are needed"
            )
        for index, file in enumerate(found):
            files["val" if index % 5 == 3 else "test" if index % 5 == 4 else "train"].append((file, label))
    return files


def make_stamps(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 1200,
    val: int = 200,
    test: int = 400,
    size: int = 160,
    source: Path | None = None,
    backgrounds: Path | None = None,
) -> None:
    """Make the data set; cut-outs and photographs of train, val and test are disjoint.

    Args:
        folder: where; must be empty or new.
        seed: the same seed gives the same files.
        train: pictures for training.
        val: pictures for choosing thresholds.
        test: pictures for scores.
        size: pixels, square.
        source: folder `stamps` of the package.
        backgrounds: folder of photos, see `background_photos`.

    Raises:
        DataError: a class has fewer than five cut-outs.
    """
    source = source or installed_folder("tuxpaint-stamps-default", "/usr/share/tuxpaint/stamps", "--source")
    photos = background_photos(backgrounds)
    step = 5 if len(photos) >= 5 else 4
    places = {"val": photos[3::step], "test": photos[4::step] or photos[:1]}
    places["train"] = [p for i, p in enumerate(photos) if i % step < 3 and (step == 5 or i > 0)]
    files = stamp_files(source)
    splits = {
        split: _composites(files[split], places[split], count, np.random.default_rng((seed, number)), size)
        for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items())
    }
    write_composites(folder, "stamps", tuple(STAMP_CLASSES), seed, splits)
