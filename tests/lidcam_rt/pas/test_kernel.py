"""The C++ kernel against the reference, bit for bit, and against the released pipeline in OpenCV."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidcam_rt.boxes import largest_box
from lidcam_rt.errors import InputError
from lidcam_rt.pas import PasOptions, pas, pas_reference, resize_reference
from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES

COMBINATIONS = list(itertools.product(MODES, PRECISIONS, WHERES, INTERPOLATIONS))


@st.composite
def cams(draw):
    shape = (1, draw(st.integers(0, 2)), draw(st.integers(1, 96)), draw(st.integers(1, 96)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    cam = rng.standard_normal(shape).astype(np.float32)
    kinds = ["plain", "negative", "smooth", "huge", "largest", "denormal", "nan", "inf", "constant", "ties", "step"]
    kind = draw(st.sampled_from(kinds))
    with np.errstate(over="ignore"):
        if kind == "negative":
            cam = -np.abs(cam) - 1
        elif kind == "smooth":
            slope = np.linspace(-2, draw(st.floats(-2, 2)), cam.shape[3], dtype=np.float32)
            cam = np.exp(-(slope**2)) * np.ones_like(cam)
        elif kind == "huge":
            cam *= np.float32(1e38)
        elif kind == "largest":
            cam = np.where(cam > 0, np.float32(3.4e38), np.float32(-3.4e38))
        elif kind == "denormal":
            cam *= np.float32(1e-42)
        elif kind in ("nan", "inf") and cam.size:
            cam.flat[rng.integers(cam.size)] = float(kind)
        elif kind == "constant":
            cam[...] = draw(st.floats(-(2.0**100), 2.0**100, width=32))
        elif kind == "ties":
            cam = np.round(cam)
        elif kind == "step":
            cam = np.where(cam > 2, np.float32(1), np.float32(0))
    return cam


def same(first, second):
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


SIDES = st.integers(1, 130) | st.integers(1, 1024)


@settings(deadline=None, max_examples=400)
@given(
    cams(), st.tuples(SIDES, SIDES), st.floats(0, 100), st.floats(0, 1),
    st.sampled_from(COMBINATIONS), st.integers(1, 3),
)
def test_kernel_equals_reference(cam, size, percentile, theta, combination, threads):
    options = PasOptions(percentile, theta, *combination)
    same(pas(cam, size, options, threads=threads), pas_reference(cam, size, options))


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_kernel_equals_reference_at_full_size(combination):
    cam = np.random.default_rng(3).gamma(1.0, size=(2, 2, 24, 23)).astype(np.float32)
    options = PasOptions(98.0, 0.35, *combination)
    same(pas(cam, (384, 353), options), pas_reference(cam, (384, 353), options))


OTHER_ISA = """
import itertools
import numpy as np
from lidcam_rt import _kernels
from lidcam_rt.pas import PasOptions, pas, pas_reference
from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES
rng = np.random.default_rng(11)
for combination in itertools.product(MODES, PRECISIONS, WHERES, INTERPOLATIONS):
    sizes = (24, 24, 192, 192), (7, 3, 61, 129), (40, 33, 5, 9), (1, 2, 70, 65), (12, 12, 300, 333)
    for h, w, height, width in sizes:
        for cam in (rng.standard_normal((1, 1, h, w)), np.round(rng.gamma(1.0, size=(1, 1, h, w)))):
            options = PasOptions(float(rng.choice([0, 3, 50, 90, 98, 100])), 0.35, *combination)
            got, want = pas(cam, (height, width), options), pas_reference(cam, (height, width), options)
            assert all(np.array_equal(a, b) for a, b in zip(got, want)), (options, h, w, height, width)
print(_kernels.isa())
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(isa):
    """A wheel runs on older processors than this one: LIDCAM_ISA keeps the kernel to what they have."""
    environment = os.environ | {"LIDCAM_ISA": isa}
    command = [sys.executable, "-c", OTHER_ISA]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    if result.stdout.strip() != isa:
        pytest.skip(f"this processor has no {isa}: {result.stdout.strip()} was tested")


def released(cam, size, percentile, theta):
    cam = cv2.resize(cam, size[::-1], interpolation=cv2.INTER_CUBIC)
    cam = cam - cam.min()
    gray = (cam / cam.max() * 255).astype(np.uint8)
    return gray > int(theta * np.percentile(gray, percentile))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_resize_is_within_a_few_ulps_of_opencv(interpolation):
    """Ulps of the largest magnitude of the map (docs/operator.md states what was measured)."""
    code = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}[interpolation]
    rng = np.random.default_rng(4)
    for h, w, height, width in ((24, 24, 384, 384), (7, 7, 224, 224), (17, 13, 333, 250), (33, 29, 20, 18)):
        cam = rng.standard_normal((h, w)).astype(np.float32)
        got = resize_reference(cam, (height, width), interpolation).astype(np.float64)
        difference = np.abs(cv2.resize(cam, (width, height), interpolation=code) - got).max()
        assert difference <= 10 * np.spacing(np.abs(cam).max())


@pytest.mark.slow
def test_masks_and_boxes_of_the_released_pipeline():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        cam = cv2.GaussianBlur(rng.standard_normal((24, 24)).astype(np.float32), (5, 5), 1.5)
        expected = released(cam, (384, 384), 90, 0.35)
        mask = pas(cam[None, None], (384, 384), PasOptions(90, 0.35)).mask[0, 0]
        assert (mask != expected).sum() <= 3
        assert np.abs(np.subtract(largest_box(mask), largest_box(expected))).max() <= 1


@pytest.mark.parametrize(
    ("cam", "size", "options"),
    [
        (np.zeros((2, 2)), (4, 4), {}),
        (np.zeros((1, 1, 0, 2)), (4, 4), {}),
        (np.zeros((1, 1, 2, 2)), (0, 4), {}),
        (np.zeros((1, 1, 2, 2)), (4, 100_000), {}),
        (np.zeros((1, 1, 2, 2)), (4, 4), {"threads": 0}),
        (np.zeros((1, 1, 2, 2)), (4, 4), {"options": {"percentile": 90}}),
        (np.zeros((1, 1, 2, 2)), (4, 4), {"options": None}),
    ],
)
def test_wrong_calls(cam, size, options):
    with pytest.raises(InputError):
        pas(cam, size, **options)


def test_results_that_are_kept_are_not_written_again():
    rng = np.random.default_rng(5)
    cams = [rng.random((1, 1, 6, 6), np.float32) for _ in range(12)]
    kept = [pas(cam, (40, 40)) for cam in cams]
    for cam, result in zip(cams, kept, strict=True):
        same(result, pas_reference(cam, (40, 40)))
