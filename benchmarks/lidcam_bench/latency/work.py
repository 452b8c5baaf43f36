"""The arithmetic of a network against the floor."""

from __future__ import annotations

from lidcam_bench.latency.facts import Floor, Work

__all__ = ["against_floor"]


def against_floor(
    operations: float | None, reason: str, network_ms: float | None, precision: str, threads: int, floor: Floor
) -> Work:
    """The network's arithmetic against the measured matrix rate.

    Args:
        operations: of one picture, or None.
        reason: why they are not known.
        network_ms: measured time of the network per picture, or None.
        precision: that the network ran in.
        threads: on the processor; 0: a GPU.
        floor: of this run.
    """
    if operations is None:
        return Work(reason=reason)
    gigaflop = operations / 1e9
    rate = floor.rate(precision, threads)
    if rate is None:
        why = floor.missing.get(precision, f"no matrix rate was measured in {precision}")
        return Work(gigaflop=gigaflop, reason=f"no floor: {why}")
    floor_ms = 1e3 * gigaflop / rate.value
    where = "on the GPU" if threads == 0 else f"with {threads} {'thread' if threads == 1 else 'threads'}"
    against = f"{rate.value:.0f} Gop/s in {precision} {where} ({rate.by})"
    reached = 100 * floor_ms / network_ms if network_ms else None
    return Work(gigaflop=gigaflop, floor_ms=floor_ms, reached_percent=reached, against=against)
