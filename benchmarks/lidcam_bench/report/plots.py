"""The curves of an evaluation as pictures."""

from __future__ import annotations

import io
from typing import Any

from lidcam_rt.text import plain

__all__ = ["CAPTIONS", "curve_plots"]

_COLOURS = {"predicted class": "#1f6feb", "ground-truth class": "#d9480f"}
_GREY = "#868e96"

#: What each plot shows, for the report.
CAPTIONS = {
    "iou_curve": "Track 3: IoU of {map >= t} with the masks, pixels of all pictures summed, at each threshold t. The "
    "dot is the peak, which is the number in the table. A map without information peaks at a low t, where everything "
    "is object: the curve then starts at its peak, the share of object pixels.",
    "precision_recall": "PxAP is the area under this curve of all pixels. The dotted line is what a map of noise would "
    "score: the share of object pixels.",
    "box_accuracy": "Percent of pictures whose box of the largest contour has IoU >= 0.5 with a true box, at each "
    "threshold tau (share of the map's maximum). The dot is MaxBoxAcc. A narrow peak means that the threshold must be "
    "chosen precisely.",
    "per_class_iou": "Track 1: IoU of each class in percent, worst first (at most 40 shown).",
}


def curve_plots(results: dict[str, Any]) -> dict[str, bytes]:
    """The curves as PNG by name (see CAPTIONS), as far as they were measured.

    Args:
        results: output of `evaluate`.
    """
    drawn = {
        "iou_curve": _lines(results, "track3", _iou, "map threshold t (0 to 255)", "IoU"),
        "precision_recall": _lines(results, "pxap", _precision, "recall", "precision"),
        "box_accuracy": _lines(
            results, "max_box_acc", _boxes, "map threshold tau (share of the maximum)", "pictures with a right box, %"
        ),
        "per_class_iou": _classes(results),
    }
    return {name: png for name, png in drawn.items() if png is not None}


def _iou(entry: dict[str, Any]) -> tuple[list[float], list[float], int | None]:
    curve = entry["curve"]
    return list(range(256)), curve, max(range(256), key=curve.__getitem__)


def _precision(entry: dict[str, Any]) -> tuple[list[float], list[float], int | None]:
    # From high thresholds on, and without those that no pixel reaches.
    pairs = [(r, p) for r, p in zip(entry["recall"], entry["precision"], strict=True) if r > 0][::-1]
    return [r for r, _ in pairs], [p for _, p in pairs], None


def _boxes(entry: dict[str, Any]) -> tuple[list[float], list[float], int | None]:
    curve = entry["curve"][0]
    return [i / len(curve) for i in range(len(curve))], curve, max(range(len(curve)), key=curve.__getitem__)


def _figure(height: float = 3.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, height), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def as_label(text: str) -> str:
    """A text from data as matplotlib shows it: without control characters, and no formula between dollars."""
    return plain(text).replace("$", r"\$")


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _lines(results: dict[str, Any], metric: str, take: Any, x_label: str, y_label: str) -> bytes | None:
    rows = {
        name: metrics[metric]
        for name, metrics in results["rows"].items()
        if metric in metrics and (metric != "pxap" or metrics[metric]["recall"] is not None)
    }
    if not rows:
        return None
    figure, axes = _figure()
    for name, entry in rows.items():
        x, y, best = take(entry)
        base = name.startswith("baseline")
        axes.plot(x, y, "--" if base else "-", color=_COLOURS.get(name, _GREY), label=name, lw=1.9)
        if best is not None:
            axes.plot([x[best]], [y[best]], "o", color=_COLOURS.get(name, _GREY), ms=6)
    if metric == "pxap":
        share = next(iter(rows.values()))["scores"]["foreground_percent"] / 100
        axes.axhline(share, color=_GREY, lw=1, ls=":")
        axes.set_xlim(0, 1)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_ylim(bottom=0, top=1.02 if metric == "pxap" else None)
    axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def _classes(results: dict[str, Any]) -> bytes | None:
    name = next((n for n, metrics in results["rows"].items() if "track1" in metrics), None)
    if name is None:
        return None
    names = ["background", *results["data"]["class_names"]]
    scores = results["rows"][name]["track1"]["per_class_iou"]
    worst = sorted((v, names[i]) for i, v in enumerate(scores) if v is not None and i < len(names))[:40]
    if not worst:
        return None
    figure, axes = _figure(0.9 + 0.22 * len(worst))
    axes.barh([as_label(n) for _, n in worst], [v for v, _ in worst], color=_COLOURS.get(name, _GREY), height=0.7)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel=f"IoU, % ({name})", xlim=(0, 100))
    return _png(figure)
