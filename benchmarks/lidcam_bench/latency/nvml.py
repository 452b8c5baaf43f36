"""What NVIDIA's management library reports about GPUs: clocks, temperature, throttling, energy, memory."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

__all__ = ["Nvml"]

_REASONS = {
    "SwPowerCap": "power limit",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "temperature",
    "HwPowerBrakeSlowdown": "power brake",
}


class Nvml:
    """One GPU as NVML sees it. Everything is optional: what the library or driver does not report is None.

    Args:
        index: number of the GPU.
        api: the module `pynvml` (package nvidia-ml-py), or a stand-in.

    Attributes:
        reason: why NVML cannot be used; empty where it can.
    """

    def __init__(self, index: int = 0, api: Any = None) -> None:
        self._api: Any = None
        self._handle: Any = None
        self.reason = ""
        try:
            self._api = api if api is not None else importlib.import_module("pynvml")
        except ImportError:
            self.reason = "NVML is not available: pip install nvidia-ml-py"
            return
        try:
            self._api.nvmlInit()
            self._handle = self._api.nvmlDeviceGetHandleByIndex(index)
        except Exception as error:  # pynvml's errors derive from Exception alone
            self.reason = f"NVML finds no GPU ({error})"
            self._handle = None

    def _ask(self, name: str, *arguments: Any) -> Any:
        if self._handle is None:
            return None
        try:
            return getattr(self._api, name)(self._handle, *arguments)
        except Exception:  # not supported by this GPU or driver
            return None

    def describe(self) -> list[dict[str, str]]:
        """Name, memory, driver and compute capability of every GPU; empty where there is none."""
        out: list[dict[str, str]] = []
        if self._handle is None:
            return out
        with contextlib.suppress(Exception):
            driver = _text(self._api.nvmlSystemGetDriverVersion())
            for index in range(self._api.nvmlDeviceGetCount()):
                gpu = self._api.nvmlDeviceGetHandleByIndex(index)
                entry = {"name": _text(self._api.nvmlDeviceGetName(gpu)), "driver": driver}
                with contextlib.suppress(Exception):
                    entry["memory_gb"] = f"{self._api.nvmlDeviceGetMemoryInfo(gpu).total / 1e9:.1f}"
                with contextlib.suppress(Exception):
                    major, minor = self._api.nvmlDeviceGetCudaComputeCapability(gpu)
                    entry["compute_capability"] = f"{major}.{minor}"
                out.append(entry)
        return out

    def state(self) -> tuple[float | None, float | None, tuple[str, ...]]:
        """Clock of the multiprocessors in MHz, temperature in degrees Celsius, and reasons for a lowered clock."""
        clock = self._ask("nvmlDeviceGetClockInfo", getattr(self._api, "NVML_CLOCK_SM", 1))
        temperature = self._ask("nvmlDeviceGetTemperature", getattr(self._api, "NVML_TEMPERATURE_GPU", 0))
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        reasons = {
            text for name, text in _REASONS.items()
            if bits & int(getattr(self._api, f"nvmlClocksThrottleReason{name}", 0))
        }  # fmt: skip
        return (
            None if clock is None else float(clock),
            None if temperature is None else float(temperature),
            tuple(sorted(reasons)),
        )

    def energy_joule(self) -> float | None:
        """Energy since the driver was loaded."""
        millijoule = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoule is None else millijoule / 1e3

    def memory_mb(self) -> float | None:
        """Device memory in use, by whatever process, 10^6 bytes."""
        info = self._ask("nvmlDeviceGetMemoryInfo")
        return None if info is None else info.used / 1e6


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
