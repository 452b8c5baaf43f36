"""The report of an evaluation: one HTML file with all its pictures in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidcam_bench.metrics.base import Score
from lidcam_bench.metrics.registry import METRICS
from lidcam_bench.report.cases import Case
from lidcam_bench.report.page import render
from lidcam_bench.report.plots import CAPTIONS
from lidcam_rt.files import write_atomically

__all__ = ["write_report"]


def write_report(path: Path, results: dict[str, Any], cases: Sequence[Case], plots: dict[str, bytes]) -> None:
    """Write the report.

    Args:
        path: the .html file.
        results: output of `evaluate`.
        cases: output of `draw_cases`.
        plots: output of `curve_plots`.

    Raises:
        MissingExtraError: Jinja2 is not installed.
        OutputError: the file cannot be written.
    """
    page = render(
        "report.html",
        "eval",
        title=f"{results['model'] or 'model'} on {results['data']['name']}",
        data=results["data"],
        backend=results["identity"]["backend"],
        notes=results["notes"],
        glance=_glance(results),
        tables=[
            _table(name, results["rows"])
            for name in METRICS
            if any(name in metrics for metrics in results["rows"].values())
        ],
        plots=[
            {"name": name, "caption": CAPTIONS[name], "source": _inline(png, "png")} for name, png in plots.items()
        ],
        cases=_groups(cases),
        failures=results["failures"],
        facts=_facts(results),
    )
    write_atomically(path, page)


def _glance(results: dict[str, Any]) -> dict[str, Any]:
    """The headline numbers of every map, with their differences from the blob's."""
    rows, above = results["rows"], results["above_baseline"]
    metrics = sorted(METRICS.values(), key=lambda metric: not metric.against_blob)
    columns = [
        (metric, metric.score(name))
        for metric in metrics
        for name in metric.glance
        if any(_value(entries, metric.name, name) is not None for entries in rows.values())
    ]
    table = []
    for row, entries in rows.items():
        cells: list[dict[str, Any] | None] = []
        for metric, score in columns:
            value = _value(entries, metric.name, score.name)
            delta = above.get(row, {}).get(metric.name) if metric.against_blob else None
            cells.append(None if value is None else {"value": _number(score, value), "delta": _delta(score, delta)})
        table.append({"name": row, "is_baseline": row.startswith("baseline"), "cells": cells})
    headings = [metric.title if metric.against_blob else score.title for metric, score in columns]
    return {"headings": headings, "rows": table}


def _value(entries: dict[str, Any], metric: str, score: str) -> float | None:
    value: float | None = entries.get(metric, {"scores": {}})["scores"].get(score)
    return value


def _delta(score: Score, delta: dict[str, Any] | None) -> dict[str, str] | None:
    if delta is None:
        return None
    digits = score.digits
    text = {"difference": f"{delta['difference']:+.{digits}f}", "interval": "", "verdict": ""}
    kind = "up" if delta["difference"] > 0 else "no"
    if delta["interval_95"] is not None:
        low, high = delta["interval_95"]
        text["interval"] = f"{low:+.{digits}f}, {high:+.{digits}f}"
        kind = "up" if low > 0 else "no"
        text["verdict"] = "" if low > 0 else ", not above the blob"
    return {**text, "kind": kind}


def _table(name: str, rows: dict[str, Any]) -> dict[str, Any]:
    metric = METRICS[name]
    names = list(dict.fromkeys(n for entries in rows.values() if name in entries for n in entries[name]["scores"]))
    # A score that only repeats the headline (MaxBoxAcc has one IoU) has no title.
    scores = [score for score in metric.scores if score.name in names]
    table = []
    for row, entries in rows.items():
        if name not in entries:
            continue
        entry = entries[name]
        cells = [_cell(score, entry["scores"][score.name], entry["intervals_95"][score.name]) for score in scores]
        table.append(
            {"name": row, "is_baseline": row.startswith("baseline"), "cells": cells, "images": entry["images"]}
        )
    headings = [score.title for score in scores]
    return {
        "title": metric.title, "meaning": metric.meaning, "is_not": metric.is_not, "headings": headings, "rows": table,
    }  # fmt: skip


def _cell(score: Score, value: float | None, interval: Sequence[float] | None) -> dict[str, str]:
    if value is None:
        return {"value": "not counted", "interval": ""}
    ends = "" if interval is None else ", ".join(_number(score, end) for end in interval)
    return {"value": _number(score, value), "interval": ends}


def _number(score: Score, value: float) -> str:
    return f"{value:.{score.digits}f}"


def _groups(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The pictures under their headings."""
    groups: dict[str, dict[str, Any]] = {}
    for case in cases:
        group = groups.setdefault(case.heading, {"heading": case.heading, "about": case.about, "cases": []})
        group["cases"].append({"caption": case.caption, "source": _inline(case.jpeg, "jpeg")})
    return list(groups.values())


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"version": "lidcam_rt", "model": "artifact SHA-256", "data": "data SHA-256"}
    facts = {names.get(k, k): v for k, v in results["identity"].items() if k != "options"}
    facts |= results["identity"].get("options", {})
    facts |= {f"artifact: {k}": v for k, v in results["manifest"].items()}
    texts = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        texts.append((name.replace("_", " "), "none" if value is None else str(value)))
    return texts


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
