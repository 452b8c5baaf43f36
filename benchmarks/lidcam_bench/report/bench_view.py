"""What the reports of `lidcam bench` show: every number formatted, for both the page and the Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lidcam_bench.latency.facts import Accuracy, ColdStart, Conditions, Energy, Floor, Machine, Memory
from lidcam_bench.latency.results import Results, Run, ScenarioResult
from lidcam_bench.latency.statistics import PERCENTILES, Percentile
from lidcam_bench.report.bench_plots import short_labels

__all__ = ["number", "view"]

_PERCENTILES = tuple(f"p{p:g}" for p in PERCENTILES)


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "–"
    if value == 0:
        return f"0{unit}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}{unit}"


def view(results: Results) -> dict[str, Any]:
    """The context of the templates."""
    keys = [run.variant.key for run in results.runs]
    labels = short_labels(keys) if keys else {}
    return {
        "title": _title(results),
        "subtitle": f"{results.machine.name} · {results.date[:10]} · lidcam_rt {results.package_version}",
        "scope": results.scope,
        "images": _images(results.images),
        "warnings": _warnings(results, labels),
        "glance": _glance(results.runs, labels),
        "runs": [_run(run, labels[run.variant.key]) for run in results.runs],
        "machine": _machine(results.machine),
        "floor": _floor(results.floor, results.floor_again),
        "command": results.command,
    }


def _title(results: Results) -> str:
    names = list(dict.fromkeys(run.variant.target for run in results.runs))
    return f"Latency of {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _images(images: dict[str, Any]) -> str:
    sides = images.get("width"), images.get("height")
    if not all(sides):
        return f"{images.get('count', '?')} pictures"
    (w0, w1, w2), (h0, h1, h2) = sides  # type: ignore[misc]
    size = f"{w1}x{h1} pixels" if w0 == w2 and h0 == h2 else f"{w0}x{h0} to {w2}x{h2} pixels, median {w1}x{h1}"
    return f"{images['count']} pictures of {images['folder']}, {size}, median {images['bytes'][1] / 1000:.0f} kB"


def _warnings(results: Results, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Warnings by text, with the places that they apply to."""
    out: dict[str, list[str]] = {}
    for finding in results.findings:
        out.setdefault(f"{finding.kind}: {finding.text}", []).append("")
    kinds: dict[str, list[tuple[str, str]]] = {}
    for run in results.runs:
        where = labels[run.variant.key]
        if run.error is not None:
            out.setdefault(f"could not be run: {run.error}", []).append(where)
        if run.accuracy is not None and run.accuracy.error is not None:
            out.setdefault(f"could not be scored: {run.accuracy.error}", []).append(where)
        if run.accuracy is not None and run.accuracy.warning:
            out.setdefault(f"accuracy: {run.accuracy.warning}", []).append(where)
        for result in run.scenarios:
            place = f"{where}, {result.key}" if len(results.runs) > 1 else result.key
            for finding in result.findings:
                if finding.level == "warning":
                    kinds.setdefault(finding.kind, []).append((place, finding.text))
    rows = [{"text": text, "places": [place for place in places if place]} for text, places in out.items()]
    for kind, entries in kinds.items():
        more = f" (and {len(entries) - 1} more)" if len(entries) > 1 else ""
        rows.append({"text": f"{kind}: {entries[0][1]}", "places": [f"{entries[0][0]}{more}"]})
    return rows


def _glance(runs: Sequence[Run], labels: dict[str, str]) -> dict[str, Any]:
    """A row per variant; columns that no variant has are left out."""
    columns: list[tuple[str, Any]] = [
        ("verdicts", _verdicts),
        ("p50, ms", lambda run: _latency(run, "p50")),
        ("p90, ms", lambda run: _latency(run, "p90")),
        ("p99, ms", lambda run: _latency(run, "p99")),
        ("pictures/s offline", _offline),
        ("pictures/s within the bound", _bounded),
        ("of the floor", lambda run: number(run.work.reached_percent, "%")),
        ("peak memory, MB", lambda run: number(None if run.memory is None else run.memory.peak)),
        ("GPU memory, MB", lambda run: number(None if run.memory is None else run.memory.device_peak)),
        ("cold start, s", lambda run: number(None if run.cold_start is None else run.cold_start.total_ms / 1000)),
        ("J per picture", _joule),
        ("accuracy", _headline),
        ("mask IoU with the reference", _agreement),
    ]
    rows: list[dict[str, Any]] = []
    for run in runs:
        cells = ["–"] * len(columns) if run.error is not None else [take(run) for _, take in columns]
        rows.append({"name": labels[run.variant.key], "cells": cells, "failed": run.error is not None})
    kept = [i for i in range(len(columns)) if any(row["cells"][i] != "–" for row in rows)]
    return {
        "headings": [columns[i][0] for i in kept],
        "rows": [{**row, "cells": [row["cells"][i] for i in kept]} for row in rows],
    }


def _verdicts(run: Run) -> str:
    invalid = sum(result.verdict != "VALID" for result in run.scenarios)
    if not run.scenarios:
        return "–"
    count = len(run.scenarios)
    return "VALID" if not invalid else "INVALID" if count == 1 else f"{invalid} of {count} INVALID"


def _latency(run: Run, name: str) -> str:
    result = run.scenario("single-stream") or run.scenario("multi-stream")
    if result is None or result.latency is None:
        return "–"
    return _percentile(result.latency.percentiles[name])


def _percentile(value: Percentile) -> str:
    return number(value.ms) if value.resolved else f"({number(value.ms)})"


def _offline(run: Run) -> str:
    result = run.scenario("offline")
    return number(None if result is None else result.images_per_second)


def _bounded(run: Run) -> str:
    """The highest rate that met its bound."""
    kept = [result for result in run.scenarios if result.scenario == "server" and result.verdict == "VALID"]
    if not kept:
        return "–"
    best = max(kept, key=lambda result: result.images_per_second)
    return f"{number(best.images_per_second)} (p99 under {number(best.bound_ms)} ms)"


def _joule(run: Run) -> str:
    offline = run.scenario("offline") or (run.scenarios[0] if run.scenarios else None)
    return number(None if offline is None else offline.energy.joule_per_image)


def _headline(run: Run) -> str:
    if run.accuracy is None:
        return "–"
    for name in ("miou", "track3", "max_box_acc", "top1_cls"):
        if name in run.accuracy.scores:
            return f"{name} {number(run.accuracy.scores[name])}"
    return "–"


def _agreement(run: Run) -> str:
    if run.accuracy is None or "mask_iou_mean" not in run.accuracy.agreement:
        return "–"
    return f"{run.accuracy.agreement['mask_iou_mean']:.4f}"


def _run(run: Run, label: str) -> dict[str, Any]:
    variant, known = run.variant, run.error is None
    facts = [
        ("target", f"{variant.target}{f' ({variant.source})' if variant.source else ''}"),
        *([("SHA-256", variant.sha256 or "none: a folder")] if known else []),
        ("engine", f"{variant.engine} on {variant.device}, {variant.precision}"),
        *([("input", f"{variant.size[0]}x{variant.size[1]} (height x width)")] if known else []),
        ("threads, batch", f"{variant.threads or 'one per core'}, {variant.batch}"),
        ("CRF", variant.refine or "none"),
    ]
    if known:
        facts += [
            ("cold start", _cold(run.cold_start)),
            ("warm-up", _warm(run.warm_up_ms)),
            ("memory", _memory(run.memory)),
            ("arithmetic", _work(run)),
        ]
    return {
        "key": label,
        "error": run.error,
        "facts": facts,
        "scenarios": [_scenario(result) for result in run.scenarios],
        "split": _split(run),
        "accuracy": _accuracy(run.accuracy),
    }


def _scenario(result: ScenarioResult) -> dict[str, Any]:
    latency = result.latency
    rows = []
    if latency is not None:
        for name in _PERCENTILES:
            value = latency.percentiles[name]
            low, high = number(value.low_ms), number(value.high_ms)
            span = f"{low} to {high}" if value.resolved else "not bounded by the samples"
            rows.append({"name": name, "value": number(value.ms), "span": span})
    facts = [f"{result.queries:,} {'query' if result.queries == 1 else 'queries'}, {result.images:,} pictures in "
             f"{result.seconds:.1f} s: {number(result.images_per_second)} pictures/s"]  # fmt: skip
    if latency is not None:
        facts.append(
            f"mean {number(latency.mean_ms)} ms, fastest {number(latency.min_ms)}, slowest {number(latency.max_ms)}; "
            f"coefficient of variation {latency.cv_percent:.1f}%, interquartile range {latency.iqr_percent:.1f}%"
        )
    if result.target_qps is not None:
        share = "" if result.load is None else f" ({100 * result.load:.0f}% of the offline throughput)"
        facts.append(
            f"{number(result.target_qps)} queries/s requested{share}, "
            f"p{result.bound_percentile:g} bound {number(result.bound_ms)} ms"
        )
    if result.queue is not None:
        facts.append(f"waiting for a worker: median {number(result.queue.median_ms)} ms, "
                     f"p99 {number(result.queue.percentiles['p99'].ms)} ms")  # fmt: skip
    facts.append(_conditions(result.conditions))
    facts.append(_energy(result.energy))
    return {
        "key": result.key,
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "facts": [fact for fact in facts if fact],
        "percentiles": rows,
        "stages": [
            {
                "name": stage.name.removeprefix("network/") if "/" in stage.name else stage.name,
                "inner": "/" in stage.name,
                "mean": number(stage.summary.mean_ms),
                "median": number(stage.summary.median_ms),
                "p99": _percentile(stage.summary.percentiles["p99"]),
                "share": f"{stage.share_percent:.1f}%",
                "derived": stage.derived,
            }
            for stage in result.stages
        ],
        "findings": [
            {"level": finding.level, "text": f"{finding.kind}: {finding.text}"} for finding in result.findings
        ],
    }


def _conditions(seen: Conditions) -> str:
    parts = []
    if seen.own_percent is not None:
        parts.append(f"processors: {seen.own_percent:.0f}% this process, {seen.others_percent:.0f}% others, "
                     f"{seen.steal_percent:.0f}% taken by the hypervisor")  # fmt: skip
    if seen.load_before is not None:
        parts.append(f"load average before {seen.load_before:.2f}")
    if seen.clock_mhz is not None:
        low, _, high = seen.clock_mhz
        parts.append(f"clock {low:.0f} MHz" if low == high else f"clock {low:.0f} to {high:.0f} MHz")
    if seen.gpu_clock_mhz is not None:
        parts.append(f"GPU clock {seen.gpu_clock_mhz[0]:.0f} to {seen.gpu_clock_mhz[2]:.0f} MHz")
    if seen.temperature_c is not None:
        parts.append(f"up to {seen.temperature_c:.0f} degrees Celsius")
    if seen.clock_reason:
        parts.append(seen.clock_reason)
    return "; ".join(parts)


def _energy(energy: Energy) -> str:
    if energy.joule is None:
        return f"energy: not measured, {energy.reason}" if energy.reason else ""
    return f"energy: {number(energy.joule)} J, {number(energy.joule_per_image)} J per picture ({energy.source})"


def _cold(start: ColdStart | None) -> str:
    if start is None:
        return "not measured"
    return (
        f"{start.total_ms / 1000:.2f} s to the first result, median of {start.processes} processes: interpreter "
        f"{start.interpreter_ms:.0f} ms, imports {start.import_ms:.0f} ms, load {start.load_ms:.0f} ms, first call "
        f"{start.first_call_ms:.0f} ms (the second {start.second_call_ms:.0f} ms)"
    )


def _warm(calls: Sequence[float]) -> str:
    if not calls:
        return "none"
    shown = ", ".join(number(value) for value in calls[:5])
    return f"{len(calls)} calls, not counted; the first took {shown} ms"


def _memory(memory: Memory | None) -> str:
    if memory is None or memory.peak is None:
        return "not known on this system"
    text = (
        f"resident {number(memory.before_load)} MB before loading, {number(memory.loaded)} MB after warm-up, "
        f"{number(memory.peak)} MB at its peak"
    )
    device = f"; GPU {number(memory.device_peak)} MB" if memory.device_peak is not None else ""
    return text + device


def _work(run: Run) -> str:
    work = run.work
    if work.gigaflop is None:
        return f"not known: {work.reason}" if work.reason else "not counted"
    text = f"{number(work.gigaflop)} G operations per picture (a multiply-add counts as two)"
    if work.floor_ms is None:
        return f"{text}; {work.reason}"
    text += f"; at {work.against} they would take {number(work.floor_ms)} ms"
    if work.reached_percent is None:
        return text
    over = " (over 100%: the machine was slower when its floor was measured)" if work.reached_percent > 100 else ""
    return f"{text}: the network reaches {work.reached_percent:.0f}% of that rate{over}"


def _split(run: Run) -> dict[str, Any] | None:
    split = run.split
    if not split.shares_percent:
        return {"text": f"no breakdown: {split.reason}", "slowest": []} if split.reason else None
    shares = ", ".join(f"{name} {share:.1f}%" for name, share in split.shares_percent.items())
    return {
        "text": f"{shares} ({split.source})",
        "slowest": [{"name": name, "kind": kind, "share": f"{share:.1f}%"} for name, kind, share in split.slowest],
    }


def _accuracy(accuracy: Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    about = f"{accuracy.images} pictures{f' of {accuracy.data}' if accuracy.data else ''}, in a separate pass"
    if accuracy.reason:
        about = f"Not scored: {accuracy.reason}"
    if accuracy.error is not None:
        about = f"Could not be scored: {accuracy.error}"
    return {
        "about": about,
        "scores": [{"name": name, "value": number(value)} for name, value in accuracy.scores.items()],
        "reference": accuracy.reference,
        "agreement": [{"name": name, "value": f"{value:.6g}"} for name, value in accuracy.agreement.items()],
        "reason": accuracy.reason,
        "notes": list(accuracy.notes),
    }


def _machine(machine: Machine) -> list[tuple[str, str]]:
    rows = [
        ("processor", f"{machine.cpu}, {machine.cores} cores, kernels for {machine.instruction_set}"),
        ("memory", f"{machine.memory_gb:g} GB"),
        ("system", f"{machine.system}{', a virtual machine' if machine.hypervisor else ''}"),
        ("clock governor", machine.governor or "unknown"),
    ]
    rows += [("GPU", ", ".join(f"{key} {value}" for key, value in gpu.items())) for gpu in machine.gpus]
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return [*rows, ("packages", f"Python {machine.python}, {packages}")]


def _floor(floor: Floor, again: Floor | None) -> dict[str, Any]:
    rows = []
    for rate in floor.matrix:
        other = None if again is None else again.rate(rate.what, rate.threads)
        where = "GPU" if rate.threads == 0 else str(rate.threads)
        later = number(None if other is None else other.value)
        rows.append((f"matrix product, {rate.what}", where, f"{number(rate.value)} Gop/s", later, rate.by))
    for rate in floor.bandwidth:
        where = "GPU" if rate.threads == 0 else str(rate.threads)
        pairs = () if again is None else again.bandwidth
        later = next((number(o.value) for o in pairs if o.threads == rate.threads), "–")
        rows.append(("memory copy, read + written", where, f"{number(rate.value)} GB/s", later, rate.by))
    if floor.launch_us is not None:
        rows.append(("smallest kernel", "GPU", f"{number(floor.launch_us)} us", "–", "torch"))
    return {"rows": rows, "missing": list(floor.missing.items())}
