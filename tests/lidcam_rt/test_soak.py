from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import artifacts
import pytest
from PIL import Image

#: In a process of its own: what earlier tests left with the allocator would blur the measurement.
_RUN = """
import gc, itertools, json, sys
import lidcam_rt

def resident_mb():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

model, *paths = sys.argv[1:]
with lidcam_rt.load(model) as localizer:
    def run(count):
        pictures = itertools.islice(itertools.cycle(paths), count)
        for result in localizer.stream(pictures):
            del result
        gc.collect()
        return resident_mb()

    print(json.dumps([run(400), run(1600)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow(model, tmp_path):
    """The short form of benchmarks/suites/soak.py: pictures of several sizes, readable or not."""
    paths = []
    for i, size in enumerate([(160, 96), (640, 480), (97, 301), (1200, 800)]):
        paths.append(tmp_path / f"{i}.jpg")
        Image.fromarray(artifacts.picture("red", (10, 10, 80, 70), size)).save(paths[-1])
    paths.append(tmp_path / "none.jpg")
    command = [sys.executable, "-c", _RUN, str(model), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    # A picture of 1200x800 with map and mask is 4.8 MB: one kept in a hundred would show.
    assert after - before < 20
