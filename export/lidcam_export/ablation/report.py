"""Table, steps and plot of the ablation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from lidcam_export.ablation.stages import AblationRow

__all__ = ["plot", "steps", "summarize", "table"]

#: score, heading, digits
COLUMNS = (
    ("iou", "mask IoU", 3),
    ("box", "GT-known Loc", 3),
    ("top1", "Top-1 Loc", 3),
    ("pxap", "PxAP", 1),
    ("peak", "peak IoU", 3),
)
_STEPS = (
    ("TAP", "CAM", "CAM +TAP"),
    ("TAP, with NWC", "CAM +NWC", "CAM +TAP +NWC"),
    ("NWC", "CAM", "CAM +NWC"),
    ("NWC, with TAP", "CAM +TAP", "CAM +TAP +NWC"),
    ("PaS", "CAM +NWC", "CAM +NWC +PaS"),
    ("PaS, with TAP", "CAM +TAP +NWC", "CAM +TAP +NWC +PaS"),
    ("CRF", "CAM +NWC +PaS", "CAM +NWC +PaS +CRF"),
    ("CRF, with TAP", "CAM +TAP +NWC +PaS", "CAM +TAP +NWC +PaS +CRF"),
)


def _with_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None for the spread of one value, and for no value."""
    kept = [value for value in values if value is not None]
    if not kept:
        return None, None
    return float(np.mean(kept)), float(np.std(kept, ddof=1)) if len(kept) > 1 else None


def _interval(values: Sequence[float | None]) -> list[float] | None:
    """95% interval of the mean of paired differences, Student's t; None for fewer than two."""
    from scipy import stats

    kept = [value for value in values if value is not None]
    if len(kept) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(kept) - 1)) * float(stats.sem(kept))
    return [float(np.mean(kept)) - half, float(np.mean(kept)) + half]


def summarize(runs: Sequence[Sequence[AblationRow]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over checkpoints, stage by stage, in order of appearance."""
    out = []
    for stage in dict.fromkeys(row.stage for rows in runs for row in rows):
        rows = [row for run in runs for row in run if row.stage == stage]
        entry: dict[str, Any] = {"stage": stage, "runs": len(rows), "settings": [row.settings for row in rows]}
        for key, _, _ in COLUMNS:
            entry[key], entry[f"{key}_spread"] = _with_spread([getattr(row, key) for row in rows])
        out.append(entry)
    return out


def steps(runs: Sequence[Sequence[AblationRow]]) -> list[dict[str, Any]]:
    """What each step changes, paired by seed: mean, spread and 95% interval of the mean difference."""
    by_stage: dict[str, dict[int, AblationRow]] = {}
    for row in (row for rows in runs for row in rows):
        by_stage.setdefault(row.stage, {})[row.seed] = row
    out = []
    for name, before, after in _STEPS:
        seeds = sorted(by_stage.get(before, {}).keys() & by_stage.get(after, {}).keys())
        if not seeds:
            continue
        entry: dict[str, Any] = {"step": name, "from": before, "to": after, "runs": len(seeds)}
        for key, _, _ in COLUMNS:
            pairs = [(getattr(by_stage[after][s], key), getattr(by_stage[before][s], key)) for s in seeds]
            changes = [None if a is None or b is None else a - b for a, b in pairs]
            entry[key], entry[f"{key}_spread"] = _with_spread(changes)
            entry[f"{key}_interval"] = _interval(changes)
        out.append(entry)
    return out


def table(rows: Sequence[dict[str, Any]], first: str = "stage") -> str:
    """Rows of `summarize` (first="stage", with ± spread) or of `steps` (first="step", with intervals), in Markdown."""
    lines = [f"| {first} | runs | " + " | ".join(name for _, name, _ in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 2) + "|")
    sign = "+" if first == "step" else ""
    for row in rows:
        cells = [str(row[first]), str(row["runs"])]
        for key, _, digits in COLUMNS:
            value, spread, interval = row[key], row[f"{key}_spread"], row.get(f"{key}_interval")
            text = "" if value is None else f"{value:{sign}.{digits}f}"
            if interval is not None:
                text += f" [{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]"
            elif spread is not None:
                text += f" ± {spread:.{digits}f}"
            cells.append(text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(summary: Sequence[dict[str, Any]]) -> bytes:
    """A PNG with bars of mask IoU, GT-known Loc and PxAP, with the spread; the blob is a line."""
    from matplotlib.figure import Figure

    rows = [row for row in summary if row["stage"] != "blob"]
    blob = next((row for row in summary if row["stage"] == "blob"), None)
    figure = Figure(figsize=(11, 0.42 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (key, heading, _) in zip(axes, (COLUMNS[0], COLUMNS[1], COLUMNS[3]), strict=True):
        colours = ["tab:orange" if "TAP" in row["stage"] else "tab:blue" for row in rows]
        spread = [row[f"{key}_spread"] or 0 for row in rows]
        axis.barh([row["stage"] for row in rows], [row[key] for row in rows], xerr=spread, color=colours)
        if blob is not None:
            axis.axvline(blob[key], color="black", linestyle=":", label="blob")
        axis.set_xlabel(heading)
    axes[0].invert_yaxis()
    axes[2].legend(loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return buffer.getvalue()
