"""`rounding="fast"`: sums in the order that is fastest, against float64 on the same lattice."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import in_float64, scene, softmax
from lidcam_rt._kernels import crf, use_isa

from lidcam_rt.crf import PRESETS, BilateralTerm, CrfOptions, DenseCRF, GaussianTerm, preset
from lidcam_rt.errors import InputError


@pytest.fixture(autouse=True)
def fastest():
    yield
    use_isa("auto")


MORE = CrfOptions(
    iterations=4,
    gaussian_sxy=(2.0, 4.0),
    bilateral_sxy=(20.0, 11.0),
    bilateral_srgb=(9.0, 14.0, 31.0),
    rounding="fast",
    terms=(GaussianTerm(6.0, 1.0), BilateralTerm(9.0, 40.0, 2.0), GaussianTerm(1.5, 0.5)),
)


# Where pixels share simplices they reach the vertices another way: of a term's 1,517 pixels below (37x41), in 401 and
# 1517 simplices for sxy 3 and 1, in 1193 and some 200 for srgb 13 and 90.
OTHERS = {
    "one": CrfOptions(bilateral_compat=0, rounding="fast"),
    "other": CrfOptions(gaussian_compat=0, rounding="fast"),
    "other, shared": CrfOptions(gaussian_compat=0, bilateral_srgb=90.0, rounding="fast"),
    "shared": CrfOptions(bilateral_srgb=90.0, rounding="fast"),
    "one shared": CrfOptions(gaussian_sxy=1.0, bilateral_srgb=90.0, rounding="fast"),
    "more": MORE,
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**16),
    name=st.sampled_from(["psa", "irn", "deeplab", *OTHERS]),
    iterations=st.integers(0, 5),
)
def test_against_float64(height, width, seed, name, iterations):
    options = OTHERS.get(name) or preset(f"{name}-fast")
    options = replace(options, iterations=iterations)
    image, unary = scene(height, width, 2, seed)
    found = DenseCRF(options).infer(image, unary)
    # The largest of 2,600 such cases was 9e-6.
    np.testing.assert_allclose(found, in_float64(image, unary, options), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.sum(0), 1, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_nearer_to_float64_than_pydensecrf_is():
    """Where pydensecrf's rounding grows most, of the cases of bench_crf.py: 2.3e-4."""
    from skimage import data, transform

    image = (transform.resize(data.astronaut(), (384, 384), anti_aliasing=True) * 255).astype(np.uint8)
    coarse = np.random.default_rng(0).standard_normal((2, 6, 6)) * 2
    p = softmax(-np.stack([transform.resize(c, (384, 384), order=1) for c in coarse]))
    unary = -np.log(np.clip(p, 1e-5, 1)).astype(np.float32)
    expected = in_float64(image, unary, PRESETS["psa"])
    fast = np.abs(DenseCRF("psa-fast").infer(image, unary) - expected).max()
    exact = np.abs(DenseCRF("psa").infer(image, unary) - expected).max()
    assert fast < 1e-5 < 1e-4 < exact < 5e-4


def test_both_ways_are_taken():
    image, _ = scene(37, 41, 2)
    shared = {}
    for d in ([3, 3], [1, 1], [80, 80, 13, 13, 13], [80, 80, 90, 90, 90]):
        lattice = crf.image_lattice(image if len(d) == 5 else None, 37, 41, d)
        shared[d[-1]] = lattice.pixels / lattice.simplices > 1.5
    assert shared == {3: True, 1: False, 13: False, 90: True}


@pytest.mark.parametrize("name", sorted(OTHERS))
@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_instruction_sets_give_the_same_bits(isa, name):
    image, unary = scene(37, 41, 2)
    unary[:, :5] *= 30  # saturated
    expected = DenseCRF(OTHERS[name]).infer(image, unary)
    try:
        use_isa(isa)
    except ValueError:
        pytest.skip(f"no {isa} here")
    assert np.array_equal(DenseCRF(OTHERS[name]).infer(image, unary), expected)


def test_threads_and_turns_give_the_same_bits():
    """The cache holds lattices of both roundings, and neither is taken for the other."""
    crf.clear_cache()
    image, unary = scene(40, 52, 2)
    exact, fast = DenseCRF("irn").infer(image, unary), DenseCRF("irn-fast").infer(image, unary)
    assert not np.array_equal(exact, fast)
    assert crf.cache_info()["lattices"] == 2
    with ThreadPoolExecutor(4) as pool:
        names = ["irn", "irn-fast"] * 6
        found = list(pool.map(lambda name: DenseCRF(name).infer(image, unary), names))
    expected = {"irn": exact, "irn-fast": fast}
    assert all(np.array_equal(q, expected[name]) for name, q in zip(names, found, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        CrfOptions(gaussian_compat=(1.0, 2.0)),
        CrfOptions(bilateral_compat=((-9.0, 1.0), (1.0, -8.0))),
        CrfOptions(normalization="after"),
        CrfOptions(terms=(GaussianTerm(4.0, 1.0, "before"),)),
        CrfOptions(gaussian_compat=0, bilateral_compat=0),
    ],
)
def test_what_has_no_fast_form_runs_as_ever(options):
    image, unary = scene(20, 31, 2)
    found = DenseCRF(replace(options, rounding="fast")).infer(image, unary)
    assert np.array_equal(found, DenseCRF(options).infer(image, unary))


@pytest.mark.parametrize("labels", [2, 5])
def test_without_normalization(labels):
    image, unary = scene(24, 24, labels)
    options = CrfOptions(gaussian_compat=0.01, bilateral_compat=0.002, normalization="none", rounding="fast")
    found = DenseCRF(options).infer(image, unary)
    np.testing.assert_allclose(found, in_float64(image, unary, options), rtol=0, atol=1e-5)
    assert not np.array_equal(found, DenseCRF(replace(options, rounding="pydensecrf")).infer(image, unary))


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("tolerance", [0.05, 0.02, 0.01, 0.005, 0.002])
def test_tolerance(tolerance, labels):
    """It stops after the first step in which no probability moved by more."""
    image, unary = scene(30, 50, labels)
    terms = [([3.0, 3.0], [3.0], 3), ([80.0, 80.0, 13.0, 13.0, 13.0], [10.0], 3)]
    found, done = crf.infer(image, unary, terms, 50, tolerance, fast=True)
    assert 1 < done < 50
    steps = [crf.infer(image, unary, terms, n, fast=True)[0] for n in range(done + 1)]
    moved = [np.abs(a - b).max() for a, b in pairwise(steps)]
    assert np.array_equal(found, steps[-1])
    assert moved[-1] <= tolerance < min(moved[:-1])


@pytest.mark.parametrize("labels", [2, 5])
def test_energies_far_apart(labels):
    """Differences beyond what a float's exponential takes, and beyond floats."""
    image, unary = scene(9, 11, labels)
    unary[0, :3], unary[1, 3:5], unary[0, 5:7], unary[1, 5:7] = 1e4, 200, 3e38, -3e38
    found = DenseCRF("psa-fast").infer(image, unary)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, DenseCRF("psa").infer(image, unary), rtol=0, atol=1e-5)


def test_presets_and_options():
    assert preset("deeplab-fast") == replace(PRESETS["deeplab"], rounding="fast")
    with pytest.raises(InputError, match=r"no CRF preset 'psa-faster'.*-fast after it"):
        preset("psa-faster")
    with pytest.raises(InputError, match="rounding must be one of pydensecrf, fast"):
        CrfOptions(rounding="float64")
