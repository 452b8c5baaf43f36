"""results.json of `lidcam bench`: a typed model with a version, and the raw samples beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from lidcam_bench.latency.facts import (
    Accuracy,
    ColdStart,
    Conditions,
    Energy,
    Fact,
    Finding,
    Floor,
    Machine,
    Memory,
    Split,
    Work,
)
from lidcam_bench.latency.statistics import Samples, Summary
from lidcam_rt.errors import InputError
from lidcam_rt.files import make_folder, read_file, write_atomically

__all__ = ["SCHEMA_VERSION", "Results", "Run", "Scenario", "ScenarioResult", "Stage", "Variant", "load_results",
           "load_samples", "sample_files", "save_results", "save_samples"]  # fmt: skip

SCHEMA_VERSION = 1

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]


class Variant(Fact):
    """One way to run one target.

    Attributes:
        key: its name in this file and in comparisons: what was requested, without versions or hashes.
        target: file or folder name.
        sha256: of the artifact or engine; None for a folder.
        source: what was exported, from the manifest.
        engine: name and version, as it names itself.
        device: where it ran.
        precision: as built or run.
        size: (height, width) of the network's input.
        threads: threads per call of the network; 0: one per core, the runtime's choice.
        batch: largest batch per call of the network.
        refine: preset of the dense CRF, or None.
        pipeline: `track3` (class, map, mask, box) or `track1` (label map).
    """

    key: str
    target: str
    sha256: str | None = None
    source: str = ""
    engine: str
    device: str
    precision: str
    size: tuple[int, int]
    threads: int
    batch: int
    refine: str | None = None
    pipeline: Literal["track3", "track1"] = "track3"


class Stage(Fact):
    """A step of the pipeline.

    Attributes:
        name: of the step; a part of a step is named STEP/PART.
        summary: of its times.
        share_percent: its total over the total of the whole queries.
        derived: how it was obtained, where it was not timed itself.
    """

    name: str
    summary: Summary
    share_percent: float
    derived: str = ""


class ScenarioResult(Fact):
    """One scenario of one variant.

    Attributes:
        scenario: LoadGen's.
        verdict: LoadGen's.
        reasons: why it is INVALID, as LoadGen says.
        queries: how many LoadGen issued.
        images: how many pictures those were.
        seconds: from the first query to the last answer.
        images_per_second: pictures over seconds.
        target_qps: queries per second that were requested (server), else None.
        load: target_qps over the throughput of the offline scenario of the same variant, else None.
        bound_ms: the latency bound that the verdict is about (server), else None.
        bound_percentile: of that bound, 99 as a rule.
        latency: of the queries, as LoadGen measured them; in the offline scenario there is one query, and these are
            the completion times of pictures, which are not latencies: None.
        queue: time that queries waited before the work on them began (server), else None.
        stages: in their order.
        settings: LoadGen's, as it printed them.
        conditions: of the machine.
        energy: of the machine.
        findings: diagnoses.
        samples: file of the raw samples, relative to results.json, or None.
    """

    scenario: Scenario
    verdict: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...] = ()
    queries: int
    images: int
    seconds: float
    images_per_second: float
    target_qps: float | None = None
    load: float | None = None
    bound_ms: float | None = None
    bound_percentile: float | None = None
    latency: Summary | None = None
    queue: Summary | None = None
    stages: tuple[Stage, ...] = ()
    settings: dict[str, str] = Field(default_factory=dict)
    conditions: Conditions
    energy: Energy = Energy()
    findings: tuple[Finding, ...] = ()
    samples: str | None = None

    @property
    def key(self) -> str:
        """Names it within its variant."""
        rate = "" if self.load is None else f" at {100 * self.load:.0f}%"
        return f"{self.scenario}{rate}"


class Run(Fact):
    """One variant with all that was measured of it.

    Attributes:
        variant: what was run.
        cold_start: None if it was not requested.
        memory: of its process.
        warm_up_ms: the calls before measurement began, in order; the first are those of a cold process.
        scenarios: in the order in which they ran.
        split: of the network's call.
        work: of the network.
        accuracy: None if it was not requested.
        error: why it could not be run, or None.
    """

    variant: Variant
    cold_start: ColdStart | None = None
    memory: Memory | None = None
    warm_up_ms: tuple[float, ...] = ()
    scenarios: tuple[ScenarioResult, ...] = ()
    split: Split = Split()
    work: Work = Work()
    accuracy: Accuracy | None = None
    error: str | None = None

    def scenario(self, name: str) -> ScenarioResult | None:
        """The first result of a scenario."""
        return next((entry for entry in self.scenarios if entry.scenario == name), None)


class Results(Fact):
    """A report.

    Attributes:
        schema_version: of this model.
        package_version: of lidcam_rt.
        command: that made it.
        date: ISO 8601, UTC.
        scope: what the times cover.
        images: folder, number, range of sizes and bytes, and SHA-256 of the pictures.
        machine: what it ran on.
        floor: measured at the beginning.
        floor_again: measured at the end; a machine whose floor moved did not hold still.
        runs: the variants.
        findings: on all of them.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, strict=True)
    package_version: str
    command: str
    date: str
    scope: str
    images: dict[str, Any]
    machine: Machine
    floor: Floor = Floor()
    floor_again: Floor | None = None
    runs: tuple[Run, ...]
    findings: tuple[Finding, ...] = ()


def save_results(path: Path, results: Results) -> None:
    """Write results.json.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, results.model_dump_json(indent=1).encode() + b"\n")


def load_results(path: Path) -> Results:
    """Read results.json.

    Raises:
        InputError: it is missing, of a newer schema, or not of `lidcam bench`.
    """
    try:
        raw = json.loads(read_file(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}). Check the path") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is not JSON. Give the results.json that `lidcam bench` wrote") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: has schema {version}, but this lidcam_rt reads up to {SCHEMA_VERSION}: pip install -U lidcam-rt"
        )
    try:
        return Results.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: is not a result of `lidcam bench` ({where}: {first['msg']}). Run it again"
        ) from None


def sample_files(path: Path) -> set[str]:
    """The files of raw samples in the folder `samples` that a results.json names; none where it cannot be read."""
    try:
        runs = load_results(path).runs
    except InputError:
        return set()
    names = {entry.samples for run in runs for entry in run.scenarios if entry.samples is not None}
    return {name for name in names if PurePath(name).parent == PurePath("samples")}


def save_samples(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write raw samples as a compressed .npz; nanoseconds, a row per query, -1 where a query has no such step.

    Args:
        path: the file; its folder is made.
        arrays: by name: `latency`, `queue`, `stage:NAME`.

    Raises:
        OutputError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a name for allow_pickle
    make_folder(path.parent)
    write_atomically(path, buffer.getvalue())


def load_samples(path: Path) -> dict[str, Samples]:
    """Read raw samples.

    Returns:
        int64 [n] each, of one length n >= 1; `latency` among them.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # the errors of a damaged archive have no common class
        reason = error.strerror if isinstance(error, OSError) else None
        raise _no_samples(path, reason or "it is damaged, or not an .npz") from None
    wrong = next((name for name, x in arrays.items() if x.dtype != np.int64 or x.ndim != 1), None)
    if wrong is not None:
        raise _no_samples(path, f"{wrong} is not a row of nanoseconds")
    if not len(arrays.get("latency", ())) or len({len(x) for x in arrays.values()}) != 1:
        raise _no_samples(path, "it has no latencies, or rows that differ in length")
    return arrays


def _no_samples(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: raw samples cannot be read: {why}. Keep the folder `samples` as `lidcam bench` wrote it beside "
        "results.json"
    )
