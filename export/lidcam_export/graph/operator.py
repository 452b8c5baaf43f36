"""The PaS node and its function body in standard ONNX operators (needs `onnx`, not torch).

The body is equal to `lidcam_rt.pas.pas_reference` for the same resized map, for every combination of options. Order
statistics come from bisection by counting (see `statistics`), not from TopK, which TensorRT limits to 3840 elements.
The byte threshold int(theta P) is found by comparing P, a fraction of whole numbers, with a table of exact bounds, so
that the body needs no float64; no whole number in it leaves float32's exact range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner

from lidcam_export.graph.body import Body
from lidcam_export.graph.percentile import Percentile, levels_reached, quotient_of
from lidcam_export.graph.statistics import byte_percentile, float_percentile, rank_of
from lidcam_rt.pas import PasOptions

__all__ = ["DOMAIN", "OPSET", "attach", "pas_function", "pas_node", "write_out"]

DOMAIN = "lidcam"
OPSET = 18


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


def pas_function(spec: PasOptions) -> onnx.FunctionProto:
    """The function body for one set of attributes.

    Args:
        spec: attributes; they are constants of the body.
    """
    b = Body()
    zero, one, top = b.real(0), b.real(1), b.real(255)
    size = b("Shape", "like", start=-2)
    attributes: dict[str, Any] = {"coordinate_transformation_mode": "half_pixel"}
    attributes |= (
        {"mode": "cubic", "cubic_coeff_a": -0.75} if spec.interpolation == "cubic" else {"mode": "linear"}
    )
    x = b("Resize", "cam", "", "", b("Concat", b("Shape", "cam", start=0, end=2), size, axis=0), **attributes)

    def all_finite(value: str) -> str:
        difference = b("Sub", value, value)  # NaN unless finite
        return b.minimum(b.as_real(b("Equal", difference, zero)))

    low, high = b.minimum(x), b.maximum(x)
    reach = b("Sub", high, low)
    positive = b.as_real(b("Greater", reach, zero))
    extent = b("Sub", b.maximum("cam"), b.minimum("cam"))
    uneven = b.as_real(b("Greater", extent, zero))  # a resize may add an ulp to a constant
    finite = b("Mul", b("Mul", all_finite("cam"), all_finite(x)), all_finite(reach))
    good = b("Mul", b("Mul", finite, uneven), positive)
    valid = b("Greater", good, zero)  # [N, K, 1, 1]
    low, reach = b("Where", valid, low, zero), b("Where", valid, reach, one)
    x = b("Where", valid, x, zero)
    above = b("Sub", x, low)
    scaled = b("Mul", b("Div", above, reach), top)
    # the same where division is exact; engines that multiply by a reciprocal would give the maximum 254
    scaled = b("Where", b("GreaterOrEqual", above, reach), top, scaled)
    levels = b("Floor", scaled)
    theta64 = np.rint(spec.theta * 1e6) / 1e6

    raw = spec.where == "raw"
    percentile: Percentile | None = None
    if spec.where == "resized" and spec.precision == "uint8":
        rank = rank_of(b, size, spec.percentile)
        percentile = byte_percentile(b, levels, rank, spec.percentile, b("Mul", good, zero))
        standard = quotient_of(b, percentile) if spec.mode == "normalize" else ""
    else:
        measured = b("Where", valid, "cam", zero) if raw else above
        size_measured = b("Shape", "cam", start=-2) if raw else size
        standard = float_percentile(b, measured, rank_of(b, size_measured, spec.percentile))
        good = b("Mul", good, all_finite(standard))  # two order statistics further apart than float32 reaches
        valid = b("Greater", good, zero)
        standard = b("Where", valid, standard, zero)
        levels = b("Where", valid, levels, zero)
    source = x if raw else above if percentile is None else scaled

    mask = ""
    value = levels
    if spec.mode == "normalize":
        some = b("Greater", standard, zero)
        ratio = b("Clip", b("Div", source, b("Where", some, standard, one)), zero, one)
        any_above = b.as_real(b("Greater", source, zero))
        rounded = b("Round", b("Mul", b("Where", some, ratio, any_above), top))
        value = rounded if percentile is not None else b("Where", valid, rounded, zero)
        cut = b("Mul", good, b.real(int(theta64 * 255)))
    elif percentile is not None:
        cut = levels_reached(b, percentile, spec.theta)
    else:
        level = b("Mul", standard, b.real(theta64))
        relative = b("Sub", level, low) if raw else level
        cut = b("Mul", b("Div", relative, reach), top)
        if spec.precision == "float":
            mask = b("And", b("Greater", source, level), valid)
        else:
            cut = b("Floor", b("Clip", cut, b.real(-1), top))
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


def write_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its PaS node written out in standard operators, for engines that have no model functions."""
    flat = inliner.inline_local_functions(model)
    kept = [entry for entry in flat.opset_import if entry.domain != DOMAIN]
    del flat.opset_import[:]
    flat.opset_import.extend(kept)
    return flat
