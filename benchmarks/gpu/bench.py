"""`lidcam bench` on the GPU: the same command as anywhere, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.build import offered
from benchmarks.gpu.crf import photos
from benchmarks.gpu.report import Cannot, Wrong

__all__ = ["check_bench"]

_ROOT = Path(__file__).parents[2]

#: `lidcam bench` where nothing is installed.
_LIDCAM_BENCH = """
from importlib.metadata import EntryPoint
from lidcam_cli.app import build_app
build_app(verbs={"bench": EntryPoint("bench", "lidcam_bench.cli.bench:app", "lidcam.verbs")})(prog_name="lidcam")
"""


def check_bench(
    data: dict[str, Any], artifact: Path, folder: Path, *, device: str, batches: str = "1,8,32", seconds: float = 3.0,
    floor: bool = True,
) -> None:  # fmt: skip
    """Percentiles, throughput, stages, memory, energy and floor of the artifact.

    Args:
        data: receives a row per variant.
        artifact: to measure.
        folder: for pictures and reports.
        device: `cuda:0`, or `cpu` in a rehearsal.
        batches: of `--batch`.
        seconds: of `--duration`.
        floor: whether the machine is measured too.

    Raises:
        Cannot: LoadGen is not installed.
        Wrong: the command failed, or measured another device.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise Cannot("needs LoadGen: pip install mlcommons-loadgen")
    from PIL import Image

    pictures, out = folder / "bench-pictures", folder / "bench"
    pictures.mkdir(exist_ok=True)
    for number, picture in enumerate(photos(np.random.default_rng(0), 16, 375, 500)):
        Image.fromarray(picture).save(pictures / f"{number:02d}.jpg", quality=90)
    options = ["--images", pictures, "--device", device, "--batch", batches, "--duration", seconds, "--cold-starts", 1,
               "--no-accuracy", *([] if floor else ["--no-floor"]), "-o", out]  # fmt: skip
    command = [sys.executable, "-c", _LIDCAM_BENCH, "bench", str(artifact)]
    paths = [str(_ROOT / name) for name in ("", "export", "training", "benchmarks")]  # a checkout not installed
    paths += offered()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Wrong(f"lidcam bench ended with status {done.returncode}: {' '.join(last)}")
    from lidcam_bench.latency.results import load_results

    results = load_results(out / "results.json")
    data["floor"] = results.floor.model_dump(mode="json")
    data["variants"] = {
        run.variant.key: {
            "engine": run.variant.engine,
            "device": run.variant.device,
            "peak_mb": run.memory.peak if run.memory else None,
            "device_mb": run.memory.device_peak if run.memory else None,
            "cold_start_ms": round(run.cold_start.total_ms, 1) if run.cold_start else None,
            "of_the_floor_percent": run.work.reached_percent,
            "scenarios": {entry.key: _row(entry) for entry in run.scenarios},
        }
        for run in results.runs
    }
    elsewhere = [run.variant.key for run in results.runs if not run.variant.device.startswith(device.partition(":")[0])]
    if elsewhere:
        raise Wrong(f"{', '.join(elsewhere)} did not run on {device}")


def _row(entry: Any) -> dict[str, Any]:
    row = {"verdict": entry.verdict, "images_per_second": round(entry.images_per_second, 1)}
    if entry.latency is not None:
        row |= {f"{name}_ms": round(value.ms, 3) for name, value in entry.latency.percentiles.items()}
    row["stages_ms"] = {stage.name: round(stage.summary.median_ms, 4) for stage in entry.stages}
    row["joule_per_image"] = entry.energy.joule_per_image or entry.energy.reason
    row["findings"] = sorted({finding.kind for finding in entry.findings})
    return row
