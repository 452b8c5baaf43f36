from __future__ import annotations

import gc
import itertools
from pathlib import Path

import artifacts
import pytest
from PIL import Image


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow(localizer, tmp_path):
    """The short form of benchmarks/suites/soak.py: pictures of several sizes, readable or not."""
    paths = []
    for i, size in enumerate([(160, 96), (640, 480), (97, 301), (1200, 800)]):
        paths.append(tmp_path / f"{i}.jpg")
        Image.fromarray(artifacts.picture("red", (10, 10, 80, 70), size)).save(paths[-1])
    paths.append(tmp_path / "none.jpg")

    def run(count: int) -> None:
        pictures = itertools.islice(itertools.cycle(paths), count)
        for result in localizer.stream(pictures, on_error="yield"):
            del result

    run(400)
    gc.collect()
    before = _resident_mb()
    run(1600)
    gc.collect()
    # A picture of 1200x800 with map and mask is 4.8 MB: one kept in a hundred would show.
    assert _resident_mb() - before < 20
