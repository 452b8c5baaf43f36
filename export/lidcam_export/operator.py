"""The PaS node and its function body in standard ONNX operators (needs `onnx`, not torch).

The body is equal to `lidcam_rt.pas.pas_reference` for mode `threshold` and `normalize`, precision `uint8`, where
`resized`. Order statistics come from bisection over the 256 byte levels, not from TopK, which TensorRT limits to
3840 elements. The byte threshold int(theta P) is found by comparing the integer 100000 P with a table of exact
bounds, so that the body needs no float64.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lidcam_rt.artifact import PasSpec
from lidcam_rt.errors import ExportError

__all__ = ["DOMAIN", "OPSET", "attach", "pas_function", "pas_node", "threshold_bounds"]

DOMAIN = "lidcam"
OPSET = 18
_SCALE = 100_000


def threshold_bounds(theta: float) -> np.ndarray:
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


def pas_node(inputs: tuple[str, str], outputs: tuple[str, str, str], spec: PasSpec) -> onnx.NodeProto:
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
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._count = 0

    def __call__(self, op: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        if name is None:
            self._count += 1
            name = f"v{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        return self("Constant", value=numpy_helper.from_array(value))


def pas_function(spec: PasSpec) -> onnx.FunctionProto:
    """The function body for one set of attributes.

    Args:
        spec: attributes; they are constants of the body.

    Raises:
        ExportError: the combination has no body in standard operators yet.
    """
    if spec.precision != "uint8" or spec.where != "resized":
        raise ExportError(
            f"PaS with precision {spec.precision!r} and where {spec.where!r} has no form in standard operators yet: "
            "export with precision uint8 and where resized"
        )
    f32, i64 = np.float32, np.int64
    b = _Body()
    hw = b.constant(i64([2, 3]))
    zero, one, top = b.constant(f32(0)), b.constant(f32(1)), b.constant(f32(255))
    size = b("Shape", "like", start=-2)
    lead = b("Shape", "cam", start=0, end=2)
    out_shape = b("Concat", lead, size, axis=0)
    attributes: dict[str, object] = {"coordinate_transformation_mode": "half_pixel"}
    attributes |= (
        {"mode": "cubic", "cubic_coeff_a": -0.75} if spec.interpolation == "cubic" else {"mode": "linear"}
    )
    x = b("Resize", "cam", "", "", out_shape, **attributes)

    def all_finite(value: str) -> str:
        difference = b("Sub", value, value)  # NaN unless finite
        return b("ReduceMin", b("Cast", b("Equal", difference, zero), to=TensorProto.FLOAT), hw, keepdims=1)

    low, high = b("ReduceMin", x, hw, keepdims=1), b("ReduceMax", x, hw, keepdims=1)
    reach = b("Sub", high, low)
    positive = b("Cast", b("Greater", reach, zero), to=TensorProto.FLOAT)
    extent = b("Sub", b("ReduceMax", "cam", hw, keepdims=1), b("ReduceMin", "cam", hw, keepdims=1))
    uneven = b(
        "Cast", b("Greater", extent, zero), to=TensorProto.FLOAT
    )  # a resize may add an ulp to a constant
    finite = b("Mul", b("Mul", all_finite("cam"), all_finite(x)), all_finite(reach))
    good = b("Mul", b("Mul", finite, uneven), positive)
    valid = b("Greater", good, zero)  # [N, K, 1, 1]
    above = b("Sub", b("Where", valid, x, zero), b("Where", valid, low, zero))
    scaled = b("Mul", b("Div", above, b("Where", valid, reach, one)), top)
    levels = b("Floor", scaled)

    # The two order statistics around the percentile.
    counted = b("ReduceProd", size, b.constant(i64([0])), keepdims=0)
    last = b("Sub", counted, b.constant(i64(1)))
    position = b("Mul", last, b.constant(i64(round(spec.percentile * 1000))))
    rank = b("Div", position, b.constant(i64(_SCALE)))
    rest = b("Sub", position, b("Mul", rank, b.constant(i64(_SCALE))))
    at_least = b("Cast", b("Add", rank, b.constant(i64(1))), to=TensorProto.FLOAT)
    next_up = b("Cast", b("Min", b("Add", rank, b.constant(i64(2))), counted), to=TensorProto.FLOAT)

    def count(level: str) -> str:
        inside = b("Cast", b("LessOrEqual", levels, level), to=TensorProto.FLOAT)
        return b("ReduceSum", inside, hw, keepdims=1)

    found = b("Mul", good, zero)
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        trial = b("Add", found, b.constant(f32(step - 1)))
        short = b("Cast", b("Less", count(trial), at_least), to=TensorProto.FLOAT)
        found = b("Add", found, b("Mul", short, b.constant(f32(step))))
    beyond = b("Where", b("Greater", levels, found), levels, top)
    upper = b("ReduceMin", beyond, hw, keepdims=1)
    second = b("Where", b("GreaterOrEqual", count(found), next_up), found, upper)
    whole = b("Cast", found, to=TensorProto.INT64)
    span = b("Sub", b("Cast", second, to=TensorProto.INT64), whole)
    numerator = b("Add", b("Mul", whole, b.constant(i64(_SCALE))), b("Mul", span, rest))  # 100000 P

    if spec.mode == "normalize":
        standard = b("Div", b("Cast", numerator, to=TensorProto.FLOAT), b.constant(f32(_SCALE)))
        some = b("Greater", standard, zero)
        ratio = b("Clip", b("Div", scaled, b("Where", some, standard, one)), zero, one)
        any_above = b("Cast", b("Greater", scaled, zero), to=TensorProto.FLOAT)
        value = b("Round", b("Mul", b("Where", some, ratio, any_above), top))
        theta64 = np.rint(spec.theta * 1e6) / 1e6
        cut = b("Mul", good, b.constant(f32(int(theta64 * 255))))
    else:
        value = levels
        bounds = b.constant(threshold_bounds(spec.theta).reshape(1, 1, 1, 255))
        reached = b("Cast", b("GreaterOrEqual", numerator, bounds), to=TensorProto.FLOAT)
        cut = b("ReduceSum", reached, b.constant(i64([3])), keepdims=1)
    b("Cast", value, name="map", to=TensorProto.UINT8)
    b("Cast", b("Greater", value, cut), name="mask", to=TensorProto.UINT8)
    b("Squeeze", cut, hw, name="threshold")
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


def attach(model: onnx.ModelProto, spec: PasSpec) -> None:
    """Add the function body and the domain's opset to a model that has the node."""
    model.functions.append(pas_function(spec))
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
