"""Statistics of samples against scipy and against distributions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.latency.statistics import interval_places, percentile, ratio_of, summarize

MS = 1_000_000


@given(n=st.integers(1, 3000), p=st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9]))
@settings(max_examples=60, deadline=None)
def test_places_of_the_interval_are_binomial_quantiles(n, p):
    binom = pytest.importorskip("scipy.stats").binom
    low, high = interval_places(n, p)
    if low is not None:
        assert binom.cdf(low, n, p / 100) <= 0.025 + 1e-9
    assert low == n - 1 or binom.cdf(0 if low is None else low + 1, n, p / 100) > 0.025 - 1e-9
    if high is not None:
        assert binom.sf(high, n, p / 100) <= 0.025 + 1e-9
        assert high == 0 or binom.sf(high - 1, n, p / 100) > 0.025 - 1e-9
    else:
        assert binom.sf(n - 1, n, p / 100) > 0.025 - 1e-9


@pytest.mark.parametrize("p", [50, 90, 99])
def test_the_interval_holds_the_true_percentile_as_often_as_it_says(p):
    rng = np.random.default_rng(3)
    truth = -np.log(1 - p / 100)  # of the exponential distribution
    inside = 0
    for _ in range(400):
        samples = (rng.exponential(size=800) * 1e9).astype(np.int64)
        found = summarize(samples).percentiles[f"p{p}"]
        inside += found.low_ms <= truth * 1e3 <= found.high_ms
    assert inside >= 400 * 0.92


def test_percentiles_are_loadgens():
    """`sorted[floor(n p)]`, which for 1..n is floor(n p) + 1."""
    ordered = np.arange(1, 1001)
    assert [percentile(ordered, p) for p in (50, 90, 99, 99.9)] == [501, 901, 991, 1000]
    assert percentile(np.array([7]), 99.9) == 7


@pytest.mark.parametrize(("n", "resolved"), [(100, False), (300, False), (400, True)])
def test_a_p99_of_few_samples_is_not_resolved(n, resolved):
    samples = np.arange(1, n + 1) * MS
    found = summarize(samples)
    assert found.percentiles["p50"].resolved
    assert found.percentiles["p99"].resolved is resolved


def test_spread_and_drift():
    steady = summarize(np.full(100, 5 * MS))
    assert (steady.cv_percent, steady.iqr_percent, steady.drift_percent) == (0, 0, 0)
    assert steady.mean_ms == steady.median_ms == steady.min_ms == steady.max_ms == 5
    rising = summarize(np.linspace(10, 12, 100).astype(np.int64) * MS)
    assert 10 < rising.drift_percent < 20
    assert summarize(np.array([MS] * 19)).drift_percent is None
    values = np.random.default_rng(0).integers(1, 9, 1000) * MS
    assert summarize(values).cv_percent == pytest.approx(100 * values.std() / values.mean())


def test_no_samples():
    with pytest.raises(ValueError, match="at least one"):
        summarize(np.zeros(0, np.int64))


def test_a_ratio_holds_the_truth_and_knows_when_it_is_undecided():
    rng = np.random.default_rng(1)
    base = (rng.normal(100, 3, 400) * MS).astype(np.int64)
    slower = (rng.normal(110, 3.3, 400) * MS).astype(np.int64)
    same = (rng.normal(100, 3, 400) * MS).astype(np.int64)
    found = ratio_of(base, slower)
    assert found.low < 1.1 < found.high and found.decided
    assert found.high - found.low < 0.02
    assert not ratio_of(base, same).decided
    tail = ratio_of(base, slower, 99)
    assert tail.high - tail.low > found.high - found.low  # a tail is known less well
    assert ratio_of(base, slower, lambda x: np.mean(x, axis=-1)).value == pytest.approx(1.1, abs=0.01)


@pytest.mark.slow
def test_samples_that_hang_together_widen_the_interval():
    """Two runs of one machine whose speed wanders: no difference is there, and none may be decided."""
    rng = np.random.default_rng(5)
    false_alarms = 0
    for seed in range(60):
        runs = []
        for _ in range(2):
            wander = np.repeat(rng.normal(0, 3, 100), 20)  # the same for 20 samples in a row
            runs.append(((100 + wander + rng.normal(0, 0.5, 2000)) * MS).astype(np.int64))
        false_alarms += ratio_of(*runs, seed=seed).decided
    assert false_alarms <= 12
