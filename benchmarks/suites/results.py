"""What the suites that are commands write: one form for all files of benchmarks/results."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lidcam_bench.latency.machine import describe_machine

__all__ = ["RESULTS", "ratio", "write"]

RESULTS = Path(__file__).parents[1] / "results"


def ratio(baseline: Sequence[float], values: Sequence[float]) -> tuple[float, list[float]]:
    """How many times as fast as the baseline, turn by turn: median, and 10th and 90th percentile."""
    ratios = sorted(a / b for a, b in zip(baseline, values, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    return round(statistics.median(ratios), 2), [round(low, 2), round(high, 2)]


def write(name: str | None, what: str, load: float, rows: dict[str, Any], **more: Any) -> None:
    """Write `name`.json with the machine and its load; without a name nothing.

    Args:
        name: of the file, without its suffix.
        what: what was measured, and how.
        load: the machine's average load before the first sample.
        rows: the results.
        more: what else the report says, before the rows.
    """
    if not name:
        return
    report = {
        "what": what,
        "date": date.today().isoformat(),
        "machine": describe_machine().model_dump(mode="json"),
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        **more,
        "rows": rows,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
