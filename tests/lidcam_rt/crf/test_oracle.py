"""Against pydensecrf itself, where it is installed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from lidcam_rt import _kernels
from lidcam_rt.crf import PRESETS, CrfOptions, DenseCRF, refine
from lidcam_rt.errors import InputError


def photo(name, height, width):
    from skimage import data, transform

    picture = transform.resize(getattr(data, name)(), (height, width), anti_aliasing=True)
    return np.ascontiguousarray((picture * 255).astype(np.uint8))


def unary_of(labels, height, width, seed=0):
    from scipy.ndimage import zoom

    coarse = np.random.default_rng(seed).standard_normal((labels, 6, 6)).astype(np.float32) * 2
    logits = np.stack([zoom(c, (height / 6, width / 6), order=1)[:height, :width] for c in coarse])
    p = np.exp(logits - logits.max(0))
    return np.ascontiguousarray(-np.log(np.clip(p / p.sum(0), 1e-5, 1)), np.float32)


def oracle(image, unary, o, compat=None):
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    labels, height, width = unary.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(unary.reshape(labels, -1))
    field.addPairwiseGaussian(sxy=o.gaussian_sxy, compat=o.gaussian_compat if compat is None else compat)
    field.addPairwiseBilateral(
        sxy=o.bilateral_sxy, srgb=o.bilateral_srgb, rgbim=image, compat=o.bilateral_compat
    )
    return np.array(field.inference(o.iterations)).reshape(unary.shape)


def assert_same(found, expected):
    assert np.abs(found - expected).max() <= 1e-5
    differ = found.argmax(0) != expected.argmax(0)
    assert not differ.any()


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize(
    ("labels", "size"), [(2, (384, 384)), (2, (383, 385)), (3, (61, 77)), (5, (150, 201)), (21, (96, 80))]
)
def test_presets(name, labels, size):
    image, unary = photo("astronaut", *size), unary_of(labels, *size)
    found, expected = DenseCRF(name).infer(image, unary), oracle(image, unary, PRESETS[name])
    assert_same(found, expected)
    # Rounding follows pydensecrf's: what is left is an exponential in a thousand, not noise that grows.
    assert np.abs(found - expected).mean() <= 1e-7


def test_where_rounding_grows():
    """Float64 on the same lattice is off by 4e-4 here: the rounding itself has to be reproduced."""
    image, unary = photo("rocket", 384, 384), unary_of(5, 384, 384)
    assert_same(DenseCRF("irn").infer(image, unary), oracle(image, unary, PRESETS["irn"]))


@pytest.mark.parametrize("compat", ["diagonal", "matrix"])
def test_array_compatibility(compat):
    rng = np.random.default_rng(3)
    m = rng.normal(size=3 if compat == "diagonal" else (3, 3)).astype(np.float32)
    image, unary = photo("coffee", 60, 70), unary_of(3, 60, 70)
    o = CrfOptions(iterations=5)
    expected = oracle(image, unary, o, compat=m)
    grid = np.stack(np.meshgrid(np.arange(70), np.arange(60)), -1).reshape(-1, 2).astype(np.float32)
    both = np.concatenate([grid / 80, image.reshape(-1, 3) / 13], 1).astype(np.float32)
    symmetric = m if m.ndim == 1 else (m + m.T) / 2
    terms = [
        (_kernels.crf.lattice(grid / np.float32(3)), symmetric.ravel().tolist()),
        (_kernels.crf.lattice(both), [10.0]),
    ]
    found, _ = _kernels.crf.mean_field(unary.reshape(3, -1), terms, 5)
    assert_same(found.reshape(unary.shape), expected)


def test_repeats_to_the_bit():
    image, unary = photo("chelsea", 90, 101), unary_of(2, 90, 101)
    first = DenseCRF("irn").infer(image, unary)
    assert (first == DenseCRF("irn").infer(image, unary)).all()


def test_absent_labels_are_zero_and_change_nothing():
    image = photo("coffee", 40, 50)
    p = np.random.default_rng(0).dirichlet(np.ones(9), (40, 50)).transpose(2, 0, 1)
    found = refine(image, p, labels=[0, 4, 7])
    assert (found[[0, 4, 7]] == refine(image, p[[0, 4, 7]])).all()
    assert not found[[1, 2, 3, 5, 6, 8]].any()


def test_tolerance_stops_early():
    image, unary = photo("coffee", 40, 50), unary_of(2, 40, 50)
    assert (
        DenseCRF(CrfOptions(tolerance=1.0)).infer(image, unary)
        == DenseCRF(CrfOptions(iterations=1)).infer(image, unary)
    ).all()


IMAGE = np.zeros((4, 5, 3), np.uint8)
UNARY = np.zeros((2, 4, 5), np.float32)


@pytest.mark.parametrize(
    ("image", "unary", "says"),
    [
        (IMAGE.astype(np.float32), UNARY, "uint8"),
        (IMAGE[:0], UNARY[:, :0], "empty"),
        (IMAGE, UNARY.astype(np.float64), "float32"),
        (IMAGE, UNARY[:, :3], "float32"),
        (IMAGE, UNARY[:1], "at least 2"),
        (IMAGE, UNARY * np.float32("nan"), "NaN"),
    ],
)
def test_bad_input(image, unary, says):
    with pytest.raises(InputError, match=says):
        DenseCRF().infer(image, unary)


def test_bad_options():
    with pytest.raises(InputError, match="bilateral_srgb"):
        CrfOptions(bilateral_srgb=0)
    with pytest.raises(InputError, match="psa"):
        DenseCRF("nope")
    with pytest.raises(InputError, match="sxy or srgb"):
        DenseCRF(CrfOptions(bilateral_srgb=1e-6)).infer(IMAGE + 255, UNARY)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, 5, 21])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_presets_steps_and_confident_unaries(name, labels):
    """With the other rows: 216 cases, whose marginals reach down to subnormal numbers (docs/crf.md)."""
    image, worst = photo(name, 96, 128), 0.0
    for confidence in (1, 10):
        unary = unary_of(labels, 96, 128, seed=len(name)) * confidence
        p = np.exp(-unary)
        p = (p / p.sum(0)).astype(np.float32)
        unary = -np.log(np.clip(p, 1e-5, 1))
        for chosen, steps in itertools.product(("psa", "irn", "deeplab", "example"), (1, 5, 10)):
            options = replace(PRESETS[chosen], iterations=steps)
            difference = np.abs(refine(image, p, options) - oracle(image, np.ascontiguousarray(unary), options)).max()
            worst = max(worst, float(difference))
    assert worst <= 1e-6
