"""The CUDA dense CRF, run by the CPU shim through the launcher, against the CPU's mean field."""

from __future__ import annotations

import numpy as np
import pytest
from test_launch import Claim, folder, needs_kernels, python  # noqa: F401

from lidcam_rt import cuda
from lidcam_rt.crf import CrfOptions
from lidcam_rt.errors import InputError

CODE = """
import sys
sys.path.insert(0, %r)
from cases import crf_inputs
from lidcam_rt.crf import CrfOptions, DenseCRF

def infer(n, labels, height, width, options, **more):
    image, unary = crf_inputs(np.random.default_rng(labels), n, labels, height, width)
    q, status = np.full_like(unary, -1), np.full(n, 9, np.int32)
    cuda.mean_field(Array(image), Array(unary), (Array(q), Array(status)), options=options, **more)
    return image, unary, q, status
"""


@needs_kernels
@pytest.mark.parametrize("major", ["8", "9"])
def test_probabilities_of_the_cpu(folder, major):  # noqa: F811
    import builds

    python(
        CODE % str(builds.HERE)
        + """
for n, labels, height, width, options in (
    (2, 2, 24, 31, "psa"), (1, 3, 20, 20, "irn"), (1, 2, 25, 24, "deeplab"), (1, 21, 12, 16, "example"),
    (1, 2, 9, 8, CrfOptions(iterations=0)), (1, 5, 1, 30, CrfOptions(bilateral_compat=0.0)),
    (2, 2, 17, 1, CrfOptions(gaussian_compat=0.0)), (1, 2, 40, 44, CrfOptions(iterations=20, bilateral_sxy=5.0)),
):
    image, unary, q, status = infer(n, labels, height, width, options, vertices_per_pixel=6)
    assert status.tolist() == [0] * n
    expected = np.stack([DenseCRF(options).infer(i, u) for i, u in zip(image, unary)])
    difference = np.abs(q - expected).max()
    assert difference <= 1e-5, (labels, height, width, difference)
    np.testing.assert_array_equal(q.argmax(1), expected.argmax(1))
""",
        folder,
        STAND_IN_MAJOR=major,
    )


@needs_kernels
def test_a_lattice_without_room_is_reported(folder):  # noqa: F811
    import builds

    out = python(
        CODE % str(builds.HERE)
        + """
_, _, q, status = infer(1, 2, 20, 20, CrfOptions(bilateral_srgb=1.0), vertices_per_pixel=0.5)
print(status[0], (q == -1).all())
from lidcam_rt.errors import InputError
try:
    infer(1, 2, 20, 20, CrfOptions(bilateral_srgb=0.01))
except InputError as error:
    print(error)
""",
        folder,
    )
    first, second = out.splitlines()
    assert first == "1 True"
    assert second == "the standard deviations of a pairwise term are too small for this image on CUDA"


@pytest.mark.parametrize(
    ("image", "unary", "out", "options"),
    [
        ((1, 4, 4, 3), (1, 1, 4, 4), (1, 1, 4, 4), {}),
        ((1, 4, 5, 3), (1, 2, 4, 4), (1, 2, 4, 4), {}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 3, 4, 4), {}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"options": CrfOptions(tolerance=0.1)}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"options": CrfOptions(gaussian_compat=0.0, bilateral_compat=0.0)}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"vertices_per_pixel": 7}),
    ],
)
def test_wrong_calls(image, unary, out, options):
    with pytest.raises(InputError):
        cuda.mean_field(Claim(image, "|u1"), Claim(unary, "<f4"), (Claim(out, "<f4"), Claim((1,), "<i4")), **options)
    with pytest.raises(InputError):
        cuda.mean_field(np.zeros(image, np.uint8), Claim(unary, "<f4"), (Claim(out, "<f4"), Claim((1,), "<i4")))
