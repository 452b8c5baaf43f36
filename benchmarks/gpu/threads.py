"""CUDA graphs that are captured while other threads use the GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.crf import photos
from benchmarks.gpu.report import Cannot, Wrong

__all__ = ["check_threads"]

_SIZES = ((375, 500), (240, 320), (500, 333))


def check_threads(
    data: dict[str, Any], artifact: Path, *, rehearsal: bool = False, index: int = 0,
    batches: tuple[int, ...] = (1, 4, 8), rounds: int = 4, open: Any = None,
) -> None:  # fmt: skip
    """A pool of two localizers with graphs on one GPU, while a third localizer is called, opened and closed beside it.

    Args:
        data: receives the results.
        artifact: what is run.
        rehearsal: there is no GPU.
        index: number of the GPU.
        batches: batch sizes, each captured by both localizers of the pool.
        rounds: streams over all of them, each with threads of its own.
        open: makes a `ResidentLocalizer`; None: the class itself.

    Raises:
        Cannot: there is no GPU, or ONNX Runtime has no CUDA provider.
        Wrong: a call failed, or a result is not that of a localizer alone without graphs.
    """
    from lidcam_gpu.pool import ResidentPool
    from lidcam_gpu.resident import ResidentLocalizer
    from lidcam_rt.errors import BackendError

    if rehearsal:
        raise Cannot("CUDA graphs need ONNX Runtime's CUDA provider")
    open, device = open or ResidentLocalizer, f"cuda:{index}"
    options: dict[str, Any] = {"device": device, "max_batch": max(batches)}
    rng = np.random.default_rng(6)
    given = [[*photos(rng, count, *_SIZES[i % len(_SIZES)])] for i, count in enumerate(batches)]
    try:
        alone = open(artifact, **options)
    except BackendError as error:
        raise Cannot(str(error)) from None
    with alone:
        wanted = [alone(pictures, maps=True) for pictures in given]
    failures: list[str] = []
    calls = {"pool": 0, "beside it": 0}
    ended = threading.Event()

    def beside() -> None:
        while not ended.is_set():
            with open(artifact, **options) as other:
                for pictures in given:
                    other(pictures)
                    calls["beside it"] += 1

    begin = time.perf_counter()
    other = threading.Thread(target=_kept, args=(beside, failures))
    other.start()
    got: list[Any] = []
    try:
        with ResidentPool(artifact, devices=[device, device], open=open, graph=True, max_batch=max(batches)) as pool:
            for _ in range(rounds):
                got += pool.stream(given * 2, maps=True)
    except BackendError as error:
        failures.append(str(error))
    finally:
        ended.set()
        other.join()
    calls["pool"] = len(got)
    differ = [np.mean(one.maps != wanted[i % len(given)].maps) for i, one in enumerate(got)]
    data |= {
        "batches": batches,
        "calls": calls,
        "seconds": round(time.perf_counter() - begin, 2),
        "other class": sum(
            int(np.count_nonzero(one.class_ids != wanted[i % len(given)].class_ids)) for i, one in enumerate(got)
        ),
        "largest share of map pixels that differ": round(float(max(differ, default=0)), 6),
        "failures": failures,
    }
    print(f"   {data}", flush=True)
    if failures:
        raise Wrong(failures[0])
    if data["other class"] or data["largest share of map pixels that differ"] > 0.01:
        raise Wrong(f"results are not those of a localizer alone: {data}")


def _kept(work: Callable[[], None], failures: list[str]) -> None:
    try:
        work()
    except Exception as error:
        failures.append(f"beside the pool: {type(error).__name__}: {error}")
