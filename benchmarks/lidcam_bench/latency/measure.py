"""A job from beginning to end: open, warm up, scenarios, profile, accuracy."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lidcam_bench.latency.accuracy import measure_accuracy
from lidcam_bench.latency.cold_start import measure_cold_start
from lidcam_bench.latency.cuda import device_for
from lidcam_bench.latency.diagnosis import diagnose_scenario
from lidcam_bench.latency.facts import Accuracy, Memory, Split, Work
from lidcam_bench.latency.job import Job
from lidcam_bench.latency.memory import peak_mb, reset_peak, resident_mb
from lidcam_bench.latency.node_profile import count_operations, counting_options, profile_nodes, split_nodes
from lidcam_bench.latency.nvml import Nvml
from lidcam_bench.latency.results import Run, Scenario, ScenarioResult, Variant, save_samples
from lidcam_bench.latency.scenario import Runner, Times, warm_up
from lidcam_bench.latency.stages import with_split
from lidcam_bench.latency.target import Target, open_target
from lidcam_bench.latency.tasks import Tasks
from lidcam_rt.backends.base import unobserved
from lidcam_rt.errors import LidcamError
from lidcam_rt.files import file_sha256
from lidcam_rt.localizer import Localizer
from lidcam_rt.segmentation import Segmenter

__all__ = ["measure"]

_PROFILED_CALLS = 10


def measure(job: Job, progress: Callable[[str], None] = lambda text: None) -> Run:
    """Measure one target in this process.

    Args:
        job: what to do.
        progress: called with what is being done.

    Raises:
        LidcamError: the target cannot be opened or run.
    """
    target = job.target
    pictures = [path.read_bytes() for path in job.images]
    before = resident_mb()
    progress("load")
    with open_target(target) as localizer:
        gpu = localizer.device.startswith("cuda")
        nvml = Nvml(int(localizer.device.partition(":")[2] or 0)) if gpu else None
        device_before = nvml.memory_mb() if nvml is not None else None
        tasks = Tasks(localizer, target, pictures, job.scope)
        progress("warm-up")
        task, batch = tasks.task(), target.batch
        warm = warm_up(lambda n: task([(n * batch + i) % len(pictures) for i in range(batch)]), job.warm_up_seconds)
        loaded = resident_mb()
        reset_peak()
        times = Times(
            seconds=job.seconds,
            max_seconds=job.max_seconds,
            bound_ms=job.bound_ms,
            single_ms=statistics.median(warm[len(warm) // 2 :]) / batch,
        )
        runner = Runner(tasks, times, device=device_for(localizer.device), nvml=nvml)
        results = _scenarios(job, runner, progress)
        memory = _memory(before, loaded, nvml, device_before)
        localizer.pipeline.observe(unobserved)
        progress("profile")
        split, work = _profile(job, localizer, tasks) if job.profile else (Split(reason="not requested"), Work())
        accuracy = None
        if job.accuracy is not None:
            progress("accuracy")
            try:
                accuracy = measure_accuracy(localizer, target, job.accuracy)
            except LidcamError as error:  # what was timed is kept
                accuracy = Accuracy(data=job.accuracy.data or "", error=str(error))
        cold = None
        if job.cold_starts:
            progress("cold start")
            with tempfile.TemporaryDirectory(prefix="lidcam-cold-") as folder:
                cold = measure_cold_start(target, job.images[0], job.cold_starts, Path(folder))
        return Run(
            variant=describe(target, localizer),
            cold_start=cold,
            memory=memory,
            warm_up_ms=warm,
            scenarios=tuple(_complete(result, split, len(pictures)) for result in results),
            split=split,
            work=work,
            accuracy=accuracy,
        )


def describe(target: Target, localizer: Localizer | Segmenter) -> Variant:
    """The variant of an open target."""
    spec = localizer.manifest.input
    return Variant(
        key=target.key,
        target=target.name,
        sha256=file_sha256(target.path) if target.path.is_file() else None,
        source=localizer.manifest.source.name,
        engine=localizer.backend.name,
        device=localizer.device,
        precision=localizer.backend.precision,
        size=(spec.height, spec.width),
        threads=target.threads,
        batch=target.batch,
        refine=target.refine,
        pipeline="track1" if isinstance(localizer, Segmenter) else target.pipeline,
    )


def _scenarios(job: Job, runner: Runner, progress: Callable[[str], None]) -> list[ScenarioResult]:
    out: list[ScenarioResult] = []

    def keep(result: ScenarioResult, arrays: dict[str, Any]) -> ScenarioResult:
        name = f"{job.stem}_{result.key.replace(' ', '_').replace('%', '')}.npz"
        if any(entry.key == result.key for entry in out):  # several rates without loads
            name = f"{job.stem}_{result.scenario}_{len(out)}.npz"
        save_samples(job.samples / name, {key: np.asarray(value) for key, value in arrays.items()})
        out.append(result.model_copy(update={"samples": f"{job.samples.name}/{name}"}))
        return out[-1]

    throughput: float | None = None
    for scenario in _ordered(job):
        progress(scenario)
        if scenario == "offline":
            throughput = keep(*runner.offline()).images_per_second
        elif scenario == "server":
            rates = [(qps, None if throughput is None else qps / throughput) for qps in job.qps]
            if throughput is not None:
                rates += [(load * throughput, load) for load in job.loads]
            for qps, load in rates:
                progress(f"server, {qps:.3g} queries per second")
                keep(*runner.server(qps, load))
        else:
            keep(*runner.stream(scenario, job.target.batch))
    return out


def _ordered(job: Job) -> Sequence[Scenario]:
    """The scenarios, offline before the server that needs its throughput."""
    wanted = list(dict.fromkeys(job.scenarios))
    if "server" in wanted:
        wanted.remove("server")
        if job.loads and "offline" not in wanted:
            wanted.append("offline")
        wanted.append("server")
    return wanted


def _memory(before: float | None, loaded: float | None, nvml: Nvml | None, device_before: float | None) -> Memory:
    device, reason = None, "no GPU is used"
    if nvml is not None:
        after = nvml.memory_mb()
        reason = nvml.reason or "this GPU does not report its memory"
        if after is not None and device_before is not None:
            device, reason = after - device_before, ""
    return Memory(
        before_load=before, loaded=loaded, peak=peak_mb(), device_peak=device, device_reason=reason
    )


def _complete(result: ScenarioResult, split: Split, pictures: int) -> ScenarioResult:
    """A result with the parts of the network's call and with its findings."""
    result = result.model_copy(update={"stages": with_split(result.stages, split)})
    return result.model_copy(update={"findings": diagnose_scenario(result, pictures)})


def _profile(job: Job, localizer: Localizer | Segmenter, tasks: Tasks) -> tuple[Split, Work]:
    """How a call of the network divides, and the operations of one picture."""
    path = job.target.path
    if path.suffix.lower() != ".onnx":
        reason = f"{path.name} is not an artifact: its graph is not read"
        return Split(reason=reason), Work(reason=reason)
    pipeline = localizer.pipeline
    batch = [tasks.pictures[i % len(tasks.pictures)] for i in range(job.target.batch)]
    prepared = [pipeline.prepare(picture, keep_image=False) for picture in batch]
    feed: dict[str, Any] = {"image": np.stack([entry.array for entry in prepared])}
    if localizer.manifest.labels_input:
        feed["labels"] = np.full((len(prepared), localizer.manifest.top_k), -1, np.int64)
    single = {name: value[:1] for name, value in feed.items()}
    try:
        work = Work(gigaflop=count_operations(profile_nodes(path, [single], options=counting_options())) / 1e9)
    except Exception as error:  # ONNX Runtime's errors have no common class
        work = Work(reason=f"its operations could not be counted ({str(error).strip().splitlines()[0][:160]})")
    if isinstance(localizer, Segmenter):
        return Split(reason="a segmentation network has no activation map and no PaS"), work
    if not localizer.backend.name.startswith("onnxruntime"):
        return Split(reason=f"{localizer.backend.name} gives no profile of its nodes"), work
    from lidcam_rt.backends.onnxruntime import session_options

    providers = ["CPUExecutionProvider"]
    if localizer.device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
    options = session_options(localizer.manifest, job.target.threads)
    try:
        runs = profile_nodes(path, [feed] * (_PROFILED_CALLS + 1), options=options, providers=providers)
        return split_nodes(path, runs, _PROFILED_CALLS, "ONNX Runtime's profile"), work
    except Exception as error:
        return Split(reason=f"no profile ({str(error).strip().splitlines()[0][:160]})"), work
