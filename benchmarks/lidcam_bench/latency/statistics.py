"""Statistics of samples: percentiles with their intervals, spread, drift, and ratios of two runs.

Percentiles are LoadGen's: the sample at place floor(n p) of the sorted ones. Their 95% intervals come from the order
statistics (binomial distribution of how many samples lie below), so that no form of the distribution is assumed.
Intervals of ratios come from a moving-block bootstrap (Kuensch, Annals of Statistics 1989): samples that follow each
other are alike (clocks, caches, neighbours on the machine), and drawing them one by one would promise too much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["PERCENTILES", "Percentile", "Ratio", "Samples", "Summary", "percentile", "ratio_of", "summarize"]

#: The percentiles of a report.
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

#: Durations in nanoseconds, in the order in which they were measured.
Samples: TypeAlias = npt.NDArray[np.int64]

_TAIL = 0.025
_RESAMPLES = 500


class Percentile(BaseModel):
    """A percentile of a sample.

    Attributes:
        ms: its value in milliseconds.
        low_ms: lower end of its 95% interval; None where the samples do not reach so far.
        high_ms: upper end; None where no sample bounds it, that is, where there are too few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ms: float = Field(ge=0)
    low_ms: float | None
    high_ms: float | None

    @property
    def resolved(self) -> bool:
        """Whether the samples bound it on both sides."""
        return self.low_ms is not None and self.high_ms is not None


class Summary(BaseModel):
    """Statistics of a sample of durations.

    Attributes:
        n: how many samples.
        mean_ms: arithmetic mean.
        min_ms: the fastest.
        max_ms: the slowest.
        percentiles: by name: p50, p90, p95, p99, p99.9.
        cv_percent: coefficient of variation: standard deviation over the mean.
        iqr_percent: interquartile range over the median, which a few outliers do not move.
        drift_percent: median of the last quarter over that of the first, minus 1; None below 20 samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n: int
    mean_ms: float
    min_ms: float
    max_ms: float
    percentiles: dict[str, Percentile]
    cv_percent: float
    iqr_percent: float
    drift_percent: float | None

    @field_validator("percentiles")
    @classmethod
    def _all(cls, value: dict[str, Percentile]) -> dict[str, Percentile]:
        missing = [name for p in PERCENTILES if (name := f"p{p:g}") not in value]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing")
        return value

    @property
    def median_ms(self) -> float:
        """The 50th percentile."""
        return self.percentiles["p50"].ms


class Ratio(BaseModel):
    """How a statistic of one sample compares with that of another.

    Attributes:
        value: second over first.
        low: lower end of the 95% interval.
        high: upper end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high


def percentile(ordered: npt.NDArray[Any], p: float) -> Any:
    """The p-th percentile of sorted samples: the one at place floor(n p / 100), as LoadGen takes it."""
    return ordered[_place(len(ordered), p)]


def _place(n: int, p: float) -> int:
    return min(n - 1, int(n * p / 100 + 1e-9))


def summarize(samples: Samples) -> Summary:
    """Describe a sample.

    Args:
        samples: int64 [n], nanoseconds, n >= 1, in the order of measurement.

    Raises:
        ValueError: there are none.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError("a sample has one dimension and at least one value")
    ordered = np.sort(samples)
    mean = float(ordered.mean())
    low, middle, high = (float(percentile(ordered, p)) for p in (25, 50, 75))
    return Summary(
        n=len(ordered),
        mean_ms=mean / 1e6,
        min_ms=float(ordered[0]) / 1e6,
        max_ms=float(ordered[-1]) / 1e6,
        percentiles={f"p{p:g}": _with_interval(ordered, p) for p in PERCENTILES},
        cv_percent=100 * float(ordered.std()) / mean if mean > 0 else 0.0,
        iqr_percent=100 * (high - low) / middle if middle > 0 else 0.0,
        drift_percent=_drift(samples),
    )


def _with_interval(ordered: Samples, p: float) -> Percentile:
    """A percentile with the order statistics that hold it with a probability of 95%."""
    low, high = interval_places(len(ordered), p)
    return Percentile(
        ms=float(percentile(ordered, p)) / 1e6,
        low_ms=None if low is None else float(ordered[low]) / 1e6,
        high_ms=None if high is None else float(ordered[high]) / 1e6,
    )


def interval_places(n: int, p: float) -> tuple[int | None, int | None]:
    """Places, from 0, of the sorted samples between which the p-th percentile lies with a probability of 95%.

    With B the number of samples below the percentile, binomial with n and p: P(B <= low) <= 2.5% and
    P(B > high) <= 2.5%. None where no sample is far enough out.
    """
    share = p / 100
    k = np.arange(n + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_pmf = logs[n] - logs[k] - logs[n - k] + k * np.log(share) + (n - k) * np.log1p(-share)
    cdf = np.cumsum(np.exp(log_pmf))
    # The sample at place i (from 0) is at or below the percentile if more than i samples are below: B >= i + 1.
    below = np.flatnonzero(cdf[:n] <= _TAIL)  # place i: P(B <= i) <= 2.5%
    above = np.flatnonzero(1 - cdf[:n] <= _TAIL)  # place i: P(B > i) <= 2.5%
    return (int(below[-1]) if len(below) else None, int(above[0]) if len(above) else None)


def _drift(samples: Samples) -> float | None:
    quarter = len(samples) // 4
    if quarter < 5:
        return None
    first, last = (float(np.median(part)) for part in (samples[:quarter], samples[-quarter:]))
    return 100 * (last / first - 1) if first > 0 else None


def ratio_of(
    a: Samples, b: Samples, statistic: Callable[[npt.NDArray[Any]], Any] | float = 50.0, *, seed: int = 0
) -> Ratio:
    """A statistic of b over that of a, with its 95% interval.

    Args:
        a: int64 [n], in the order of measurement.
        b: int64 [m], likewise.
        statistic: which percentile, or a function of samples [..., n] over the last axis.
        seed: of the bootstrap.
    """
    if callable(statistic):
        take = statistic
    else:
        p = statistic

        def take(x: npt.NDArray[Any]) -> Any:
            place = _place(x.shape[-1], p)
            return np.partition(x, place, axis=-1)[..., place]

    rng = np.random.default_rng(seed)
    draws = [np.asarray(take(_blocks(x, rng)), np.float64) for x in (a, b)]
    values = draws[1] / np.maximum(draws[0], 1)
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    value = float(take(b)) / max(float(take(a)), 1.0)
    return Ratio(value=value, low=float(low), high=float(high))


def _blocks(samples: Samples, rng: np.random.Generator) -> Samples:
    """Moving-block bootstrap copies, int64 [copies, n]; blocks of about the square root of n."""
    n = len(samples)
    length = max(1, round(n**0.5))
    count = -(-n // length)
    starts = rng.integers(0, n - length + 1, (_RESAMPLES, count))
    places = (starts[..., None] + np.arange(length)).reshape(_RESAMPLES, -1)[:, :n]
    return np.asarray(samples[places])


def pooled(parts: Sequence[Samples]) -> Samples:
    """Samples of several runs, one after the other."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
