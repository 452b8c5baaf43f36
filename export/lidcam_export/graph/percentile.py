"""A percentile of whole levels as a fraction of whole numbers, all of them exact in float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lidcam_export.graph.body import Body

__all__ = ["WHOLE", "Percentile", "levels_reached", "quotient_of", "radix_of", "threshold_bounds"]

#: 100 percent, as percentiles are read in thousandths of a percent.
WHOLE = 100_000


class Percentile(NamedTuple):
    """A percentile between two whole levels 0 to 255, in parts of a level.

    Its value is (radix * high + low) / parts.

    Attributes:
        high: float32 [N, K, 1, 1].
        low: float32 [N, K, 1, 1].
        radix: what `high` counts.
        parts: parts of a level, WHOLE without the divisors that it shares with the percentile.
    """

    high: str
    low: str
    radix: int
    parts: int


def radix_of(parts: int) -> int:
    """The radix of a numerator of up to 255 parts: one digit where float32 holds it, else two."""
    return parts if 255 * parts < 2**24 else 1000


def threshold_bounds(theta: float, parts: int = WHOLE) -> npt.NDArray[np.int64]:
    """int64 [255]: the smallest m with int(theta m / parts) = 1, 2 ... 255; out of reach: more than 255 parts."""
    theta64 = np.rint(theta * 1e6) / 1e6
    bounds = np.full(255, 256 * parts, np.int64)
    for level in range(1, 256):
        low, high = 0, 255 * parts
        if int(theta64 * (high / parts)) < level:
            break
        while low < high:
            middle = (low + high) // 2
            if int(theta64 * (middle / parts)) >= level:
                high = middle
            else:
                low = middle + 1
        bounds[level - 1] = low
    return bounds


def levels_reached(b: Body, percentile: Percentile, theta: float) -> str:
    """float32 [N, K, 1, 1]: int(theta P), the number of bounds that P reaches."""
    bounds = threshold_bounds(theta, percentile.parts).reshape(1, 1, 1, 255)
    high, low = np.divmod(bounds, percentile.radix)
    # the sign of the sum is exact although the sum may be rounded
    difference = b("Mul", b("Sub", percentile.high, b.real(high)), b.real(percentile.radix))
    difference = b("Add", difference, b("Sub", percentile.low, b.real(low)))
    reached = b.as_real(b("GreaterOrEqual", difference, b.real(0)))
    return b("ReduceSum", reached, b.whole([3]), keepdims=1)


def quotient_of(b: Body, percentile: Percentile) -> str:
    """float32 [N, K, 1, 1]: P, rounded once."""
    product = b("Mul", percentile.high, b.real(percentile.radix))  # exact: a multiple of 8 below 2^25, or below 2^24
    numerator, parts = b("Add", product, percentile.low), b.real(percentile.parts)
    quotient = b("Div", numerator, parts)
    if percentile.radix == percentile.parts:
        return quotient
    # The numerator may be 25 bits long, one more than float32 has: the bit that is lost decides the rounding. The
    # remainder of the division is exact when the quotient is cut into two parts of 12 bits.
    lost = b("Add", b("Sub", product, numerator), percentile.low)
    coarse = b("Mul", b("Floor", b("Mul", quotient, b.real(16))), b.real(1 / 16))
    fine = b("Sub", quotient, coarse)
    remainder = b("Sub", b("Sub", numerator, b("Mul", coarse, parts)), b("Mul", fine, parts))
    remainder = b("Add", remainder, lost)
    step, half = b.real(2.0**-16), b.real(2.0**-17 * percentile.parts)  # of P between 128 and 255
    zero = b.real(0)
    quotient = b("Add", quotient, b("Where", b("Greater", remainder, half), step, zero))
    return b("Sub", quotient, b("Where", b("Less", remainder, b("Neg", half)), step, zero))
