"""The compiled lattice and mean field, below the Python classes."""

import numpy as np
import pytest
from lidcam_rt._kernels import crf


def features(count, dimension, seed=0, scale=3.0):
    return (np.random.default_rng(seed).random((count, dimension)) * scale).astype(np.float32)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 6])
def test_filter_is_the_kernel_of_mean_field(dimension):
    """One step from equal energies: q = softmax(w K q0)."""
    lattice = crf.lattice(features(403, dimension))
    unary = np.random.default_rng(1).random((3, 403)).astype(np.float32)
    start = np.exp(-unary.astype(np.float64))
    start /= start.sum(0)
    message = crf.filter(lattice, start.astype(np.float32)).astype(np.float64)
    expected = np.exp(-unary + 2.5 * message)
    found, done = crf.mean_field(unary, [(lattice, [2.5])], 1)
    assert done == 1
    np.testing.assert_allclose(found, expected / expected.sum(0), rtol=0, atol=2e-6)


def test_filter_needs_the_same_pixels():
    with pytest.raises(ValueError, match="pixel"):
        crf.filter(crf.lattice(features(40, 2)), np.zeros((2, 41), np.float32))
