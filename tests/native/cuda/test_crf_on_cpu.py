"""The CUDA dense CRF, run by the CPU shim through the launcher, against the CPU's mean field."""

from __future__ import annotations

import numpy as np
import pytest
from test_launch import Claim, folder, needs_kernels, python  # noqa: F401

from lidcam_gpu import kernels
from lidcam_rt.crf import CrfOptions, GaussianTerm
from lidcam_rt.errors import InputError

pytestmark = pytest.mark.slow  # not in make quick

CODE = """
import sys
sys.path.insert(0, %r)
from cases import crf_inputs
from lidcam_rt.crf import CrfOptions, DenseCRF

def infer(n, total, height, width, options, **more):
    image, unary = crf_inputs(np.random.default_rng(total), n, total, height, width)
    q, status = np.full_like(unary, -1), np.full(n, 9, np.int32)
    kernels.mean_field(Array(image), Array(unary), (Array(q), Array(status)), options=options, **more)
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
@pytest.mark.parametrize("major", ["8", "9"])
def test_every_option_of_the_cpu(folder, major):  # noqa: F811
    """Arrays as compat, normalisations, four terms; early stop; labels present."""
    import builds

    python(
        CODE % str(builds.HERE)
        + """
from dataclasses import replace
from lidcam_rt._kernels import crf
from lidcam_rt.crf import BilateralTerm, GaussianTerm

rng = np.random.default_rng(3)
def vector(n): return tuple(rng.normal(size=n) * 2)
def matrix(n): return tuple(map(tuple, rng.normal(size=(n, n)) * 2))
def on_cpu(image, unary, options, here):
    q = np.zeros_like(unary)
    terms = options.kernel_terms(here)
    energies = np.ascontiguousarray(unary[here])
    q[here], done = crf.infer(image, energies, terms, options.iterations, options.tolerance, True)
    return q, done

few = {"gaussian_sxy": 2.0, "bilateral_sxy": 15.0, "bilateral_srgb": 20.0}
none = {"gaussian_compat": 0.05, "bilateral_compat": 0.01, "normalization": "none"}
more = GaussianTerm((3.0, 1.0), vector(4), "after"), BilateralTerm(9.0, (9.0, 30.0, 20.0), 1.5, "before")
stops = CrfOptions(40, gaussian_compat=1.0, bilateral_compat=2.0, tolerance=0.02, **few)
cases = [
    (1, 2, 15, 19, CrfOptions(3, gaussian_compat=vector(2), **few), None),
    (1, 2, 15, 19, CrfOptions(3, bilateral_compat=matrix(2), **few), None),
    (1, 7, 13, 16, CrfOptions(3, gaussian_compat=vector(7), bilateral_compat=matrix(7), **few), None),
    (1, 2, 15, 19, CrfOptions(3, normalization="before", **few), None),
    (1, 3, 15, 19, CrfOptions(3, normalization="after", **few), None),
    (1, 2, 15, 19, CrfOptions(3, **none, gaussian_sxy=2.0), None),
    (2, 4, 12, 14, CrfOptions(3, gaussian_compat=matrix(4), terms=more, **few), None),
    (3, 2, 16, 15, stops, None), (3, 5, 14, 13, stops, None), (2, 2, 9, 9, replace(stops, iterations=1), None),
    (2, 6, 14, 13, stops, [5, 0, 2]),
    (1, 6, 14, 13, CrfOptions(3, gaussian_compat=matrix(6), bilateral_compat=vector(6), **few), [1, 4, 5]),
    (3, 5, 12, 13, CrfOptions(3, **few), [[0, 4], [1, 2, 3], [4, 3, 2, 1, 0]]),
    (1, 40, 8, 9, CrfOptions(2, gaussian_compat=matrix(40), **few), None),  # more words than one launch takes
]
early = 0
for n, labels, height, width, options, present in cases:
    image, unary, q, status = infer(n, labels, height, width, options, vertices_per_pixel=6, labels=present)
    assert status.tolist() == [0] * n
    for i in range(n):
        here = present if present is None or isinstance(present[0], int) else present[i]
        here = list(range(labels)) if here is None else sorted(here)
        expected, done = on_cpu(image[i], unary[i], options, here)
        assert np.abs(q[i] - expected).max() <= 1e-5, (labels, options, present, np.abs(q[i] - expected).max())
        assert not np.delete(q[i], here, 0).any()
        if options.tolerance and done < options.iterations:
            early += 1
            same = replace(options, tolerance=0.0, iterations=done)
            one = Array(image[i : i + 1].copy()), Array(unary[i : i + 1].copy())
            again, status = np.full_like(unary[i : i + 1], -1), np.zeros(1, np.int32)
            kernels.mean_field(*one, (Array(again), Array(status)), options=same, vertices_per_pixel=6, labels=here)
            assert np.array_equal(again[0], q[i])
assert early >= 8, early
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
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"options": CrfOptions(terms=(GaussianTerm(2.0, 1.0),) * 3)}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"options": CrfOptions(gaussian_compat=(1.0, 2.0, 3.0))}),
        ((1, 4, 4, 3), (1, 3, 4, 4), (1, 3, 4, 4), {"labels": [0, 3]}),
        ((1, 4, 4, 3), (1, 3, 4, 4), (1, 3, 4, 4), {"labels": [1, 1]}),
        ((1, 4, 4, 3), (1, 3, 4, 4), (1, 3, 4, 4), {"labels": [2]}),
        ((1, 4, 4, 3), (1, 3, 4, 4), (1, 3, 4, 4), {"labels": "present"}),
        ((1, 4, 4, 3), (1, 3, 4, 4), (1, 3, 4, 4), {"labels": [[0, 1], [1, 2]]}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"options": CrfOptions(gaussian_compat=0.0, bilateral_compat=0.0)}),
        ((1, 4, 4, 3), (1, 2, 4, 4), (1, 2, 4, 4), {"vertices_per_pixel": 7}),
    ],
)
def test_wrong_calls(image, unary, out, options):
    with pytest.raises(InputError):
        kernels.mean_field(Claim(image, "|u1"), Claim(unary, "<f4"), (Claim(out, "<f4"), Claim((1,), "<i4")), **options)
    with pytest.raises(InputError):
        kernels.mean_field(np.zeros(image, np.uint8), Claim(unary, "<f4"), (Claim(out, "<f4"), Claim((1,), "<i4")))
