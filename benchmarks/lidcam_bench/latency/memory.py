"""Memory of this process: resident now, and the highest since a reset."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

__all__ = ["peak_mb", "reset_peak", "resident_mb"]

_STATUS = Path("/proc/self/status")


def resident_mb(status: Path = _STATUS) -> float | None:
    """Resident memory, 10^6 bytes; None if the system does not report it."""
    return _field(status, "VmRSS")


def peak_mb(status: Path = _STATUS) -> float | None:
    """The highest resident memory since `reset_peak`, 10^6 bytes; None if the system does not report it."""
    return _field(status, "VmHWM")


def reset_peak(file: Path = Path("/proc/self/clear_refs")) -> None:
    """Forget the highest resident memory. Without effect where the system does not allow it."""
    with contextlib.suppress(OSError):
        file.write_text("5")


def _field(status: Path, name: str) -> float | None:
    with contextlib.suppress(OSError):
        match = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.M)
        if match:
            return int(match[1]) * 1024 / 1e6
    return None
