"""The artifact and the results of an earlier version: what it wrote still loads, and gives the same results.

recorded/ holds an artifact, eight pictures, and what `localize`, `eval` and `submit` wrote for them at commit 63d67d5,
before the packages moved (made data, 150 kB). Keys may be added to a results.json; none may go or change.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # not in make quick

RECORDED = Path(__file__).parent / "recorded"
VERBS = {
    "localize": ["localize", "model.onnx", "data/images", "-o", "localize", "--map", "--no-overlay"],
    "refined": ["localize", "model.onnx", "data/images", "-o", "refined", "--refine", "psa", "--no-overlay"],
    "eval": ["eval", "model.onnx", "--data", "data", "-o", "eval", "--metrics", "track3,wsol,track1"],
    "track3": ["submit", "data/images", "-o", "track3.zip", "--model", "model.onnx"],
    "track1": ["submit", "data/images", "-o", "track1.zip", "--model", "model.onnx", "--track", "1"],
}


@pytest.fixture(scope="module")
def now(tmp_path_factory) -> Path:
    """The same commands today, in a folder of their own."""
    place = tmp_path_factory.mktemp("now")
    shutil.copytree(RECORDED / "data", place / "data")
    shutil.copy(RECORDED / "model.onnx", place)
    command = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]
    for verb in VERBS.values():
        done = subprocess.run([*command, *verb], cwd=place, capture_output=True, text=True, timeout=300, env=os.environ)
        assert done.returncode == 0, done.stderr
    return place


def pixels(data: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def exact(now) -> bool:
    """Whether ONNX Runtime's sums round here as they did on the processor of the record; then all else is equal."""
    maps = sorted(path.name for path in (RECORDED / "localize").glob("*_map.png"))
    assert len(maps) == 8
    pairs = [(pixels(RECORDED / "localize" / name), pixels(now / "localize" / name)) for name in maps]
    for recorded, today in pairs:
        alike(recorded, today, False)
    return all(np.array_equal(*pair) for pair in pairs)


def alike(recorded: np.ndarray, today: np.ndarray, exact: bool, apart: int = 1) -> None:
    """The same pixels; where sums round otherwise, up to 0.5% of them by `apart`."""
    assert recorded.shape == today.shape
    difference = np.abs(recorded - today)
    assert not difference.any() if exact else difference.max() <= apart and np.mean(difference != 0) <= 0.005


def holds(recorded, today, exact: bool, where: str = "") -> None:
    """Whatever stands in the record stands here too, at the same place."""
    if isinstance(recorded, dict):
        assert recorded.keys() <= today.keys(), where
        for key, value in recorded.items():
            holds(value, today[key], exact, f"{where}/{key}")
    elif isinstance(recorded, list):
        assert len(recorded) == len(today), where
        for index, (value, other) in enumerate(zip(recorded, today, strict=True)):
            holds(value, other, exact, f"{where}/{index}")
    elif isinstance(recorded, int | float) and not isinstance(recorded, bool):
        near = {"rel": 1e-6, "abs": 1e-6} if exact else {"rel": 0.01, "abs": 1.0 if "box" in where else 0.01}
        assert today == pytest.approx(recorded, **near), where
    else:
        assert today == recorded, where


@pytest.mark.parametrize("run", ["localize", "refined"])
def test_localize(now, exact, run):
    recorded = json.loads((RECORDED / run / "results.json").read_text())
    recorded["overlay"] = False
    for row in recorded["results"]:
        row["files"].pop("overlay", None)
    for key in ("backend", "lidcam_rt"):
        recorded.pop(key)
    holds(recorded, json.loads((now / run / "results.json").read_text()), exact)
    masks = sorted(path.name for path in (RECORDED / run).glob("*_mask.png"))
    assert len(masks) == 8
    for name in masks:
        alike(pixels(RECORDED / run / name), pixels(now / run / name), exact, 255)


def test_eval(now, exact):
    holds(
        json.loads((RECORDED / "eval" / "rows.json").read_text()),
        json.loads((now / "eval" / "results.json").read_text())["rows"],
        exact,
    )
    recorded, today = (
        list(csv.DictReader(io.StringIO((place / "eval" / "images.csv").read_text()))) for place in (RECORDED, now)
    )
    if exact:
        assert recorded == today
    assert [(row["file"], row["class"], row["top1_loc"]) for row in recorded] == [
        (row["file"], row["class"], row["top1_loc"]) for row in today
    ]


@pytest.mark.parametrize(("track", "apart"), [("track3", 1), ("track1", 255)])
def test_submit(now, exact, track, apart):
    with zipfile.ZipFile(RECORDED / f"{track}.zip") as recorded, zipfile.ZipFile(now / f"{track}.zip") as today:
        assert recorded.namelist() == today.namelist() and len(recorded.namelist()) == 8
        for name in recorded.namelist():
            alike(pixels(recorded.read(name)), pixels(today.read(name)), exact, apart)
