"""docs/runtime.md: a localization takes up to 21 bytes of memory per pixel of the picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from artifacts import manifest
from PIL import Image

from lidcam_rt.image import network_input

pytestmark = pytest.mark.slow  # not in make quick

_PATH = Path(__file__).parents[3] / "benchmarks" / "suites" / "memory.py"
_SPEC = importlib.util.spec_from_file_location("memory", _PATH)
memory = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(memory)


@pytest.mark.parametrize(
    "form", ["JPEG", "PNG RGBA", "PNG transparent palette", "WEBP RGBA", "TIFF turned", "one column", "one row"]
)
def test_bytes_per_pixel(model, form):
    assert memory.run(model, form, 16) <= 21


@pytest.mark.parametrize("shape", [(200_000, 1), (1, 200_000), (70_000, 8), (9, 66_000), (131_071, 3)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_long_pictures_are_shrunk_as_pillow_does(shape, interpolation):
    """In two steps, which round once more."""
    rng = np.random.default_rng(1)
    rough = rng.integers(0, 256, (min(shape[0], 40), min(shape[1], 40), 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize(shape[::-1], Image.Resampling.BICUBIC))
    spec = manifest(size=(48, 32)).input.model_copy(update={"interpolation": interpolation})
    how = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    expected = np.asarray(Image.fromarray(picture).resize((32, 48), how))
    assert np.abs(network_input(picture, spec).astype(int) - expected).max() <= 2
