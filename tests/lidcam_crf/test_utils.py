"""Unary energies and features: pydensecrf's values, and the refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidcam_crf import utils
from lidcam_rt.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)
DERANDOMIZED = settings(max_examples=60, deadline=None, derandomize=True)


def test_labels_by_hand():
    found = utils.unary_from_labels(np.array([[0, 1], [2, 3]], np.uint8), 3, 0.8)
    expected = -np.log([[1 / 3, 0.8, 0.1, 0.1], [1 / 3, 0.1, 0.8, 0.1], [1 / 3, 0.1, 0.1, 0.8]])
    assert found.dtype == np.float32 and np.allclose(found, expected)
    assert np.allclose(np.exp(-found).sum(0), 1)


@DERANDOMIZED
@given(SEEDS, st.integers(2, 9), st.floats(0.01, 0.99), st.booleans())
def test_labels_are_pydensecrfs(seed, count, gt_prob, unsure):
    oracle = pytest.importorskip("pydensecrf.utils")
    labels = np.random.default_rng(seed).integers(0, count + unsure, (5, 7))
    found = utils.unary_from_labels(labels, count, gt_prob, unsure)
    assert np.array_equal(found, oracle.unary_from_labels(labels, count, gt_prob, unsure))
    if unsure:
        with pytest.deprecated_call():
            assert np.array_equal(utils.compute_unary(labels, count, gt_prob), found)


@DERANDOMIZED
@given(
    SEEDS,
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.none() | st.floats(0.1, 1),
    st.none() | st.floats(1e-6, 0.1),
)
def test_softmax_is_pydensecrfs(seed, dtype, scale, clip):
    oracle = pytest.importorskip("pydensecrf.utils")
    p = np.random.default_rng(seed).dirichlet(np.ones(4), (5, 6)).transpose(2, 0, 1).astype(dtype)
    found = utils.unary_from_softmax(p, scale, clip)
    assert np.array_equal(found, oracle.unary_from_softmax(p, scale, clip))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    if scale is not None:
        with pytest.deprecated_call():
            old = utils.softmax_to_unary(p, scale)
        assert np.array_equal(old, oracle.softmax_to_unary(p, scale))


@DERANDOMIZED
@given(SEEDS, st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_features_are_pydensecrfs(seed, axes, channels, scalar):
    oracle = pytest.importorskip("pydensecrf.utils")
    rng = np.random.default_rng(seed)
    shape, sdims = tuple(rng.integers(1, 9, axes).tolist()), rng.uniform(0.5, 9, axes).tolist()
    assert np.array_equal(utils.create_pairwise_gaussian(sdims, shape), oracle.create_pairwise_gaussian(sdims, shape))
    chdim = int(rng.integers(0, axes + 1))
    image = rng.integers(0, 256, (*shape[:chdim], channels, *shape[chdim:])).astype(np.uint8)
    schan = float(rng.uniform(1, 30)) if scalar else rng.uniform(1, 30, channels).tolist()
    found = utils.create_pairwise_bilateral(sdims, schan, image, chdim)
    assert np.array_equal(found, oracle.create_pairwise_bilateral(sdims, schan, image, chdim))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    plain = image.take(0, chdim)
    assert np.array_equal(
        utils.create_pairwise_bilateral(sdims, (7,), plain), oracle.create_pairwise_bilateral(sdims, (7,), plain)
    )


def test_a_transposed_softmax_can_be_set():
    from lidcam_crf import densecrf

    last = np.random.default_rng(0).dirichlet(np.ones(3), (4, 5))  # channels last, as networks of TensorFlow give it
    unary = utils.unary_from_softmax(last.transpose(2, 0, 1))
    densecrf.DenseCRF2D(5, 4, 3).setUnaryEnergy(unary)


LABELS, IMAGE = np.array([0, 1, 2]), np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: utils.unary_from_labels(LABELS, 2, 1.0), "gt_prob"),
        (lambda: utils.unary_from_labels(LABELS, 2, 0), "gt_prob"),
        (lambda: utils.unary_from_labels(LABELS, 1, 0.7), "n_labels"),
        (lambda: utils.unary_from_labels(LABELS + 1, 2, 0.7), "0..2"),
        (lambda: utils.unary_from_labels(LABELS, 2, 0.7, zero_unsure=False), "0..1"),
        (lambda: utils.unary_from_labels(LABELS - 1, 2, 0.7), "-1"),
        (lambda: utils.unary_from_labels(LABELS.astype(float), 2, 0.7), "astype"),
        (lambda: utils.unary_from_softmax(np.array([[np.nan], [1]])), "NaN"),
        (lambda: utils.unary_from_softmax(np.array([["a"]])), "numbers"),
        (lambda: utils.unary_from_softmax(np.ones((2, 3)), scale=0), "scale"),
        (lambda: utils.unary_from_softmax(np.array([[-0.5], [1.5]]), clip=None), "negative"),
        (lambda: utils.create_pairwise_gaussian((3,), (4, 5)), "2 numbers"),
        (lambda: utils.create_pairwise_gaussian((3, 0), (4, 5)), "> 0"),
        (lambda: utils.create_pairwise_gaussian((3, 3), (4, 0)), "shape"),
        (lambda: utils.create_pairwise_bilateral((3, 3), 13, IMAGE), "chdim"),
        (lambda: utils.create_pairwise_bilateral((3, 3), (13, 13), IMAGE, 2), "schan"),
        (lambda: utils.create_pairwise_bilateral((3, 3), 13, IMAGE, 3), "chdim"),
        (lambda: utils.create_pairwise_bilateral((3, 3), 0, IMAGE, 2), "schan"),
        (lambda: utils.create_pairwise_bilateral((3, 3), 13, IMAGE[:0], 2), "empty"),
    ],
)
def test_mistakes_are_value_errors(call, says):
    with pytest.raises(InputError, match=says):
        call()
