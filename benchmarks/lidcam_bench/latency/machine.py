"""The machine: processor, memory, GPUs, packages; and what else went on during the measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import threading
import time
from pathlib import Path
from types import TracebackType

from lidcam_bench.latency.facts import Conditions, Machine
from lidcam_bench.latency.nvml import Nvml
from lidcam_rt.backends.base import usable_cores

__all__ = ["Watch", "describe_machine"]

_PACKAGES = ("lidcam-rt", "numpy", "opencv-python-headless", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino",
             "torch", "tensorrt", "tensorrt-rtx", "cuda-python", "mlcommons-loadgen")  # fmt: skip
_CONSTANT = "a virtual machine shows its nominal clock only; the floor, measured twice, stands in for it"


def describe_machine(root: Path = Path("/"), nvml: Nvml | None = None) -> Machine:
    """What this machine is.

    Args:
        root: of the system's files.
        nvml: of the GPUs; None: opened here.
    """
    fields = _first_processor(root)
    vendor = fields.get("model name", platform.processor() or platform.machine())
    numbers = [f"{key} {fields[name]}" for key, name in
               (("family", "cpu family"), ("model", "model"), ("stepping", "stepping")) if name in fields]  # fmt: skip
    cores = usable_cores()
    gpus = (nvml or Nvml()).describe()
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"))
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    shown = re.sub(r"\((R|TM)\)", "", vendor).replace("  ", " ")
    return Machine(
        name=", ".join([f"{shown}, {cores} {'core' if cores == 1 else 'cores'}", *(gpu["name"] for gpu in gpus)]),
        cpu=f"{vendor} ({', '.join(numbers)})" if numbers else vendor,
        cores=cores,
        instruction_set=_instruction_set(),
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else 0.0,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        hypervisor=_hypervisor(root, fields),
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        gpus=tuple(gpus),
        packages=packages,
        python=platform.python_version(),
    )


def _first_processor(root: Path) -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    block = _read(root / "proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _hypervisor(root: Path, fields: dict[str, str]) -> str | None:
    if "hypervisor" not in fields.get("flags", "").split():
        return None
    return _read(root / "sys/hypervisor/type").strip() or _read(root / "sys/class/dmi/id/sys_vendor").strip() or "yes"


def _instruction_set() -> str:
    try:
        from lidcam_rt import _kernels
    except ImportError:
        return "unknown: the kernels are not built"
    return str(_kernels.isa())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class Watch:
    """Watches the machine while something is measured. A context manager; it samples clocks once per second.

    Args:
        root: of the system's files.
        nvml: of the GPU in use; None: no GPU is used.
        interval: seconds between samples of the clocks.

    Attributes:
        conditions: what was seen, complete when the block has ended.
    """

    def __init__(self, root: Path = Path("/"), nvml: Nvml | None = None, interval: float = 1.0) -> None:
        self._root = root
        self._nvml = nvml
        self._interval = interval
        self._end = threading.Event()
        self._clocks: list[float] = []
        self._gpu_clocks: list[float] = []
        self._temperatures: list[float] = []
        self._throttle: set[str] = set()
        self._thread = threading.Thread(target=self._sample, name="lidcam-watch", daemon=True)
        self.conditions = Conditions(seconds=0.0)

    def __enter__(self) -> Watch:
        self._load = _read(self._root / "proc/loadavg").split(" ")[0]
        self._take()
        self._before = (time.monotonic(), _processor_times(self._root), time.process_time())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        began, before, own_before = self._before
        seconds, own = time.monotonic() - began, time.process_time() - own_before
        after = _processor_times(self._root)
        self._end.set()
        self._thread.join()
        self._take()
        self.conditions = Conditions(
            seconds=round(seconds, 3),
            **_shares(before, after, own),
            load_before=float(self._load) if self._load else None,
            clock_mhz=_span(self._clocks),
            clock_reason=self._clock_reason(),
            gpu_clock_mhz=_span(self._gpu_clocks),
            throttle=tuple(sorted(self._throttle)),
            temperature_c=max(self._temperatures, default=None),
        )

    def _sample(self) -> None:
        while not self._end.wait(self._interval):
            self._take()

    def _take(self) -> None:
        self._clocks += _clocks(self._root)
        if self._nvml is not None:
            clock, temperature, reasons = self._nvml.state()
            self._gpu_clocks += [clock] if clock is not None else []
            self._temperatures += [temperature] if temperature is not None else []
            self._throttle |= set(reasons)

    def _clock_reason(self) -> str:
        if not self._clocks:
            return "this system does not report the processor's clock"
        virtual = "hypervisor" in _first_processor(self._root).get("flags", "").split()
        return _CONSTANT if virtual and max(self._clocks) == min(self._clocks) else ""


def _clocks(root: Path) -> list[float]:
    """The clock of each core, MHz."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    kilohertz = [text for file in files if (text := _read(file).strip()).isdigit()]
    if kilohertz:
        return [int(text) / 1000 for text in kilohertz]
    return [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _read(root / "proc/cpuinfo"), re.M)]


def _processor_times(root: Path) -> tuple[float, float, float] | None:
    """Seconds since boot, all cores summed: all, busy, stolen."""
    match = re.match(r"cpu +([\d ]+)", _read(root / "proc/stat"))
    if match is None:
        return None
    ticks = [int(value) for value in match[1].split()][:8]  # user nice system idle iowait irq softirq steal
    hertz = os.sysconf("SC_CLK_TCK")
    idle, steal = ticks[3] + ticks[4], ticks[7] if len(ticks) > 7 else 0
    return sum(ticks) / hertz, (sum(ticks) - idle - steal) / hertz, steal / hertz


def _shares(
    before: tuple[float, float, float] | None, after: tuple[float, float, float] | None, own: float
) -> dict[str, float | None]:
    """Shares of the processors' time in percent: of other processes, of the hypervisor, of this process."""
    if before is None or after is None or after[0] <= before[0]:
        return {"others_percent": None, "steal_percent": None, "own_percent": None}
    every, busy, steal = (b - a for a, b in zip(before, after, strict=True))
    return {
        "others_percent": round(100 * max(0.0, busy - own) / every, 1),
        "steal_percent": round(100 * steal / every, 1),
        "own_percent": round(100 * own / every, 1),
    }


def _span(values: list[float]) -> tuple[float, float, float] | None:
    return (min(values), statistics.median(values), max(values)) if values else None
