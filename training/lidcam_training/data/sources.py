"""Where the objects and backgrounds of the made data sets come from: packages, or the user's folders."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import DataError
from lidcam_rt.files import read_file

__all__ = ["background_photos", "fashion_mnist", "fashion_split", "installed_folder", "read_idx", "split_photos"]

#: photographs among scikit-image's files (the rest are drawings, microscopy or grey)
_PHOTOS = (
    "coffee.png",
    "astronaut.png",
    "chelsea.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "camera.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "coins.png",
)


def cache_folder() -> Path:
    """Where downloads are kept: $LIDCAM_CACHE, else ~/.cache/lidcam."""
    return Path(os.environ.get("LIDCAM_CACHE", "~/.cache/lidcam")).expanduser()


def installed_folder(package: str, inside: str, option: str) -> Path:
    """The folder of an installed Debian package.

    Args:
        package: for example `mate-backgrounds`.
        inside: the folder, for example `/usr/share/backgrounds/mate`.
        option: of `lidcam data make`, which names another folder.

    Raises:
        DataError: it is not installed.
    """
    folder = Path(inside)
    if not folder.is_dir():
        raise DataError(
            f"{package} is not installed here ({folder} does not exist). Install it (apt-get install {package}), or "
            f"unpack it without installing (apt-get download {package} && dpkg -x {package}_*.deb DIR) and give "
            f"{option} DIR{folder}, or give a folder of your own"
        )
    return folder


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes, gzipped or not (the format of MNIST).

    Raises:
        DataError: missing or damaged.
    """
    try:
        raw = gzip.decompress(read_file(path)) if path.suffix == ".gz" else read_file(path)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an IDX file of bytes")
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", dimensions, 4).astype(int)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
    if data.size != shape.prod():
        raise DataError(f"{path} is cut short: {data.size} values for shape {tuple(shape)}")
    return data.reshape(shape)


def fashion_mnist(
    split: str, source: Path | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Fashion-MNIST (Xiao et al. 2017; MIT licence).

    Args:
        split: `train` (60,000) or `test` (10,000).
        source: folder with the four IDX files; by default the installed Debian package dataset-fashion-mnist, or
            torchvision's download.

    Returns:
        uint8 [n, 28, 28] and labels uint8 [n].
    """
    stem = "train" if split == "train" else "t10k"
    installed = Path("/usr/share/datasets/fashion-mnist")
    if source is None and installed.is_dir():
        source = installed
    elif source is None:
        from torchvision.datasets import FashionMNIST

        try:
            FashionMNIST(str(cache_folder()), download=True)
        except Exception as error:  # from urllib, ssl, or torchvision
            raise DataError(
                f"Fashion-MNIST cannot be downloaded ({error}): give the folder with its four IDX files with --source"
            ) from None
        source = cache_folder() / "FashionMNIST" / "raw"
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        found = [p for p in (source / f"{stem}-{kind}.gz", source / f"{stem}-{kind}") if p.exists()]
        if not found:
            raise DataError(
                f"{source}/{stem}-{kind}.gz is missing: give the folder with Fashion-MNIST's IDX files"
            )
        arrays.append(read_idx(found[0]))
    return arrays[0], arrays[1]


def fashion_split(
    split: str, source: Path | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Garments of a split that share none: the 60,000 for training (`train`), the halves of the others (`val`, `test`).

    Args:
        split: train, val or test.
        source: as for `fashion_mnist`, which documents what is returned.
    """
    garments, labels = fashion_mnist("train" if split == "train" else "test", source)
    half = len(labels) // 2
    part = {"train": slice(None), "val": slice(half), "test": slice(half, None)}[split]
    return garments[part], labels[part]


def background_photos(folder: Path | None = None, limit: int = 640) -> list[npt.NDArray[np.uint8]]:
    """Photographs, in a fixed order, uint8 [h, w, 3] with a short side of at most `limit`.

    Args:
        folder: of the user's photos; by default those shipped by scikit-image and the installed Debian package
            mate-backgrounds.
        limit: longer ones are shrunk.

    Raises:
        DataError: fewer than four photos.
    """
    if folder is not None:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    else:
        import skimage

        shipped = Path(skimage.__file__).parent / "data"
        files = [shipped / name for name in _PHOTOS if (shipped / name).exists()]
        mate = installed_folder("mate-backgrounds", "/usr/share/backgrounds/mate", "--backgrounds")
        files += sorted((mate / "nature").glob("*.jpg"))
    photos = []
    for file in files:
        with Image.open(file) as image:
            image.draft("RGB", (2 * limit, 2 * limit))
            rgb = image.convert("RGB")
        scale = limit / min(rgb.size)
        if scale < 1:
            size = (round(rgb.width * scale), round(rgb.height * scale))
            rgb = rgb.resize(size, Image.Resampling.BILINEAR)
        photos.append(np.asarray(rgb))
    if len(photos) < 4:
        raise DataError(f"{folder or 'packages'}: {len(photos)} photos; at least 4 are needed to split them")
    return photos


def split_photos(photos: list[npt.NDArray[np.uint8]]) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """Photographs of train, val and test: three, one and one of every five; of fewer than five at least one each."""
    if len(photos) < 5:
        return {"train": photos[:2], "val": photos[2:3], "test": photos[3:4]}
    return {
        "train": [photo for index, photo in enumerate(photos) if index % 5 < 3],
        "val": photos[3::5],
        "test": photos[4::5],
    }
