"""The facts that a report is made of: machine, conditions, floor, memory, energy, accuracy, findings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Accuracy", "ColdStart", "Conditions", "Energy", "Fact", "Finding", "Floor", "Machine", "Memory", "Rate", "Split",
    "Work",
]  # fmt: skip


class Fact(BaseModel):
    """A part of a report: plain values, checked, finite, unchangeable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Machine(Fact):
    """The machine that was measured.

    Attributes:
        name: for headings: processor, cores and GPU.
        cpu: the processor's own name, with family, model and stepping.
        cores: that this process may use.
        instruction_set: of the kernels of lidcam_rt, as chosen here.
        memory_gb: main memory, in 10^9 bytes.
        system: operating system and kernel.
        hypervisor: of a virtual machine, or None.
        governor: of the processor's clock, or None where the system does not say.
        gpus: name, memory, driver and compute capability of each.
        packages: versions.
        python: version of Python.
    """

    name: str
    cpu: str
    cores: int
    instruction_set: str
    memory_gb: float
    system: str
    hypervisor: str | None
    governor: str | None
    gpus: tuple[dict[str, str], ...]
    packages: dict[str, str]
    python: str


class Conditions(Fact):
    """What else went on while something was measured.

    Attributes:
        seconds: how long it was.
        others_percent: processor time that other processes took, as a share of all cores.
        steal_percent: time that the hypervisor gave to other guests, likewise.
        own_percent: processor time of the measured process, likewise.
        load_before: load average of the last minute when it began.
        clock_mhz: lowest, median and highest clock of the cores that was seen, or None.
        clock_reason: why the clock is not known, or what is wrong with it.
        gpu_clock_mhz: of the GPU, likewise.
        throttle: reasons that NVML gave for a lowered clock.
        temperature_c: the highest that was seen, or None.
    """

    seconds: float
    others_percent: float | None = None
    steal_percent: float | None = None
    own_percent: float | None = None
    load_before: float | None = None
    clock_mhz: tuple[float, float, float] | None = None
    clock_reason: str = ""
    gpu_clock_mhz: tuple[float, float, float] | None = None
    throttle: tuple[str, ...] = ()
    temperature_c: float | None = None


class Rate(Fact):
    """A ceiling of the machine.

    Attributes:
        what: a precision (`fp32`, `bf16`, `fp16`, `int8`), or `copy`.
        threads: threads on the processor that reached it; 0: a GPU.
        value: 10^9 operations, or bytes, per second.
        by: library and version that reached it.
    """

    what: str
    threads: int
    value: float
    by: str


class Floor(Fact):
    """What the machine can do, measured in the same run: no network can be faster than its work at these rates.

    Attributes:
        matrix: matrix products, in operations (a multiply-add is two); per precision and number of threads the best
            library available.
        bandwidth: copies of an array beyond the caches, in bytes read and written.
        launch_us: the smallest kernel on a GPU, microseconds, or None.
        missing: what could not be measured, and why.
    """

    matrix: tuple[Rate, ...] = ()
    bandwidth: tuple[Rate, ...] = ()
    launch_us: float | None = None
    missing: dict[str, str] = Field(default_factory=dict)

    def rate(self, precision: str, threads: int) -> Rate | None:
        """The matrix rate of a precision with this many threads (0: on the GPU), or None."""
        return next((entry for entry in self.matrix if (entry.what, entry.threads) == (precision, threads)), None)


class ColdStart(Fact):
    """From nothing to a first result, in fresh processes, medians. Files were in the page cache.

    Attributes:
        processes: how many were started.
        interpreter_ms: until the first line of the program.
        import_ms: the imports.
        load_ms: reading the file and making the engine ready.
        first_call_ms: the first picture.
        second_call_ms: the second picture, for comparison.
    """

    processes: int
    interpreter_ms: float
    import_ms: float
    load_ms: float
    first_call_ms: float
    second_call_ms: float

    @property
    def total_ms(self) -> float:
        """From the start of the process to the first result."""
        return self.interpreter_ms + self.import_ms + self.load_ms + self.first_call_ms


class Memory(Fact):
    """Memory of the measured process, 10^6 bytes.

    Attributes:
        before_load: resident, with everything imported.
        loaded: resident, engine loaded and warmed up.
        peak: the highest while the scenarios ran.
        device_peak: device memory of the process, or None.
        device_reason: why there is none.
    """

    before_load: float | None
    loaded: float | None
    peak: float | None
    device_peak: float | None = None
    device_reason: str = "no GPU is used"


class Energy(Fact):
    """Energy of the whole package or GPU while a scenario ran.

    Attributes:
        joule: what the counters say, None where there are none.
        joule_per_image: the same per picture.
        source: which counters, for example `RAPL package-0`.
        reason: why there are none.
    """

    joule: float | None = None
    joule_per_image: float | None = None
    source: str = ""
    reason: str = ""


class Finding(Fact):
    """A diagnosis in words.

    Attributes:
        kind: for programs, for example `host-bound`.
        level: `note`, or `warning` where the numbers should not be trusted or used.
        text: for people.
    """

    kind: str
    level: Literal["note", "warning"]
    text: str


class Split(Fact):
    """How the engine's own profile divides a call of the network.

    Attributes:
        shares_percent: by part: `network` (all that the logits need), `CAM + PaS` (the rest), `copies`.
        slowest: the operators that take most: name, type and share in percent.
        source: whose profile it is, of how many calls.
        reason: why there is none.
    """

    shares_percent: dict[str, float] = Field(default_factory=dict)
    slowest: tuple[tuple[str, str, float], ...] = ()
    source: str = ""
    reason: str = ""


class Work(Fact):
    """The arithmetic of the network against the floor.

    Attributes:
        gigaflop: 10^9 operations per picture, a multiply-add being two; convolutions and matrix products.
        floor_ms: the time that these take at the measured matrix rate.
        reached_percent: floor over the measured time of the network, per picture.
        against: which rate of the floor.
        reason: why it is not known.
    """

    gigaflop: float | None = None
    floor_ms: float | None = None
    reached_percent: float | None = None
    against: str = ""
    reason: str = ""


class Accuracy(Fact):
    """The results of a pass over labelled pictures, or against a reference. Nothing was timed in it.

    Attributes:
        data: name of the data.
        images: how many pictures.
        scores: by name, for example `miou`, `peak_iou`, `max_box_acc`, `top1`.
        reference: what it was compared with, or None.
        agreement: with the reference, by name, for example `mask_iou_mean`, `flipped_percent`.
        reason: why there are no scores.
        notes: what readers of the scores must know, as in the report of `lidcam eval`.
        warning: that classes of the data are not the model's, or nothing.
        error: why the pass failed, or None.
    """

    data: str = ""
    images: int = 0
    scores: dict[str, float] = Field(default_factory=dict)
    reference: str | None = None
    agreement: dict[str, float] = Field(default_factory=dict)
    reason: str = ""
    notes: tuple[str, ...] = ()
    warning: str = ""
    error: str | None = None
