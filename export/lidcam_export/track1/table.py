"""The Track 1 table: means over the seeds, and the judged differences with their paired intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lidcam_export.track1.options import Track1Options
from lidcam_rt.files import write_atomically
from lidcam_rt.version import __version__

__all__ = ["judged", "table_text", "write_table"]

_SPLITS = ("val", "train", "test", "test, true classes")
_PSEUDO, _EXACT = "network trained on pseudo labels", "network trained on exact masks"


def _score(record: dict[str, Any], name: str, split: str) -> dict[str, Any] | None:
    """A row's score of one seed; None where it has none."""
    row = record["networks"].get(name) or next((r for r in record["rows"] if r["name"] == name), None)
    found: dict[str, Any] | None = None if row is None else row.get(split)
    return found


def _mean(records: Sequence[dict[str, Any]], name: str, split: str) -> float | None:
    values = [s["mean_iou"] for r in records if (s := _score(r, name, split)) is not None]
    return float(np.mean(values)) if values else None


def _difference(
    records: Sequence[dict[str, Any]], first: str, second: str, split: str
) -> tuple[float, tuple[float, float]] | None:
    """Mean over the seeds of a difference in mean IoU, and its 95% interval by the paired bootstrap over pictures."""
    pairs = [(_score(r, first, split), _score(r, second, split)) for r in records]
    drawn = [
        np.subtract(a["replicates"], b["replicates"])
        for a, b in pairs
        if a is not None and b is not None and a["replicates"] and b["replicates"]
    ]
    a, b = _mean(records, first, split), _mean(records, second, split)
    if a is None or b is None or not drawn:
        return None
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return a - b, (float(low), float(high))


def judged(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines by which the pipeline is judged: value, interval, and whether it holds."""
    lines: list[dict[str, Any]] = []

    def above(title: str, first: str, second: str, split: str, least: float) -> None:
        found = _difference(records, first, second, split)
        if found is not None:
            value, interval = found
            lines.append({"line": title, "value": value, "interval_95": interval, "holds": value >= least})

    title = "PaS + CRF above maximum + CRF on train"
    above(f"{title}, all weights, at least 2", "CAM, PaS, CRF", "CAM, maximum, CRF", "train", 2.0)
    above(f"{title}, NWC, at least 2", "NWC, PaS, CRF", "NWC, maximum, CRF", "train", 2.0)
    best = max((_mean(records, r["name"], "train") or 0.0) for r in records[0]["rows"] if r["crf"])
    title = "pseudo labels on train, at least 58"
    lines.append({"line": title, "value": best, "interval_95": None, "holds": best >= 58})
    above("multi-scale and flip above one scale on train", "CAM, maximum", "CAM, maximum, one scale", "train", 0.0)
    above("NWC above all weights on train (maximum)", "NWC, maximum", "CAM, maximum", "train", 0.0)
    above("NWC above all weights on train (PaS, CRF)", "NWC, PaS, CRF", "CAM, PaS, CRF", "train", 0.0)
    above("random walk above none on train (NWC, PaS)", "NWC, PaS, random walk", "NWC, PaS", "train", 0.0)
    walked = "NWC, PaS, random walk, CRF"
    above("random walk + CRF above CRF on train (NWC, PaS)", walked, "NWC, PaS, CRF", "train", 0.0)
    pseudo, exact = _mean(records, _PSEUDO, "test"), _mean(records, _EXACT, "test")
    if pseudo is not None and exact:
        share = 100 * pseudo / exact
        title = "network on pseudo labels, percent of that on exact masks, at least 80"
        lines.append({"line": title, "value": share, "interval_95": None, "holds": share >= 80})
    above("that network above the CAM label maps on test", _PSEUDO, "CAM label maps, predicted classes", "test", 0.0)
    return lines


def table_text(records: Sequence[dict[str, Any]]) -> str:
    """The table and the judged lines in Markdown."""
    networks = [name for name in (_PSEUDO, _EXACT) if name in records[0]["networks"]]
    names = [*(row["name"] for row in records[0]["rows"]), *networks]
    lines = [f"| mean IoU, % ({len(records)} seed{'s' if len(records) > 1 else ''}) | {' | '.join(_SPLITS)} |"]
    lines.append("|---|" + "---|" * len(_SPLITS))
    for name in names:
        cells = [_mean(records, name, split) for split in _SPLITS]
        lines.append(f"| {name} | {' | '.join('' if v is None else f'{v:.1f}' for v in cells)} |")
    lines += ["", "| judged | value | 95% interval | holds |", "|---|---|---|---|"]
    for entry in judged(records):
        span = entry["interval_95"]
        shown = "" if span is None else f"{span[0]:.1f} to {span[1]:.1f}"
        lines.append(f"| {entry['line']} | {entry['value']:.1f} | {shown} | {'yes' if entry['holds'] else 'no'} |")
    return "\n".join(lines) + "\n"


def write_table(
    out: Path, options: Track1Options, source: str, records: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Write OUT/track1.json and OUT/track1.md."""
    result = {
        "version": __version__,
        "data": source.partition(":")[0],
        "seeds": list(options.seeds),
        "overrides": list(options.overrides),
        "limit": options.limit,
        "judged": judged(records),
        "seeds_records": list(records),
    }
    write_atomically(out / "track1.json", json.dumps(result, indent=1, sort_keys=True).encode() + b"\n")
    write_atomically(out / "track1.md", table_text(records).encode())
    return result
