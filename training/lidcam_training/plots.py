"""Plots of the phenomena."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from lidcam_bench.report.plots import as_label

from lidcam_training.phenomena import Phenomena

__all__ = ["draw_phenomena"]


def draw_phenomena(found: Phenomena, picture: npt.NDArray[np.uint8], title: str) -> bytes:
    """One figure with the picture, its two maps, and P1 and P3, as PNG.

    Args:
        found: of `measure_phenomena`.
        picture: uint8 [H, W, 3] RGB.
        title: class name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.4), layout="constrained")
    axes = figure.subplots(1, 5)
    axes[0].imshow(picture)
    axes[0].set_title(as_label(title))
    for axis, values, name, inside in (
        (axes[1], found.maps[0], "positive weights", found.positive_ioa),
        (axes[2], found.maps[1], "negative weights", found.negative_ioa),
    ):
        axis.imshow(values, cmap="inferno")
        note = "" if np.isnan(inside) else f", in object {inside:.2f}"
        axis.set_title(f"P2: {name}{note}", fontsize=9)
    for axis in axes[:3]:
        axis.set_axis_off()
    points = axes[3].scatter(found.area, found.pooled, c=found.weight, cmap="coolwarm", s=12)
    figure.colorbar(points, ax=axes[3], label="weight")
    axes[3].set(xlabel="activation area", ylabel="pooled value", title="P1: channels")
    axes[4].plot(found.values)
    axes[4].axhline(found.percentile_threshold, color="tab:green", label="theta * percentile")
    axes[4].axhline(found.maximum_threshold, color="tab:red", linestyle="--", label="theta * maximum")
    axes[4].set(xlabel="pixels, sorted", title="P3: map values")
    axes[4].legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return buffer.getvalue()
