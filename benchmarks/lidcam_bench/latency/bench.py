"""`lidcam bench`: the machine, its floor, every job in a process of its own, and the floor again."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from lidcam_bench.latency.diagnosis import diagnose_machine
from lidcam_bench.latency.facts import Finding, Floor
from lidcam_bench.latency.floor import best_of, measure_floor
from lidcam_bench.latency.job import Job
from lidcam_bench.latency.machine import describe_machine
from lidcam_bench.latency.plan import BenchOptions
from lidcam_bench.latency.results import Results, Run, Variant
from lidcam_bench.latency.tasks import SCOPES
from lidcam_bench.latency.work import against_floor
from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import LidcamError
from lidcam_rt.image import read_image
from lidcam_rt.text import plain
from lidcam_rt.version import __version__

__all__ = ["describe_images", "run_bench", "run_job"]

#: Called with what is being done: the job's number, its target, the step.
Progress = Callable[[int, str, str], None]


def run_bench(
    jobs: Sequence[Job],
    options: BenchOptions,
    *,
    command: str,
    progress: Progress = lambda number, target, step: None,
    keep: Callable[[Results], None] = lambda results: None,
    run: Callable[[Job, Callable[[str], None]], Run] | None = None,
    measure: Callable[..., Floor] = measure_floor,
) -> Results:
    """Measure.

    Args:
        jobs: of `plan.plan_jobs`, at least one.
        options: that they were planned with.
        command: for the report.
        progress: called with what is being done.
        keep: called with the results so far after each job but the last: a run may be interrupted.
        run: measures one job; None: in a process of its own. For tests.
        measure: measures the floor; for tests.

    Raises:
        LidcamError: every job failed: the error of the first.
        ImageError: a picture cannot be read.
    """
    images, machine = describe_images(jobs[0].images), describe_machine()
    gpu = options.device.startswith("cuda") or any(job.target.path.suffix == ".engine" for job in jobs)
    threads = sorted({job.target.threads or usable_cores() for job in jobs})
    before: Floor | None = None
    after: Floor | None = None
    if options.floor:
        progress(0, "the machine", "floor")
        before = measure(threads, gpu=gpu, seconds=options.floor_seconds)
    floor = before or Floor(missing={"all": "not requested"})
    runs: list[Run] = []
    errors: list[LidcamError] = []

    def results() -> Results:
        return _printable(
            Results(
                package_version=__version__,
                command=command,
                date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                scope=SCOPES[options.scope],
                images=images,
                machine=machine,
                floor=floor,
                floor_again=after,
                runs=tuple(_with_work(entry, best_of(floor, after)) for entry in runs),
                findings=(
                    *_incomplete(len(runs), len(jobs)),
                    *_too_many_threads(runs, machine.cores),
                    *diagnose_machine(floor, after),
                ),
            )
        )

    for number, job in enumerate(jobs):
        try:
            result = (run or run_job)(job, lambda step, n=number, j=job: progress(n, j.target.key, step))  # type: ignore[misc]
        except LidcamError as error:
            errors.append(error)
            result = Run(variant=_asked(job), error=str(error))
        runs.append(result)
        if len(errors) < len(runs) < len(jobs):
            keep(results())
    if len(errors) == len(jobs):
        raise errors[0]
    if options.floor:
        progress(len(jobs), "the machine", "floor")
        after = measure(threads, gpu=gpu, seconds=options.floor_seconds)
    return results()


def _incomplete(done: int, jobs: int) -> list[Finding]:
    if done == jobs:
        return []
    return [Finding(kind="incomplete", level="warning", text=f"{done} of {jobs} variants were measured, then it ended")]


def _too_many_threads(runs: Sequence[Run], cores: int) -> list[Finding]:
    most = max((run.variant.threads for run in runs if run.error is None), default=0)
    if most <= cores:
        return []
    text = f"{most} threads on {cores} {'core' if cores == 1 else 'cores'}: they wait for each other"
    return [Finding(kind="more threads than cores", level="warning", text=text)]


def _printable(results: Results) -> Results:
    """The same with every text printable: reports are UTF-8, names of files need not be."""

    def shown(value: Any) -> Any:
        if isinstance(value, str):
            return plain(value)
        if isinstance(value, dict):
            return {shown(key): shown(entry) for key, entry in value.items()}
        return [shown(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    return Results.model_validate(shown(results.model_dump()))


def _with_work(run: Run, floor: Floor) -> Run:
    """A run whose network is compared with the floor."""
    if run.error is not None:
        return run
    result = run.scenario("single-stream") or run.scenario("multi-stream")
    stage = None
    if result is not None:
        named = {stage.name: stage for stage in result.stages}
        stage = named.get("network/network") or named.get("network/graph") or named.get("network")
    per_image = None if stage is None or result is None else stage.summary.median_ms * result.queries / result.images
    operations = None if run.work.gigaflop is None else run.work.gigaflop * 1e9
    threads = 0 if run.variant.device.startswith("cuda") else run.variant.threads or usable_cores()
    work = against_floor(operations, run.work.reason, per_image, run.variant.precision, threads, floor)
    return run.model_copy(update={"work": work})


def _asked(job: Job) -> Variant:
    """The variant of a job that could not be run, as requested."""
    target = job.target
    return Variant(
        key=target.key,
        target=target.name,
        engine=target.engine,
        device=target.device,
        precision=target.precision,
        size=(0, 0),
        threads=target.threads,
        batch=target.batch,
        refine=target.refine,
        pipeline=target.pipeline,
    )


def run_job(job: Job, progress: Callable[[str], None] = lambda step: None) -> Run:
    """Measure a job in a process of its own.

    Raises:
        LidcamError: the job failed, or its process died; the message says how.
    """
    with tempfile.TemporaryDirectory(prefix="lidcam-bench-") as folder:
        given, answer = Path(folder) / "job.json", Path(folder) / "run.json"
        given.write_text(json.dumps(job.model_dump(mode="json")), encoding="utf-8")  # names may be no UTF-8
        command = [sys.executable, "-m", "lidcam_bench.latency.worker", str(given), str(answer)]
        with (Path(folder) / "stderr").open("w+b") as errors:
            status = _attend(command, errors, progress)
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        content: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
    if status == 0 and content:
        return Run.model_validate(content)
    if "error" in content:
        trace = "" if content["known"] or not os.environ.get("LIDCAM_TRACEBACK") else f"\n{said}"
        raise LidcamError(f"{content['error']}{trace}")
    last = "; ".join(said.strip().splitlines()[-2:]) or "it said nothing"
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    raise LidcamError(f"the measuring process of {job.target.key} {how} ({last}): was there enough memory?")


def _attend(command: Sequence[str], errors: IO[bytes], progress: Callable[[str], None]) -> int:
    """Run a command, pass its lines on, and leave nothing running behind; its exit status."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                progress(line.rstrip("\n"))
            return process.wait()
        except BaseException:  # Ctrl-C: LoadGen's own threads would keep running
            process.kill()
            raise


def describe_images(paths: Sequence[Path]) -> dict[str, Any]:
    """Number, sizes, bytes and SHA-256 of the pictures; each is decoded once: a damaged one is found beforehand.

    Raises:
        ImageError: one cannot be read.
    """
    sizes, lengths, digest = [], [], hashlib.sha256()
    for path in paths:
        picture = read_image(path)
        sizes.append((picture.shape[1], picture.shape[0]))
        content = path.read_bytes()
        lengths.append(len(content))
        digest.update(hashlib.sha256(content).digest())
    middle = len(paths) // 2
    widths, heights, lengths = (
        sorted(width for width, _ in sizes), sorted(height for _, height in sizes), sorted(lengths),
    )  # fmt: skip
    return {
        "folder": paths[0].resolve().parent.name,
        "count": len(paths),
        "sha256": digest.hexdigest(),
        "width": [widths[0], widths[middle], widths[-1]],
        "height": [heights[0], heights[middle], heights[-1]],
        "bytes": [lengths[0], lengths[middle], lengths[-1]],
    }
