"""What the numbers mean, in words: where the time goes, and why a number should not be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from lidcam_bench.latency.facts import Conditions, Finding, Floor
from lidcam_bench.latency.results import ScenarioResult, Stage
from lidcam_bench.latency.statistics import Summary

__all__ = ["HOST", "POST_PROCESSING", "TRANSFERS", "diagnose_machine", "diagnose_scenario"]

#: Steps by what would make them faster.
HOST = ("decode", "preprocess")
POST_PROCESSING = ("network/CAM + PaS", "maps", "crf", "boxes", "compose")
TRANSFERS = ("network/upload", "network/download", "network/copies")

_DOMINANT = 50.0  # percent of the whole
_TRANSFER = 25.0  # percent of the network's call
_UNSTABLE = 2.5  # coefficient of variation, percent; trtexec's limit
_BUSY = 5.0  # percent of the processors' time taken by others
_STEAL = 1.0
_MOVED = 5.0  # percent of the floor, of a clock, of a drift


def diagnose_scenario(result: ScenarioResult, distinct_images: int) -> tuple[Finding, ...]:
    """The findings about one scenario.

    Args:
        result: the scenario, without findings yet.
        distinct_images: how many pictures there were to draw from.
    """
    out = [
        *_where_the_time_goes(result.stages),
        *_queueing(result),
        *_samples(result, distinct_images),
        *_stability(result),
        *_disturbance(result.conditions),
    ]
    order = {"warning": 0, "note": 1}
    return tuple(sorted(out, key=lambda finding: order[finding.level]))


def _share(stages: Sequence[Stage], names: Sequence[str]) -> float:
    return sum(stage.share_percent for stage in stages if stage.name in names)


def _where_the_time_goes(stages: Sequence[Stage]) -> list[Finding]:
    if not stages:
        return []
    out = []
    network = _share(stages, ["network"])
    transfers = _share(stages, TRANSFERS)
    groups = {
        "host-bound": (
            _share(stages, HOST),
            HOST,
            "a faster network or engine would gain little; use smaller pictures, or decode more of them at once",
        ),
        "post-processing-bound": (_share(stages, POST_PROCESSING), POST_PROCESSING, "a faster network gains little"),
    }
    for kind, (share, names, advice) in groups.items():
        if share > _DOMINANT:
            parts = ", ".join(f"{s.name} {s.share_percent:.0f}%" for s in stages if s.name in names)
            out.append(Finding(kind=kind, level="note", text=f"{share:.0f}% of the time is {parts}: {advice}"))
    inside = _share(stages, ["network/CAM + PaS"])
    if not out and network - inside > _DOMINANT:
        text = (
            f"{network - inside:.0f}% of the time is the network: that is where another engine, a lower precision or "
            "more threads help"
        )
        out.append(Finding(kind="network-bound", level="note", text=text))
    if network and 100 * transfers / network > _TRANSFER:
        text = (
            f"{100 * transfers / network:.0f}% of the network call is copying between host and device: larger "
            "batches, smaller inputs or fewer outputs help"
        )
        out.append(Finding(kind="transfer-bound", level="note", text=text))
    return out


def _queueing(result: ScenarioResult) -> list[Finding]:
    if result.queue is None or result.latency is None or not result.latency.mean_ms:
        return []
    share = 100 * result.queue.mean_ms / result.latency.mean_ms
    if share <= _DOMINANT:
        return []
    text = f"queries spent {share:.0f}% of their latency waiting for a worker: the rate is near capacity or above it"
    return [Finding(kind="queueing", level="note", text=text)]


def _samples(result: ScenarioResult, distinct_images: int) -> list[Finding]:
    out = []
    if result.latency is not None:
        open_ended = [name for name, value in result.latency.percentiles.items() if not value.resolved]
        if open_ended:
            text = (
                f"{result.latency.n} samples do not bound {', '.join(open_ended)}: measure longer before quoting or "
                "comparing them"
            )
            level = "note" if open_ended == ["p99.9"] else "warning"
            out.append(Finding(kind="too few samples", level=level, text=text))  # type: ignore[arg-type]  # one of two
    if distinct_images < 8:
        text = (
            f"{distinct_images} distinct {'picture' if distinct_images == 1 else 'pictures'}: the times of decoding "
            "and of the CRF depend on picture content"
        )
        out.append(Finding(kind="few pictures", level="note", text=text))
    return out


def _stability(result: ScenarioResult) -> list[Finding]:
    out = []
    network = next((stage.summary for stage in result.stages if stage.name == "network"), None)
    steady: Summary | None = network if result.scenario in ("single-stream", "multi-stream") else None
    if steady is not None and steady.cv_percent > _UNSTABLE:
        text = (
            f"network calls, which do the same work every time, vary by {steady.cv_percent:.1f}% (coefficient of "
            f"variation; interquartile range {steady.iqr_percent:.1f}%): compare medians, with their intervals"
        )
        out.append(Finding(kind="unstable", level="warning", text=text))
    if steady is not None and steady.drift_percent is not None and abs(steady.drift_percent) > _MOVED:
        more = "longer" if steady.drift_percent > 0 else "less"
        text = (
            f"the network's last calls took {abs(steady.drift_percent):.0f}% {more} than its first: the machine's "
            "speed was not steady"
        )
        out.append(Finding(kind="drifting", level="warning", text=text))
    return out


def _disturbance(seen: Conditions) -> list[Finding]:
    out = []
    if seen.others_percent is not None and seen.others_percent > _BUSY:
        text = (
            f"other processes took {seen.others_percent:.0f}% of the processors' time: measure on a quiet machine"
        )
        out.append(Finding(kind="disturbed", level="warning", text=text))
    if seen.steal_percent is not None and seen.steal_percent > _STEAL:
        text = f"the hypervisor gave {seen.steal_percent:.0f}% of the processors' time to other guests"
        out.append(Finding(kind="disturbed", level="warning", text=text))
    causes = list(seen.throttle)
    for name, clock in (("the processor's", seen.clock_mhz), ("the GPU's", seen.gpu_clock_mhz)):
        if clock is not None and clock[2] > 0 and 100 * (1 - clock[0] / clock[2]) > 2 * _MOVED:
            causes.append(f"{name} clock went from {clock[2]:.0f} to {clock[0]:.0f} MHz")
    if causes:
        heat = "" if seen.temperature_c is None else f" ({seen.temperature_c:.0f} degrees Celsius)"
        out.append(Finding(kind="throttled", level="warning", text=f"the clock was lowered: {', '.join(causes)}{heat}"))
    return out


def diagnose_machine(before: Floor, after: Floor | None) -> tuple[Finding, ...]:
    """Whether the machine's speed changed between the first measurement of the floor and the last."""
    out = []
    for rate in before.matrix if after is not None else ():
        again = after.rate(rate.what, rate.threads) if after is not None else None
        if again is not None and abs(again.value / rate.value - 1) * 100 > _MOVED:
            many = "thread" if rate.threads == 1 else "threads"
            where = "on the GPU" if rate.threads == 0 else f"with {rate.threads} {many}"
            out.append(f"{rate.what} {where} {rate.value:.0f} before and {again.value:.0f} Gop/s after")
    if not out:
        return ()
    text = f"the machine's own speed changed during the run ({'; '.join(out)}): all times may have changed with it"
    return (Finding(kind="throttled" if _slower(before, after) else "unsteady machine", level="warning", text=text),)


def _slower(before: Floor, after: Floor | None) -> bool:
    pairs = [(rate.value, again.value) for rate in before.matrix
             if after is not None and (again := after.rate(rate.what, rate.threads)) is not None]  # fmt: skip
    return all(b < a for a, b in pairs)
