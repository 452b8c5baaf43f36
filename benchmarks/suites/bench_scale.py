"""Pictures per second of `lidcam scale` on processes, on Ray and on Spark, beside `Localizer.stream`, on one machine.

    python benchmarks/suites/bench_scale.py [--photos FOLDER] [--model LITE0.onnx] [--rounds 3] [--write NAME]

Every peer localizes the same photos, interleaved, on all cores. A peer is timed from call to end, including the start
of its workers; `start_seconds` is that of a job of one picture. Besides wall-clock time, which other work on the
machine stretches, the processor time of this process and of all its descendants is counted (not for Spark).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lite0
import results

import lidcam_rt
from lidcam_scale import Job, scale
from lidcam_scale.listing import list_pictures
from lidcam_scale.processes import Processes

WHAT = (
    "lidcam scale on processes, Ray and Spark against Localizer.stream, Lite0 at 320, photos to rows with masks, in "
    "turns on all cores (`here`: on one)"
)
CORES = 2
Peer = Callable[[list[str]], object]


def processor_time() -> float:
    """Seconds that this process and all that descend from it have used, those included that have ended."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(int(field) for field in fields[11:15])

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return sum(used for pid, used in ticks.items() if is_ours(pid)) / os.sysconf("SC_CLK_TCK")


def peers(model: Path, localizer: Any, folder: Path) -> tuple[dict[str, Peer], list[Callable[[], object]]]:
    """What is measured by name, and what ends it."""
    job, count = Job(str(model)), iter(range(10**6))

    def job_on(executor: Any) -> Peer:
        return lambda paths: scale(job, paths, folder / f"{next(count)}", executor=executor)

    measured: dict[str, Peer] = {
        "stream": lambda paths: [None for _ in localizer.stream(paths, keep_image=False)],
        "here": job_on(None),
        "processes": job_on(Processes(CORES)),
    }
    ends: list[Callable[..., object]] = []
    if find_spec("ray"):
        import ray

        from lidcam_scale.on_ray import RayActors, start_ray

        start_ray("local", cores=CORES)
        measured["ray"] = job_on(RayActors("local", workers=CORES))
        ends.append(ray.shutdown)
    if find_spec("pyspark"):
        from lidcam_scale.on_spark import SparkTasks, start_spark

        session = start_spark(f"local[{CORES}]")
        measured["spark"] = job_on(SparkTasks(f"local[{CORES}]"))
        ends.append(session.stop)
    return measured, ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photos; by default crops of scikit-image's")
    parser.add_argument("--model", type=Path, help="artifact of EfficientNet-Lite0; by default it is exported")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", metavar="NAME")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or lite0.artifact(folder / "lite0.onnx")
        if options.photos is None:
            (folder / "photos").mkdir()
            lite0.photos(folder / "photos", 200)
        paths = list_pictures([str(options.photos or folder / "photos")])
        with lidcam_rt.load(model, device="cpu") as localizer:
            measured, ends = peers(model, localizer, folder)
            seconds: dict[str, list[float]] = {peer: [] for peer in measured}
            processor: dict[str, list[float]] = {peer: [] for peer in measured}
            start = {}
            for peer, run in measured.items():
                before = time.perf_counter()
                run(paths[:1])
                start[peer] = time.perf_counter() - before
            for _ in range(options.rounds):
                for peer, run in measured.items():
                    before, used = time.perf_counter(), processor_time()
                    run(paths)
                    seconds[peer].append(time.perf_counter() - before)
                    processor[peer].append(processor_time() - used)
            for end in ends:
                end()
    rows: dict[str, Any] = {}
    for peer, values in seconds.items():
        ratio, spread = results.ratio(seconds["stream"], values)
        rows[peer] = {
            "pictures_per_second": round(len(paths) / statistics.median(values), 2),
            "seconds": [round(value, 2) for value in values],
            "start_seconds": round(start[peer], 2),
            "over_stream": ratio,
            "over_stream_p10_p90": spread,
        }
        if peer != "spark":  # what its Python processes used is lost when they end
            rows[peer]["processor_ms_per_picture"] = round(1e3 * statistics.median(processor[peer]) / len(paths), 2)
        print(f"{peer:10} {rows[peer]}")
    command = f"python benchmarks/suites/bench_scale.py --rounds {options.rounds}"
    versions = {name: __import__(name).__version__ for name in ("pyarrow", "ray", "pyspark") if find_spec(name)}
    results.write(
        options.write, WHAT, load, rows, command=command, pictures=len(paths), workers=CORES, versions=versions
    )


if __name__ == "__main__":
    main()
