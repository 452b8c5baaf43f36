"""500 photographs and EfficientNet-Lite0, killed half-way and resumed, on every executor that is installed.

The same with made pictures and a made artifact, which always runs, is in test_kills, test_on_ray and test_on_spark.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from scale_tables import plain_run, rows_of
from test_kills import finished, start, until_parts

from lidcam_scale.listing import list_pictures

PHOTOS = Path(
    os.environ.get("LIDCAM_IMAGENET_SAMPLE", Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.hostile,
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photos: set LIDCAM_IMAGENET_SAMPLE to their folder"),
]


@pytest.fixture(scope="module")
def network(request) -> Path:
    """The artifact that LIDCAM_LITE0 names, or one that is exported."""
    if path := os.environ.get("LIDCAM_LITE0"):
        return Path(path)
    pytest.importorskip("torch", reason="extra export is not installed, and LIDCAM_LITE0 names no artifact")
    return request.getfixturevalue("lite0")


@pytest.fixture(scope="module")
def plain(network):
    return plain_run(network, list_pictures([str(PHOTOS)]))


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        (("--processes", "2"), "pyarrow"),
        (("--ray", "local", "--workers", "2"), "ray"),
        (("--spark", "local[2]"), "pyspark"),
    ],
    ids=["processes", "ray", "spark"],
)
def test_killed_half_way_and_resumed(network, plain, tmp_path, options, needs):
    if not find_spec(needs) or (needs == "pyspark" and shutil.which("java") is None):
        pytest.skip(f"{needs} is not installed, or no Java")
    out = tmp_path / "out"
    command = start(network, PHOTOS, out, *options)
    until_parts(command, out, 32)  # of 63
    command.kill()
    command.wait()
    assert not (out / "_SUCCESS").exists() and finished(out) < 63
    assert start(network, PHOTOS, out, *options).wait() == 0
    assert rows_of(out) == plain
