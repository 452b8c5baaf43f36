"""The PaS node and its function body in standard ONNX operators (needs `onnx`, not torch).

The body is equal to `lidcam_rt.pas.pas_reference` for the same resized map, for every combination of options. Order
statistics come from bisection by counting, not from TopK, which TensorRT limits to 3840 elements: over the 256 byte
levels, or (precision `float` and where `raw`) over float values, first by powers of two and then within one, until no
float lies between the bounds. The byte threshold int(theta P) is found by comparing the integer 100000 P with a table
of exact bounds, so that the body needs no float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lidcam_rt.pas import PasOptions

__all__ = ["DOMAIN", "OPSET", "attach", "pas_function", "pas_node", "threshold_bounds"]

DOMAIN = "lidcam"
OPSET = 18
_SCALE = 100_000


def threshold_bounds(theta: float) -> npt.NDArray[np.int64]:
    """int64 [255]: the smallest 100000 P whose int(theta P) reaches 1, 2 ... 255 (out of reach: a huge number)."""
    theta64 = np.rint(theta * 1e6) / 1e6
    bounds = np.full(255, np.iinfo(np.int64).max // 2, np.int64)
    for level in range(1, 256):
        low, high = 0, 255 * _SCALE
        if int(theta64 * (high / _SCALE)) < level:
            break
        while low < high:
            middle = (low + high) // 2
            if int(theta64 * (middle / _SCALE)) >= level:
                high = middle
            else:
                low = middle + 1
        bounds[level - 1] = low
    return bounds


def pas_node(inputs: tuple[str, str], outputs: tuple[str, str, str], spec: PasOptions) -> onnx.NodeProto:
    """The node: inputs cam and an image-sized tensor, outputs map, mask, threshold."""
    return helper.make_node(
        "PaS",
        list(inputs),
        list(outputs),
        name="PaS",
        domain=DOMAIN,
        percentile=spec.percentile,
        theta=spec.theta,
        mode=spec.mode,
        precision=spec.precision,
        where=spec.where,
        interpolation=spec.interpolation,
        plugin_namespace=DOMAIN,
        plugin_version="1",
    )


class _Body:
    """Nodes as they are added; `hw` is the constant [2, 3], the axes of height and width."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._count = 0
        self.hw = self.constant(np.array([2, 3]))

    def __call__(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        if name is None:
            self._count += 1
            name = f"v{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        return self("Constant", value=numpy_helper.from_array(np.asarray(value)))


class _Rank:
    """Where the percentile lies among n sorted values: 1-based ranks and the remainder between them.

    Attributes:
        low: float, rank of the order statistic at or below the percentile.
        next: float, rank of the one above.
        rest: int64, remainder in 1 / 100000.
        count: float, n.
    """

    def __init__(self, b: _Body, size: str, percentile: float) -> None:
        i64 = np.int64
        counted = b("ReduceProd", size, b.constant(np.array([0])), keepdims=0)
        last = b("Sub", counted, b.constant(i64(1)))
        position = b("Mul", last, b.constant(i64(round(percentile * 1000))))
        rank = b("Div", position, b.constant(i64(_SCALE)))
        self.rest = b("Sub", position, b("Mul", rank, b.constant(i64(_SCALE))))
        self.low = b("Cast", b("Add", rank, b.constant(i64(1))), to=TensorProto.FLOAT)
        self.next = b("Cast", b("Min", b("Add", rank, b.constant(i64(2))), counted), to=TensorProto.FLOAT)
        self.count = b("Cast", counted, to=TensorProto.FLOAT)


def _count(b: _Body, values: str, level: str, op: str = "LessOrEqual") -> str:
    inside = b("Cast", b(op, values, level), to=TensorProto.FLOAT)
    return b("ReduceSum", inside, b.hw, keepdims=1)


def _upper(b: _Body, values: str, lower: str, rank: str, most: str) -> str:
    """The order statistic above `lower`: itself where it is repeated, else the smallest value beyond."""
    beyond = b("Where", b("Greater", values, lower), values, most)
    enough = b("GreaterOrEqual", _count(b, values, lower), rank)
    return b("Where", enough, lower, b("ReduceMin", beyond, b.hw, keepdims=1))


def _byte_standard(b: _Body, levels: str, rank: _Rank, start: str) -> str:
    """int64 [N, K, 1, 1]: 100000 times the percentile of whole levels 0 to 255; `start` is 0."""
    found = start
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        trial = b("Add", found, b.constant(np.float32(step - 1)))
        short = b("Cast", b("Less", _count(b, levels, trial), rank.low), to=TensorProto.FLOAT)
        found = b("Add", found, b("Mul", short, b.constant(np.float32(step))))
    second = _upper(b, levels, found, rank.next, b.constant(np.float32(255)))
    whole = b("Cast", found, to=TensorProto.INT64)
    span = b("Sub", b("Cast", second, to=TensorProto.INT64), whole)
    return b("Add", b("Mul", whole, b.constant(np.int64(_SCALE))), b("Mul", span, rank.rest))


def _float_standard(b: _Body, values: str, rank: _Rank) -> str:
    """float32 [N, K, 1, 1]: the percentile of finite float values of any sign."""
    f32 = np.float32
    zero = b.constant(f32(0))
    # Search in the magnitude: where the order statistic is negative, turn the values and the rank around.
    negative = b("GreaterOrEqual", _count(b, values, zero, "Less"), rank.low)
    turned = b("Where", negative, b("Neg", values), values)
    mirrored = b("Add", b("Sub", rank.count, rank.low), b.constant(f32(1)))
    wanted = b("Where", negative, mirrored, rank.low)
    at_zero = b("GreaterOrEqual", _count(b, turned, zero), wanted)
    # The smallest power of two times the greatest magnitude that has enough values at or below it ...
    high = b("ReduceMax", b("Abs", values), b.hw, keepdims=1)
    for exponent in (64, 64, 64, 64, 32, 16, 8, 4, 2, 1):  # 319 in all: float32 spans 277
        trial = b("Mul", high, b.constant(f32(2.0**-exponent)))
        high = b("Where", b("GreaterOrEqual", _count(b, turned, trial), wanted), trial, high)
    # ... then the greatest float between half of it and it that has too few; the next value is the one sought.
    low = b("Mul", high, b.constant(f32(0.5)))
    for exponent in range(2, 27):
        trial = b("Add", low, b("Mul", high, b.constant(f32(2.0**-exponent))))
        low = b("Where", b("Less", _count(b, turned, trial), wanted), trial, low)
    most = b.constant(np.finfo(f32).max)
    magnitude = b("ReduceMin", b("Where", b("Greater", turned, low), turned, most), b.hw, keepdims=1)
    magnitude = b("Where", at_zero, zero, magnitude)
    first = b("Where", negative, b("Neg", magnitude), magnitude)
    second = _upper(b, values, first, rank.next, most)
    share = b("Div", b("Cast", rank.rest, to=TensorProto.FLOAT), b.constant(f32(_SCALE)))
    return b("Add", first, b("Mul", b("Sub", second, first), share))


def pas_function(spec: PasOptions) -> onnx.FunctionProto:
    """The function body for one set of attributes.

    Args:
        spec: attributes; they are constants of the body.
    """
    f32 = np.float32
    b = _Body()
    zero, one, top = b.constant(f32(0)), b.constant(f32(1)), b.constant(f32(255))
    size = b("Shape", "like", start=-2)
    lead = b("Shape", "cam", start=0, end=2)
    out_shape = b("Concat", lead, size, axis=0)
    attributes: dict[str, Any] = {"coordinate_transformation_mode": "half_pixel"}
    attributes |= (
        {"mode": "cubic", "cubic_coeff_a": -0.75} if spec.interpolation == "cubic" else {"mode": "linear"}
    )
    x = b("Resize", "cam", "", "", out_shape, **attributes)

    def all_finite(value: str) -> str:
        difference = b("Sub", value, value)  # NaN unless finite
        return b("ReduceMin", b("Cast", b("Equal", difference, zero), to=TensorProto.FLOAT), b.hw, keepdims=1)

    low, high = b("ReduceMin", x, b.hw, keepdims=1), b("ReduceMax", x, b.hw, keepdims=1)
    reach = b("Sub", high, low)
    positive = b("Cast", b("Greater", reach, zero), to=TensorProto.FLOAT)
    extent = b("Sub", b("ReduceMax", "cam", b.hw, keepdims=1), b("ReduceMin", "cam", b.hw, keepdims=1))
    uneven = b("Cast", b("Greater", extent, zero), to=TensorProto.FLOAT)  # a resize may add an ulp to a constant
    finite = b("Mul", b("Mul", all_finite("cam"), all_finite(x)), all_finite(reach))
    good = b("Mul", b("Mul", finite, uneven), positive)
    valid = b("Greater", good, zero)  # [N, K, 1, 1]
    low, reach = b("Where", valid, low, zero), b("Where", valid, reach, one)
    x = b("Where", valid, x, zero)
    above = b("Sub", x, low)
    scaled = b("Mul", b("Div", above, reach), top)
    levels = b("Floor", scaled)
    theta64 = np.rint(spec.theta * 1e6) / 1e6

    in_bytes = spec.where == "resized" and spec.precision == "uint8"
    raw = spec.where == "raw"
    numerator = ""
    if in_bytes:
        numerator = _byte_standard(b, levels, _Rank(b, size, spec.percentile), b("Mul", good, zero))
        standard = b("Div", b("Cast", numerator, to=TensorProto.FLOAT), b.constant(f32(_SCALE)))
    elif raw:
        cells = b("Where", valid, "cam", zero)
        standard = _float_standard(b, cells, _Rank(b, b("Shape", "cam", start=-2), spec.percentile))
    else:
        standard = _float_standard(b, above, _Rank(b, size, spec.percentile))
    if not in_bytes:  # two order statistics further apart than float32 reaches
        good = b("Mul", good, all_finite(standard))
        valid = b("Greater", good, zero)
        standard = b("Where", valid, standard, zero)
        levels = b("Where", valid, levels, zero)
    source = x if raw else scaled if in_bytes else above

    mask = ""
    value = levels
    if spec.mode == "normalize":
        some = b("Greater", standard, zero)
        ratio = b("Clip", b("Div", source, b("Where", some, standard, one)), zero, one)
        any_above = b("Cast", b("Greater", source, zero), to=TensorProto.FLOAT)
        rounded = b("Round", b("Mul", b("Where", some, ratio, any_above), top))
        value = rounded if in_bytes else b("Where", valid, rounded, zero)
        cut = b("Mul", good, b.constant(f32(int(theta64 * 255))))
    elif in_bytes:
        bounds = b.constant(threshold_bounds(spec.theta).reshape(1, 1, 1, 255))
        reached = b("Cast", b("GreaterOrEqual", numerator, bounds), to=TensorProto.FLOAT)
        cut = b("ReduceSum", reached, b.constant(np.array([3])), keepdims=1)
    else:
        level = b("Mul", standard, b.constant(f32(theta64)))
        relative = b("Sub", level, low) if raw else level
        cut = b("Mul", b("Div", relative, reach), top)
        if spec.precision == "float":
            mask = b("And", b("Greater", source, level), valid)
        else:
            cut = b("Floor", b("Clip", cut, b.constant(f32(-1)), top))
        cut = b("Where", valid, cut, zero)
    b("Cast", value, name="map", to=TensorProto.UINT8)
    b("Cast", mask or b("Greater", value, cut), name="mask", to=TensorProto.UINT8)
    b("Squeeze", cut, b.hw, name="threshold")
    return helper.make_function(
        DOMAIN,
        "PaS",
        ["cam", "like"],
        ["map", "mask", "threshold"],
        b.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=[
            "percentile",
            "theta",
            "mode",
            "precision",
            "where",
            "interpolation",
            "plugin_namespace",
            "plugin_version",
        ],
    )


def attach(model: onnx.ModelProto, spec: PasOptions) -> None:
    """Add the function body and the domain's opset to a model that has the node."""
    model.functions.append(pas_function(spec))
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
