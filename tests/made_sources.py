"""Stand-ins for the packages that made data sets draw on: ten shapes as garments, noise as photographs."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_idx(file: Path, array: np.ndarray) -> None:
    """A file of Fashion-MNIST's format."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def make(root: Path) -> tuple[Path, Path]:
    """Write garments and photographs below a folder; their two folders."""
    idx, photos = root / "idx", root / "photos"
    idx.mkdir()
    photos.mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("train", 400), ("t10k", 200)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28), np.uint8)
        for index, label in enumerate(labels):
            images[index, 4 : 8 + 2 * label, 4:24] = 200
            images[index, ::2, 10:12] = np.where(images[index, ::2, 10:12] > 0, 90, 0)
        write_idx(idx / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(idx / f"{stem}-labels-idx1-ubyte.gz", labels)
    for index in range(6):
        noise = rng.integers(0, 90, (12, 12, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((200, 150)).save(photos / f"{index}.png")
    return idx, photos


def make_stamps(source: Path) -> Path:
    """Write five cut-outs of each class of stamps, each of a colour of its own (in green); returns `source`."""
    from lidcam_training.data.stamps import STAMP_CLASSES

    for number, (first, *_) in enumerate(STAMP_CLASSES.values()):
        (source / first).mkdir(parents=True)
        for index in range(5):
            stamp = np.zeros((20, 20, 4), np.uint8)
            stamp[4:16, 4:16] = (255, 5 * number + index + 1, 0, 255)
            Image.fromarray(stamp).save(source / first / f"{index}.png")
    return source
