"""Against answers of pydensecrf2 that are kept in fixtures/ (make_fixtures.py says how they were made), so that no
oracle has to be built; and, with LIDCAM_CRF_GRID=1 and pydensecrf2 installed, against it over the whole grid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from crf_cases import CASES, SETTINGS

from lidcam_crf import densecrf
from lidcam_rt.crf import PRESETS, DenseCRF

FIXTURE = Path(__file__).parent / "fixtures" / "pydensecrf2.npz"
MOST = 1e-5


@pytest.fixture(scope="module")
def kept():
    with np.load(FIXTURE) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["about"] = json.loads(bytes(arrays["about"]).decode())
    return arrays


def compare(q, kept, case, steps):
    """Largest difference on the sample, and pixels with another label."""
    expected, labels = kept[f"{case.name}/{steps}/q"], kept[f"{case.name}/{steps}/labels"]
    difference = np.abs(q[:, case.pixels()] - expected).max()
    return difference, np.count_nonzero((q.argmax(0) != labels) & (labels != 255))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_drop_in(kept, case):
    assert case.digest() == kept["about"]["digests"][case.name], "other photos: make the fixtures anew"
    field = case.build(densecrf)
    for steps in case.steps:
        difference, flips = compare(field.inference(steps), kept, case, steps)
        assert difference <= MOST and flips == 0, steps


@pytest.mark.parametrize("case", [c for c in CASES if c.setting in PRESETS and (c.compat, c.normalization) == (
    "potts", 3)], ids=lambda case: case.name)  # fmt: skip
def test_dense_crf(kept, case):
    steps = SETTINGS[case.setting][-1]
    if steps not in case.steps:
        pytest.skip("kept for other numbers of steps")
    q = DenseCRF(case.setting).infer(case.image(), case.unary())
    difference, flips = compare(q.reshape(case.labels, -1), kept, case, steps)
    assert difference <= MOST and flips == 0


def test_fixtures_can_tell(kept):
    """The kept answers hold more than one label, move with the steps, and differ between the presets."""
    for case in CASES:
        for steps in case.steps:
            labels = kept[f"{case.name}/{steps}/labels"]
            assert len(np.unique(labels[labels != 255])) >= 2, case.name
            assert (labels == 255).mean() < 0.01
        if len(case.steps) > 1:
            first, last = (kept[f"{case.name}/{s}/q"] for s in (case.steps[0], case.steps[-1]))
            assert np.abs(first - last).max() > 0.01, case.name
    assert np.abs(kept["two-psa/10/q"] - kept["two-irn/10/q"]).max() > 0.1


# The grid of sizes, labels, presets and steps that the kernel is held to.
GRID = [
    (photo, size, labels, name)
    for photo, size in (("astronaut", (384, 384)), ("coffee", (375, 500)), ("chelsea", (385, 383)))
    for labels in (2, 5, 21, 201)
    for name in PRESETS
]


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("LIDCAM_CRF_GRID") != "1", reason="takes minutes: set LIDCAM_CRF_GRID=1")
@pytest.mark.parametrize(("photo", "size", "labels", "name"), GRID)
def test_grid(photo, size, labels, name):
    oracle = pytest.importorskip("pydensecrf.densecrf")
    import cv2
    from skimage import data

    image = np.ascontiguousarray(cv2.resize(getattr(data, photo)(), size[::-1], interpolation=cv2.INTER_AREA))
    rng = np.random.default_rng(labels)
    coarse = rng.normal(size=(labels, 6, 6)).astype(np.float32) * 2
    logits = np.stack([cv2.resize(c, size[::-1], interpolation=cv2.INTER_CUBIC) for c in coarse])
    p = np.exp(logits - logits.max(0))
    unary = -np.log(np.clip(p / p.sum(0), 1e-5, 1)).astype(np.float32).reshape(labels, -1)
    sxy, weight, wide_sxy, srgb, wide_weight, _ = SETTINGS[name]
    fields = []
    for module in (oracle, densecrf):
        field = module.DenseCRF2D(size[1], size[0], labels)
        field.setUnaryEnergy(np.ascontiguousarray(unary))
        field.addPairwiseGaussian(sxy, weight)
        field.addPairwiseBilateral(wide_sxy, srgb, image, wide_weight)
        fields.append(field)
    q, a, b = fields[0].startInference()
    for step in range(1, 11):
        fields[0].stepInference(q, a, b)
        if step in (1, 5, 10):
            expected, found = np.array(q), fields[1].inference(step)
            assert np.abs(found - expected).max() <= MOST, step
            assert (found.argmax(0) == expected.argmax(0)).all(), step
