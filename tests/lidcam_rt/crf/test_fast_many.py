"""`rounding="fast"` with more than two labels, against float64 on the same lattice."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import Kernel, image_features, mean_field, scene, softmax
from lidcam_rt._kernels import crf

from lidcam_rt.crf import BilateralTerm, CrfOptions, DenseCRF, GaussianTerm, preset


@pytest.fixture(autouse=True)
def fastest():
    yield
    crf.use_isa("auto")


def in_float64(image, unary, options):
    labels = unary.shape[0]
    terms = []
    for term in options.pairwise():
        d, compat = term.deviations(), np.asarray(term.compat, float)
        matrix = -compat * np.eye(labels) if compat.ndim == 0 else np.diag(compat) if compat.ndim == 1 else compat
        kernel = Kernel(image_features(image, d[:2], d[2:] or None), term.normalization)
        terms.append((kernel, (matrix + matrix.T) / 2))
    return mean_field(unary.reshape(labels, -1), terms, options.iterations).reshape(unary.shape)


def general(labels, iterations=3):
    """Every normalisation but none, a number, a vector and a matrix as compatibility, two leading terms."""
    rng = np.random.default_rng(2)
    return CrfOptions(
        iterations=iterations,
        gaussian_sxy=(2.0, 4.0),
        bilateral_sxy=(20.0, 11.0),
        bilateral_srgb=(9.0, 14.0, 31.0),
        rounding="fast",
        terms=(
            GaussianTerm(6.0, tuple(rng.normal(size=labels)), "after"),
            BilateralTerm(9.0, 40.0, tuple(map(tuple, rng.normal(size=(labels, labels)))), "before"),
            BilateralTerm((30.0, 20.0), 25.0, 1.5),
        ),
    )


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 70),
    labels=st.sampled_from([3, 4, 8, 9, 16, 21, 24, 25, 32, 33, 45]),
    seed=st.integers(0, 2**16),
    name=st.sampled_from(["psa", "irn", "deeplab", "spatial", "bilateral", "general"]),
    iterations=st.integers(0, 4),
)
def test_against_float64(height, width, labels, seed, name, iterations):
    options = {
        "spatial": CrfOptions(bilateral_compat=0, rounding="fast"),
        "bilateral": CrfOptions(gaussian_compat=0, rounding="fast"),
        "general": general(labels),
    }.get(name) or preset(f"{name}-fast")
    options = replace(options, iterations=iterations)
    image, unary = scene(height, width, labels, seed)
    found = DenseCRF(options).infer(image, unary)
    # The largest of 2,600 such cases was 5e-5.
    np.testing.assert_allclose(found, in_float64(image, unary, options), rtol=0, atol=5e-4)
    np.testing.assert_allclose(found.sum(0), 1, rtol=0, atol=1e-6)


def test_it_is_another_order_of_sums():
    """The results of both roundings differ, though by little."""
    image, unary = scene(64, 80, 21)
    for options in (CrfOptions(), replace(general(21), rounding="pydensecrf")):
        exact, fast = (DenseCRF(replace(options, rounding=r)).infer(image, unary) for r in ("pydensecrf", "fast"))
        assert 0 < np.abs(exact - fast).max() < 1e-4


@pytest.mark.parametrize("labels", [3, 16, 21, 45])
@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_instruction_sets_agree(isa, labels):
    """Not to the bit: only AVX-512 fuses products and sums."""
    image, unary = scene(37, 41, labels)
    unary[:, :5] *= 30  # saturated
    expected = DenseCRF(general(labels)).infer(image, unary)
    try:
        crf.use_isa(isa)
    except ValueError:
        pytest.skip(f"no {isa} here")
    np.testing.assert_allclose(DenseCRF(general(labels)).infer(image, unary), expected, rtol=0, atol=1e-5)


def test_threads_give_the_same_bits():
    sizes = [(30, 40), (25, 61), (30, 40), (48, 20), (33, 33)]
    images, unaries = zip(*(scene(*size, 6, seed) for seed, size in enumerate(sizes)), strict=True)
    probabilities = [softmax(u) for u in unaries]
    field = DenseCRF("irn-fast")
    expected = [field.refine(i, p) for i, p in zip(images, probabilities, strict=True)]
    for threads in (1, 2, 4):
        found = field.refine_batch(images, probabilities, threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("tolerance", [0.05, 0.01, 0.002])
def test_tolerance(tolerance):
    image, unary = scene(30, 50, 5)
    terms = [([3.0, 3.0], [3.0], 3), ([80.0, 80.0, 13.0, 13.0, 13.0], [10.0], 3)]
    found, done = crf.infer(image, unary, terms, 50, tolerance, fast=True)
    assert 1 < done < 50
    steps = [crf.infer(image, unary, terms, n, fast=True)[0] for n in range(done + 1)]
    moved = [np.abs(a - b).max() for a, b in pairwise(steps)]
    assert np.array_equal(found, steps[-1])
    assert moved[-1] <= tolerance < min(moved[:-1])


def test_without_normalization():
    image, unary = scene(24, 24, 5)
    options = CrfOptions(gaussian_compat=0.01, bilateral_compat=0.002, normalization="none", rounding="fast")
    found = DenseCRF(options).infer(image, unary)
    np.testing.assert_allclose(found, in_float64(image, unary, options), rtol=0, atol=1e-5)


def test_energies_far_apart():
    image, unary = scene(9, 11, 5)
    unary[0, :3], unary[1, 3:5], unary[0, 5:7], unary[1, 5:7] = 1e4, 200, 3e38, -3e38
    found = DenseCRF("psa-fast").infer(image, unary)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, DenseCRF("psa").infer(image, unary), rtol=0, atol=1e-5)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_exponential(isa):
    """Without steps the marginals are the softmax itself. Differences of these energies are exact."""
    try:
        crf.use_isa(isa)
    except ValueError:
        pytest.skip(f"no {isa} here")
    unary = (np.random.default_rng(0).integers(0, 2**17, (8, 64, 64)) / 4096).astype(np.float32)
    options = CrfOptions(iterations=0, rounding="fast")
    expected = softmax(unary.astype(np.float64))
    found = DenseCRF(options).infer(np.zeros((64, 64, 3), np.uint8), unary)
    np.testing.assert_allclose(found, expected, rtol=5e-7, atol=0)
