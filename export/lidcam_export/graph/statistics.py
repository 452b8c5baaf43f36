"""Order statistics of maps in standard operators, exact in engines that narrow 64-bit integers.

OpenVINO's CPU plugin computes int64 products in int32, other engines keep every number in float32. So no whole number
here leaves float32's exact range of 2^24 for maps of up to MAX_SIDE pixels a side: a number of pixels, which can reach
2^30, is kept as two digits, 64 high + low. A difference of two such numbers may be rounded, but its sign is exact,
since rounding keeps the sign and zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from onnx import TensorProto

from lidcam_export.graph.body import Body
from lidcam_export.graph.percentile import WHOLE, Percentile, radix_of

__all__ = ["MAX_SIDE", "Rank", "byte_percentile", "float_percentile", "rank_of"]

#: Longest side of maps and pictures.
MAX_SIDE = 32768
#: WHOLE = 200 * 500: a product with a side of 2^15 pixels stays below 2^24 for each factor.
_FACTORS = 200, 500
_DIGIT = 64


class Digits(NamedTuple):
    """A whole number as 64 high + low; low may be more than 63. Both are float32."""

    high: str
    low: str


class Rank(NamedTuple):
    """Where the percentile lies among the n sorted values of a map.

    Attributes:
        lower: 1-based rank of the order statistic at or below the percentile.
        upper: rank of the one above it; n + 1 where there is none.
        mirrored: n + 1 - lower, the rank of the same value when it is counted from the largest.
        rest: int64, the remainder between the two in 1 / WHOLE.
    """

    lower: Digits
    upper: Digits
    mirrored: Digits
    rest: str


def _multiply(b: Body, value: str, high: str, low: str) -> tuple[str, str]:
    """Quotient and remainder of value * (500 high + low) / WHOLE, for value <= MAX_SIDE and a factor up to WHOLE."""
    outer, inner = (b.whole(factor) for factor in _FACTORS)
    whole = b.whole(WHOLE)
    product = b("Mul", value, high)
    quotient = b("Div", product, outer)
    remainder = b("Mul", b("Sub", product, b("Mul", quotient, outer)), inner)
    product = b("Mul", value, low)
    smaller = b("Div", product, whole)
    remainder = b("Add", remainder, b("Sub", product, b("Mul", smaller, whole)))
    carry = b("Div", remainder, whole)
    return b("Add", b("Add", quotient, smaller), carry), b("Sub", remainder, b("Mul", carry, whole))


def rank_of(b: Body, size: str, percentile: float) -> Rank:
    """The rank at percentile / 100 * (n - 1), as in numpy's method `linear`.

    Args:
        b: the function's body.
        size: int64 [2], height and width of the maps.
        percentile: 0 to 100.
    """
    thousandths = round(percentile * 1000)
    height, width = (b("Gather", size, b.whole(axis), axis=0) for axis in (0, 1))
    inner, digit, one = b.whole(_FACTORS[1]), b.whole(_DIGIT), b.whole(1)
    # (height * width - 1) * thousandths / WHOLE: the width first, then the height, then the 1
    per_row, left = _multiply(b, width, *(b.whole(part) for part in divmod(thousandths, _FACTORS[1])))
    left_high = b("Div", left, inner)
    extra, rest = _multiply(b, height, left_high, b("Sub", left, b("Mul", left_high, inner)))
    rest = b("Sub", rest, b.whole(thousandths))
    borrow = b("Cast", b("Less", rest, b.whole(0)), to=TensorProto.INT64)
    rest = b("Add", rest, b("Mul", borrow, b.whole(WHOLE)))
    rows_high = b("Div", height, digit)
    rows_low = b("Sub", height, b("Mul", rows_high, digit))
    low = b("Sub", b("Add", b("Add", b("Mul", rows_low, per_row), extra), one), borrow)
    lower = Digits(b.as_real(b("Mul", rows_high, per_row)), b.as_real(low))
    pixels = Digits(b.as_real(b("Mul", rows_high, width)), b.as_real(b("Mul", rows_low, width)))
    upper = Digits(lower.high, b("Add", lower.low, b.real(1)))
    mirrored = Digits(b("Sub", pixels.high, lower.high), b("Sub", b("Add", pixels.low, b.real(1)), lower.low))
    return Rank(lower, upper, mirrored, rest)


def _reaches(b: Body, values: str, level: str, rank: Digits, op: str = "LessOrEqual") -> str:
    """Bool [N, K, 1, 1]: whether at least `rank` values of each map are at or below the level.

    A row's count is exact, at most MAX_SIDE; it is split into digits before the rows are added.
    """
    rows = b("ReduceSum", b.as_real(b(op, values, level)), b.whole([3]), keepdims=1)
    high = b("Floor", b("Mul", rows, b.real(1 / _DIGIT)))
    low = b("Sub", rows, b("Mul", high, b.real(_DIGIT)))
    axis = b.whole([2])
    high, low = (b("ReduceSum", digit, axis, keepdims=1) for digit in (high, low))
    difference = b("Mul", b("Sub", high, rank.high), b.real(_DIGIT))
    return b("GreaterOrEqual", b("Add", difference, b("Sub", low, rank.low)), b.real(0))


def _upper(b: Body, values: str, lower: str, rank: Rank) -> str:
    """The order statistic above `lower`: itself where it is repeated or the largest, else the smallest value beyond."""
    beyond = b("Where", b("Greater", values, lower), values, b.maximum(values))
    return b("Where", _reaches(b, values, lower, rank.upper), lower, b.minimum(beyond))


def byte_percentile(b: Body, levels: str, rank: Rank, percentile: float, start: str) -> Percentile:
    """The percentile of whole levels 0 to 255, by bisection.

    Args:
        b: the function's body.
        levels: float32 [N, K, H, W].
        rank: of the percentile.
        percentile: 0 to 100.
        start: 0 for each map, float32 [N, K, 1, 1].
    """
    lower = start
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        enough = _reaches(b, levels, b("Add", lower, b.real(step - 1)), rank.lower)
        lower = b("Where", enough, lower, b("Add", lower, b.real(step)))
    span = b("Sub", _upper(b, levels, lower, rank), lower)
    # lower + span * rest / WHOLE; percentile and WHOLE have common divisors, which divide rest too
    common = math.gcd(round(percentile * 1000), WHOLE)
    parts = WHOLE // common
    rest = b("Div", rank.rest, b.whole(common))
    if (radix := radix_of(parts)) == parts:
        return Percentile(lower, b("Mul", span, b.as_real(rest)), radix, parts)
    rest_high = b("Div", rest, b.whole(radix))
    rest_low = b("Sub", rest, b("Mul", rest_high, b.whole(radix)))
    high = b("Add", b("Mul", lower, b.real(parts // radix)), b("Mul", span, b.as_real(rest_high)))
    return Percentile(high, b("Mul", span, b.as_real(rest_low)), radix, parts)


def float_percentile(b: Body, values: str, rank: Rank) -> str:
    """float32 [N, K, 1, 1]: the percentile of finite float values of any sign.

    Bisection over powers of two, then within one, until no float lies between the bounds.
    """
    zero = b.real(0)
    # Search in the magnitude: where the order statistic is negative, turn the values and the rank around.
    negative = _reaches(b, values, zero, rank.lower, "Less")
    turned = b("Where", negative, b("Neg", values), values)
    rank_sought = Digits(*(b("Where", negative, m, r) for m, r in zip(rank.mirrored, rank.lower, strict=True)))
    at_zero = _reaches(b, turned, zero, rank_sought)
    # The smallest power of two times the greatest magnitude that has enough values at or below it ...
    largest = b.maximum(b("Abs", values))
    high = largest
    for exponent in (64, 64, 64, 64, 32, 16, 8, 4, 2, 1):  # 319 in all: float32 spans 277
        trial = b("Mul", high, b.real(2.0**-exponent))
        high = b("Where", _reaches(b, turned, trial, rank_sought), trial, high)
    # ... then the greatest float between half of it and it that has too few; the next value is the one sought.
    low = b("Mul", high, b.real(0.5))
    for exponent in range(2, 27):
        trial = b("Add", low, b("Mul", high, b.real(2.0**-exponent)))
        low = b("Where", _reaches(b, turned, trial, rank_sought), low, trial)
    magnitude = b.minimum(b("Where", b("Greater", turned, low), turned, largest))
    magnitude = b("Where", at_zero, zero, magnitude)
    first = b("Where", negative, b("Neg", magnitude), magnitude)
    second = _upper(b, values, first, rank)
    share = b("Div", b.as_real(rank.rest), b.real(WHOLE))
    return b("Add", first, b("Mul", b("Sub", second, first), share))
