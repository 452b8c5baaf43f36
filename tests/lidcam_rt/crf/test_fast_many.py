"""`rounding="fast"` with more than two labels, against float64 on the same lattice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import in_float64, scene, softmax
from lidcam_rt._kernels import use_isa

from lidcam_rt.crf import BilateralTerm, CrfOptions, DenseCRF, GaussianTerm, preset


@pytest.fixture(autouse=True)
def fastest():
    yield
    use_isa("auto")


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


@pytest.mark.slow
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
        use_isa(isa)
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


@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_exponential(isa):
    """Without steps the marginals are the softmax itself. Differences of these energies are exact."""
    try:
        use_isa(isa)
    except ValueError:
        pytest.skip(f"no {isa} here")
    unary = (np.random.default_rng(0).integers(0, 2**17, (8, 64, 64)) / 4096).astype(np.float32)
    options = CrfOptions(iterations=0, rounding="fast")
    expected = softmax(unary.astype(np.float64))
    found = DenseCRF(options).infer(np.zeros((64, 64, 3), np.uint8), unary)
    np.testing.assert_allclose(found, expected, rtol=5e-7, atol=0)
