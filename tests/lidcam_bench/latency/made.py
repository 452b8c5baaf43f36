"""Made results of `lidcam bench`: pipelines whose stages take injected times on a clock that moves when told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lidcam_bench.latency.facts import (
    Accuracy,
    ColdStart,
    Conditions,
    Energy,
    Floor,
    Machine,
    Memory,
    Rate,
    Split,
    Work,
)
from lidcam_bench.latency.loadgen import Query
from lidcam_bench.latency.results import (
    Results,
    Run,
    ScenarioResult,
    Variant,
    save_results,
    save_samples,
)
from lidcam_bench.latency.stages import stages_of, with_split
from lidcam_bench.latency.statistics import summarize
from lidcam_bench.latency.system import Direct, stage_arrays
from lidcam_bench.latency.timer import StageTimer

MS = 1_000_000
#: Milliseconds of each stage of a Track 3 picture with CRF.
STAGES = {"decode": 4.0, "preprocess": 2.0, "network": 60.0, "maps": 1.0, "crf": 30.0, "boxes": 0.5}


def samples(stages=None, *, n=600, cv=0.03, seed=0, slower=None, outliers=0.01):
    """Raw samples of a single stream: a real StageTimer and system, on a clock that each stage moves by its time.

    Args:
        stages: milliseconds by name.
        slower: factor by name.
        outliers: share of queries that something else holds up for up to 50 ms, in some stage.
    """
    stages, rng, now = stages or STAGES, np.random.default_rng(seed), [0]
    timer = StageTimer(clock=lambda: now[0])
    factor = slower or {}

    def task(pictures):
        names = list(stages)
        unlucky = names[rng.integers(len(names))] if rng.random() < outliers else None
        for name, mean in stages.items():
            with timer.stage(name):
                now[0] += round(MS * mean * factor.get(name, 1.0) * rng.lognormal(0, cv))
                now[0] += round(MS * 50 * rng.random()) if name == unlucky else 0
        now[0] += 200_000  # Python between the stages

    system = Direct(task, timer)
    for number in range(n):
        system.issue(Query(number, (number,), (0,)), lambda ids: None)
    arrays = stage_arrays(system.records, n)
    return {"latency": arrays["whole"] + 20_000, "issued_late": np.zeros(n, np.int64), **arrays}


def scenario(arrays, name, *, split=None, kind="single-stream", **fields):
    latency = arrays["latency"]
    values = {
        "scenario": kind,
        "verdict": "VALID",
        "queries": len(latency),
        "images": len(latency),
        "seconds": float(latency.sum()) / 1e9,
        "images_per_second": 1e9 * len(latency) / float(latency.sum()),
        "latency": summarize(latency),
        "stages": with_split(stages_of(arrays), split or Split()),
        "samples": f"samples/{name}",
        "conditions": Conditions(seconds=1.0, others_percent=1.0, steal_percent=0.0, own_percent=95.0),
    }
    return ScenarioResult(**(values | fields))


def variant(key="m.onnx", **fields):
    values = {
        "key": key,
        "target": "m.onnx",
        "sha256": "0" * 64,
        "engine": "onnxruntime 1.0",
        "device": "cpu",
        "precision": "fp32",
        "size": (224, 224),
        "threads": 2,
        "batch": 1,
    }
    return Variant(**(values | fields))


def machine(**fields):
    values = {
        "name": "Acme Fast, 2 cores",
        "cpu": "Acme(R) Fast (family 6)",
        "cores": 2,
        "instruction_set": "avx512",
        "memory_gb": 8.0,
        "system": "Linux 6.1 x86_64",
        "hypervisor": "yes",
        "governor": None,
        "gpus": (),
        "packages": {"numpy": "2.0"},
        "python": "3.11.0",
    }
    return Machine(**(values | fields))


def floor(rate=200.0):
    return Floor(
        matrix=(Rate(what="fp32", threads=2, value=rate, by="numpy 2.0"),),
        bandwidth=(Rate(what="copy", threads=2, value=12.0, by="numpy 2.0"),),
        missing={"bf16": "needs openvino or torch"},
    )


def run(arrays, name="0.npz", *, key="m.onnx", accuracy=None, **fields):
    split = fields.pop("split", Split(shares_percent={"network": 92.0, "CAM + PaS": 8.0}, source="a profile, 10 calls"))
    values = {
        "variant": variant(key),
        "cold_start": ColdStart(
            processes=3, interpreter_ms=50, import_ms=250, load_ms=200, first_call_ms=140, second_call_ms=100
        ),
        "memory": Memory(before_load=80, loaded=220, peak=300),
        "warm_up_ms": (240.0, 120.0, 101.0, 100.0, 99.0),
        "scenarios": (scenario(arrays, name, split=split),),
        "split": split,
        "work": Work(gigaflop=4.0, floor_ms=20.0, reached_percent=36.0, against="200 Gop/s in fp32 (numpy 2.0)"),
        "accuracy": accuracy,
    }
    return Run(**(values | fields))


def results(*runs, **fields):
    values = {
        "package_version": "0.1.0",
        "command": "lidcam bench m.onnx --images photos -o out",
        "date": "2026-11-26T06:00:00+00:00",
        "scope": "from the encoded picture to the box",
        "images": {"folder": "photos", "count": 16},
        "machine": machine(),
        "floor": floor(),
        "floor_again": floor(),
        "runs": runs,
    }
    return Results(**(values | fields))


def saved(folder: Path, arrays, *, made=None, **fields) -> Path:
    """results.json with its samples in a folder."""
    save_samples(folder / "samples" / "0.npz", arrays)
    path = folder / "results.json"
    save_results(path, made or results(run(arrays, **fields)))
    return path


def accuracy(**scores):
    return Accuracy(data="photos", images=16, scores=scores)


__all__ = ["Energy", "accuracy", "floor", "machine", "results", "run", "samples", "saved", "scenario", "variant"]
