"""Logits given as probabilities are refused, and made into probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from lidcam_rt.crf import DenseCRF, from_logits, refine
from lidcam_rt.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 15, 3)).astype(np.uint8)
LOGITS = np.random.default_rng(1).normal(0, 3, (4, 12, 15)).astype(np.float32)


def calls(values):
    return [
        lambda: DenseCRF().refine(IMAGE, values),
        lambda: DenseCRF().refine(IMAGE, values, labels="present"),
        lambda: DenseCRF().refine(IMAGE, values, labels=[0, 1]),
        lambda: DenseCRF().refine_batch([IMAGE], [values]),
        lambda: refine(IMAGE, values),
    ]


@pytest.mark.parametrize("values", [LOGITS, 255 * special.softmax(LOGITS, 0), -special.softmax(LOGITS, 0)])
def test_values_outside_of_0_to_1_are_refused(values):
    for call in calls(values):
        with pytest.raises(InputError, match=r"probabilities must be in 0\.\.1, these are in .*from_logits"):
            call()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_rounding_of_a_softmax_is_no_fault(dtype):
    p = special.softmax(LOGITS.astype(dtype), 0).astype(dtype)
    p[0, 0, 0] = 1 + 5e-4
    for call in calls(p):
        call()


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 9), st.integers(1, 6), st.integers(1, 6)),
                  elements=st.floats(-2.0**100, 2.0**100, width=32)))  # fmt: skip
def test_softmax(logits):
    found = from_logits(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, special.softmax(logits.astype(np.float64), 0), rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("shape", [(12, 15), (1, 12, 15)])
def test_one_logit_is_the_foregrounds(shape):
    logits = np.linspace(-90, 90, 180, dtype=np.float32).reshape(shape)
    found = from_logits(logits)
    assert found.shape == (2, 12, 15)
    expected = special.expit(logits.astype(np.float64)).reshape(12, 15)
    np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-38)
    assert DenseCRF().refine(IMAGE, found).shape == (2, 12, 15)


def test_refined_logits_are_refined_probabilities():
    expected = DenseCRF().refine(IMAGE, special.softmax(LOGITS.astype(np.float64), 0).astype(np.float32))
    np.testing.assert_allclose(DenseCRF().refine(IMAGE, from_logits(LOGITS)), expected, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [np.zeros(3, np.float32), np.zeros((2, 2), int), np.full((2, 3, 3), np.nan), np.zeros((2, 0, 3)), "a"]
)
def test_mistakes(wrong):
    with pytest.raises(InputError, match="logits"):
        from_logits(wrong)
