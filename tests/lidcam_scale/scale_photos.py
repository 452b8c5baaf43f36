"""Made pictures, good and bad."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import artifacts
import numpy as np
from PIL import Image


def make_photos(folder: Path, count: int) -> Path:
    """Pictures of coloured boxes: every tenth cannot be read, one has a name that is not UTF-8, two have one name."""
    rng = np.random.default_rng(0)
    (folder / "deep").mkdir(parents=True)
    for number in range(count):
        place = folder / "deep" if number % 5 == 1 or number == count - 1 else folder
        path = place / f"{number % (count - 1):04}.png"
        if number % 10 == 3:
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
            continue
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        picture = artifacts.picture(artifacts.CLASSES[number % 4], (x, y, x + 60, y + 30))
        Image.fromarray(picture).save(path)
    if sys.platform == "linux":
        Image.fromarray(artifacts.picture("blue")).save(os.fsencode(folder) + b"/caf\xe9.png", "png")
    return folder
