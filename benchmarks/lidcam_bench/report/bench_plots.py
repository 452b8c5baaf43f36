"""The plots of `lidcam bench`, as SVG."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lidcam_bench.latency.results import Results, Run, ScenarioResult
from lidcam_bench.latency.statistics import Samples, Summary
from lidcam_rt.text import plain

__all__ = ["CAPTIONS", "bench_plots", "growth_exponent", "short_labels"]

#: What each plot shows, for the report.
CAPTIONS = {
    "distribution": "Latency of every query, as LoadGen measured it. The marks are p50, p90 and p99. A second hump "
    "means a second kind of query (large pictures, a changed clock rate); a long tail is what users notice.",
    "stages": "Mean time of each step per query; the steps add up to the whole. A step that is narrow here is not "
    "worth optimising.",
    "throughput": "p99 latency (log scale) against pictures per second: towards the lower right is better. Filled "
    "marks are VALID, hollow ones INVALID; the dashed line is the offline throughput, which no server can exceed.",
    "accuracy": "Accuracy against median latency: towards the upper left is better.",
    "batch": "Offline throughput against batch size, both on log scales. The exponent is the slope: 0 means that the "
    "batch size changes nothing, 1 that doubling it doubles the throughput.",
    "threads": "Median latency of a query against threads per call, both on log scales. The exponent is the slope; -1 "
    "would be perfect scaling.",
}
_COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#c92a2a", "#0b7285", "#e67700", "#5f3dc4", "#495057",
            "#66a80f", "#f783ac", "#15aabf", "#862e9c", "#a61e4d", "#087f5b", "#845ef7")  # fmt: skip
_LABEL, _LINE = 96, 34  # characters of a label, and of a line of it
_STAGES = {
    "decode": "#74c0fc", "preprocess": "#4dabf7", "network": "#1f6feb", "maps": "#ffd43b", "crf": "#f08c00",
    "boxes": "#94d82d", "compose": "#ffa94d", "rest": "#ced4da",
}  # fmt: skip
_ACCURACIES = ("miou", "track3", "max_box_acc", "top1_loc", "top1_cls", "mask_iou_mean", "top1_agreement_percent")


def short_labels(keys: Sequence[str]) -> dict[str, str]:
    """Keys without the parts that all of them share; a key that would be empty keeps its first part."""
    parts = [key.split(", ") for key in keys]
    common = set.intersection(*(set(entry) for entry in parts)) if len(parts) > 1 else set()
    return {
        key: ", ".join(part for part in entry if part not in common) or entry[0]
        for key, entry in zip(keys, parts, strict=True)
    }


def plot_labels(keys: Sequence[str]) -> dict[str, str]:
    """Short labels as plots can show them: in lines, at most three; a dollar sign begins no formula."""
    out: dict[str, str] = {}
    for number, (key, label) in enumerate(short_labels(keys).items(), 1):
        label = plain(label).replace("\n", "\\n")
        if len(label) > _LABEL:
            label = f"{label[: _LABEL // 2]}…{label[-_LABEL // 2 :]}"
        shown = "\n".join(textwrap.wrap(label, _LINE, break_on_hyphens=False)).replace("$", r"\$")
        # Legends leave out labels that begin with an underscore. Two that were shortened to the same get numbers.
        shown = f"\u200b{shown}" if shown.startswith("_") else shown
        out[key] = f"{number}: {shown}" if shown in out.values() else shown
    return out


def growth_exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Slope of log y over log x by least squares; None below two different x."""
    if len(set(x)) < 2 or min(y) <= 0:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def bench_plots(results: Results, samples: Mapping[tuple[str, str], Mapping[str, Samples]]) -> dict[str, str]:
    """The plots as SVG elements by name (see CAPTIONS), as far as there is something to show.

    Args:
        results: the report.
        samples: raw samples by variant and scenario.
    """
    import matplotlib

    runs = [run for run in results.runs if run.error is None]
    labels = plot_labels([run.variant.key for run in runs])
    colours = {run.variant.key: _COLOURS[i % len(_COLOURS)] for i, run in enumerate(runs)}
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "lidcam", "font.size": 9.5, "font.family": "sans-serif"}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        # The page's own fonts draw the letters; matplotlib's only supplies their widths.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        drawn = {
            "distribution": _distribution(runs, samples, labels, colours),
            "stages": _stages(runs, labels),
            "throughput": _throughput(runs, labels, colours),
            "accuracy": _accuracy(runs, labels, colours),
            "batch": _scaling(runs, "batch"),
            "threads": _scaling(runs, "threads"),
        }
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Sized by the page; ids are of one figure only, where the page has several.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)


def _main(run: Run) -> ScenarioResult | None:
    """The scenario whose latencies represent a variant."""
    return run.scenario("single-stream") or run.scenario("multi-stream")


def _distribution(
    runs: Sequence[Run], samples: Mapping[tuple[str, str], Mapping[str, Samples]], labels: Mapping[str, str],
    colours: Mapping[str, str],
) -> str | None:  # fmt: skip
    rows: list[tuple[str, Any, Summary]] = []
    for run in runs:
        result = _main(run)
        if result is not None and result.latency is not None:
            values = samples.get((run.variant.key, result.key), {}).get("latency")
            if values is not None and len(values) > 1:
                rows.append((run.variant.key, values / 1e6, result.latency))
    if not rows:
        return None
    figure, axes = _figure(0.9 + 0.62 * len(rows))
    low = min(values.min() for _, values, _ in rows)
    high = max(np.percentile(values, 99.5) for _, values, _ in rows)
    edges = np.linspace(low - 0.02 * (high - low), high + 0.05 * (high - low), 161)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
    for place, (key, values, latency) in enumerate(rows):
        counts = np.asarray(np.histogram(values, edges)[0], np.float64)
        density = np.convolve(counts, kernel / kernel.sum(), mode="same")
        middle, top = (edges[1:] + edges[:-1]) / 2, -place
        curve = top + 0.78 * density / max(density.max(), 1e-9)
        axes.fill_between(middle, top, curve, color=colours[key], alpha=0.35, lw=0)
        axes.plot(middle, curve, color=colours[key], lw=1.2)
        for name, length in (("p50", 0.5), ("p90", 0.36), ("p99", 0.24)):
            value = latency.percentiles[name].ms
            if value <= edges[-1]:
                axes.plot([value, value], [top, top + length], color="#1b1f24", lw=1.3)
    axes.set_yticks([-i for i in range(len(rows))], [labels[key] for key, _, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="latency, ms", xlim=(edges[0], edges[-1]), ylim=(-len(rows) + 0.85, 1.0))
    return _svg(figure)


def _stages(runs: Sequence[Run], labels: Mapping[str, str]) -> str | None:
    rows = [(run, result) for run in runs if (result := _main(run)) is not None and result.stages]
    if not rows:
        return None
    figure, axes = _figure(1.25 + 0.42 * len(rows))
    names = list(dict.fromkeys(stage.name for _, result in rows for stage in result.stages if "/" not in stage.name))
    names.sort(key=lambda name: list(_STAGES).index(name) if name in _STAGES else len(_STAGES))
    widest = 0.0
    for place, (_, result) in enumerate(rows):
        means = {stage.name: stage.summary.mean_ms * stage.summary.n / result.queries for stage in result.stages}
        left = 0.0
        inside = means.get("network/CAM + PaS", means.get("network/PaS", 0.0))
        for name in names:
            width = means.get(name, 0.0)
            axes.barh(-place, width, left=left, height=0.62, color=_STAGES.get(name, "#868e96"))
            if name == "network" and inside:
                axes.barh(-place, inside, left=left + width - inside, height=0.62, color="#1f6feb", hatch="////",
                          edgecolor="#74c0fc", lw=0)  # fmt: skip
            left += width
        axes.text(left, -place, f"  {left:.3g} ms", va="center", fontsize=8.5)
        widest = max(widest, left)
    handles = [_patch(_STAGES.get(name, "#868e96"), name) for name in names]
    if any(stage.name in ("network/CAM + PaS", "network/PaS") for _, result in rows for stage in result.stages):
        handles.insert(names.index("network") + 1, _patch("#1f6feb", "of which CAM + PaS", hatch="////"))
    axes.legend(handles=handles, ncols=min(9, len(handles)), loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False,
                fontsize=8.5, handlelength=1.1, columnspacing=1.0)  # fmt: skip
    axes.set_yticks([-i for i in range(len(rows))], [labels[run.variant.key] for run, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="mean per query, ms", xlim=(0, widest * 1.12))
    axes.grid(axis="y", visible=False)
    return _svg(figure)


def _patch(colour: str, label: str, hatch: str | None = None) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, label=label, hatch=hatch, edgecolor="#74c0fc" if hatch else colour, lw=0)


def _throughput(runs: Sequence[Run], labels: Mapping[str, str], colours: Mapping[str, str]) -> str | None:
    figure, axes = _figure(4.0)
    count = latencies = 0
    for run in runs:
        colour = colours[run.variant.key]
        points = sorted(
            (result.images_per_second, result.latency.percentiles["p99"].ms, result.scenario, result.verdict == "VALID")
            for result in run.scenarios
            if result.latency is not None
        )
        offline = run.scenario("offline")
        count += len(points) + (offline is not None)
        latencies += len(points)
        servers = [point for point in points if point[2] == "server"]
        axes.plot([p[0] for p in servers], [p[1] for p in servers], color=colour, lw=1, alpha=0.6)
        for x, y, scenario, valid in points:
            marker = {"single-stream": "o", "multi-stream": "s", "server": "^"}[scenario]
            axes.plot([x], [y], marker, color=colour, ms=7, mfc=colour if valid else "white")
        if offline is not None:
            axes.axvline(offline.images_per_second, color=colour, lw=1, ls="--", alpha=0.7)
    if count < 2 or not latencies:
        return None
    axes.set(xlabel="pictures per second", ylabel="p99 latency, ms", yscale="log")
    axes.set_xlim(left=0)
    _plain_log_axis(axes.yaxis)
    _legend(figure, axes, runs, labels, colours)
    marks = "circle: single stream · square: multi stream · triangle: server · dashed line: offline"
    axes.set_title(marks, fontsize=8.5, loc="left", color="#57606a")
    return _svg(figure)


def _legend(
    figure: Any, axes: Any, runs: Sequence[Run], labels: Mapping[str, str], colours: Mapping[str, str]
) -> None:
    """The variants by colour; beside the axes, so that no legend lies on a point."""
    lines = sum(1 + labels[run.variant.key].count("\n") for run in runs)
    figure.set_figheight(max(figure.get_figheight(), 0.6 + 0.19 * lines))
    handles = [_patch(colours[run.variant.key], labels[run.variant.key]) for run in runs]
    axes.legend(handles=handles, frameon=False, fontsize=8.5, handlelength=1.1, loc="upper left",
                bbox_to_anchor=(1.0, 1.0), borderaxespad=0)  # fmt: skip


def _plain_log_axis(axis: Any) -> None:
    """Numbers such as 20, 50, 100 on a log axis, in place of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _accuracy(runs: Sequence[Run], labels: Mapping[str, str], colours: Mapping[str, str]) -> str | None:
    points: list[tuple[Run, dict[str, float], float]] = []
    for run in runs:  # accuracy is measured once for all threads and batches
        result = _main(run)
        if run.accuracy is None or result is None or result.latency is None:
            continue
        scores = {**run.accuracy.agreement, **run.accuracy.scores}
        if not scores:  # the reference agrees with itself
            scores = {"mask_iou_mean": 1.0, "top1_agreement_percent": 100.0}
        points.append((run, scores, result.latency.median_ms / run.variant.batch))
    common = [name for name in _ACCURACIES if points and all(name in entry for _, entry, _ in points)]
    if len(points) < 2 or not common:
        return None
    figure, axes = _figure(3.6)
    for run, entry, latency in points:
        axes.plot([latency], [entry[common[0]]], "o", color=colours[run.variant.key], ms=7)
    _legend(figure, axes, [run for run, _, _ in points], labels, colours)
    axes.set(xlabel="median latency per picture, ms", ylabel=common[0])
    axes.margins(0.15, 0.2)
    return _svg(figure)


def _scaling(runs: Sequence[Run], axis: str) -> str | None:
    """Throughput over batches, or latency over threads; a line per variant that differs in that alone."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for run in runs:
        x = getattr(run.variant, axis)
        result = run.scenario("offline") if axis == "batch" else _main(run)
        if x == 0 or result is None:
            continue
        y = result.images_per_second if axis == "batch" else (result.latency.median_ms if result.latency else None)
        unit = f"batch {x}" if axis == "batch" else f"{x} {'thread' if x == 1 else 'threads'}"
        name = ", ".join(part for part in run.variant.key.split(", ") if part != unit)
        if y:
            lines.setdefault(name, []).append((x, y))
    lines = {name: sorted(points) for name, points in lines.items() if len({x for x, _ in points}) > 1}
    if not lines:
        return None
    labels = plot_labels(list(lines))
    figure, axes = _figure(3.6)
    for i, (name, points) in enumerate(lines.items()):
        steps, values = [float(point[0]) for point in points], [point[1] for point in points]
        exponent = growth_exponent(steps, values)
        label = f"{labels[name]}: exponent {exponent:.2f}"
        axes.plot(steps, values, "o-", color=_COLOURS[i % len(_COLOURS)], label=label)
    every = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(every, [str(x) for x in every])
    axes.minorticks_off()
    seen = [y for points in lines.values() for _, y in points]
    ticks = np.unique(np.round(np.geomspace(min(seen), max(seen), 4), 1 if max(seen) < 100 else 0))
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel=axis, ylabel="pictures per second" if axis == "batch" else "median latency, ms")
    axes.legend(frameon=False, fontsize=8.5)
    return _svg(figure)
