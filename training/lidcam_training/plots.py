"""Plots of the phenomena."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from lidcam_bench.report.plots import as_label

from lidcam_training.advice import PEAKED, Summary
from lidcam_training.phenomena import Phenomena

__all__ = ["draw_phenomena", "draw_summary"]


def draw_phenomena(found: Phenomena, picture: npt.NDArray[np.uint8], title: str) -> bytes:
    """One figure with the picture, its two maps, and P1 and P3, as PNG.

    Args:
        found: from `measure_phenomena`.
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


def draw_summary(pictures: Sequence[Phenomena], summary: Summary) -> bytes:
    """P1, P2 and P3 over all pictures, as PNG.

    Args:
        pictures: from `measure_phenomena`, at least one.
        summary: of these pictures.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    chosen = [(entry.area > 0) & (entry.weight > 0) for entry in pictures]
    area = np.concatenate([entry.area[keep] for entry, keep in zip(pictures, chosen, strict=True)])
    weight = np.concatenate([entry.weight[keep] for entry, keep in zip(pictures, chosen, strict=True)])
    first.scatter(area, weight, s=6, alpha=0.3)
    first.set(xlabel="active area of a channel", ylabel="its weight, where positive")
    rank = summary.area_weight_correlation
    first.set_title("P1" if rank is None else f"P1: rank correlation {rank}", fontsize=10)
    bars = {
        "negative\nweights": summary.negative_weights,
        "positive map\nin the object": summary.positive_ioa,
        "negative map\nin the object": summary.negative_ioa,
        "object's share\nof the picture": summary.object_share,
    }
    means = {name: mean for name, mean in bars.items() if mean is not None}
    errors = [[mean.value - mean.low, mean.high - mean.value] for mean in means.values()]
    second.bar(list(means), [mean.value for mean in means.values()], yerr=np.reshape(errors, (-1, 2)).T, capsize=4)
    second.tick_params(axis="x", labelsize=7)
    second.set(ylim=(0, 1))
    second.set_title("P2: shares", fontsize=10)
    for entry in pictures:
        if entry.values[0] > 0:
            share = np.linspace(0, 100, entry.values.size)
            third.plot(share, entry.values / entry.values[0], color="tab:blue", alpha=0.3, linewidth=0.8)
    third.axvline(2, color="tab:green", label="98th percentile")
    third.axhline(1 / PEAKED, color="tab:red", linestyle="--", label="peaked: the percentile is below this")
    third.set(xlabel="pixels in descending order, %", ylabel="share of the maximum")
    third.set_title("P3" if summary.peak is None else f"P3: maximum / percentile {summary.peak}", fontsize=10)
    third.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return buffer.getvalue()
