"""Energy: from the GPU's counter, or the processor's (RAPL), or the reason why there is none."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.latency.facts import Energy
from lidcam_bench.latency.nvml import Nvml

__all__ = ["EnergyMeter"]


class EnergyMeter:
    """Reads energy counters at the beginning and at the end.

    Args:
        nvml: of the GPU in use; None: the processor's counters are read.
        root: of the system's files.
    """

    def __init__(self, nvml: Nvml | None = None, root: Path = Path("/")) -> None:
        self._nvml = nvml
        self._counters: list[tuple[Path, str, int]] = []  # file, name, largest value
        self._reason = ""
        if nvml is not None:
            if nvml.energy_joule() is None:
                self._reason = nvml.reason or "this GPU does not count its energy"
        else:
            self._find(root)
        self._before: list[float] = []

    def _find(self, root: Path) -> None:
        folders = sorted((root / "sys/class/powercap").glob("intel-rapl:*[0-9]"))
        packages = [folder for folder in folders if folder.name.count(":") == 1]
        if not packages:
            self._reason = (
                "the system offers no energy counters (no RAPL in /sys/class/powercap; virtual machines hide them)"
            )
        for folder in packages:
            try:
                int((folder / "energy_uj").read_text())
                limit = int((folder / "max_energy_range_uj").read_text())
                name = (folder / "name").read_text().strip()
            except PermissionError:
                self._reason = f"{folder / 'energy_uj'} may be read by root only"
                return
            except (OSError, ValueError) as error:
                self._reason = f"{folder}: its counter cannot be read ({error})"
                return
            self._counters.append((folder / "energy_uj", name, limit))

    def start(self) -> None:
        """Read the counters."""
        self._before = self._read()

    def stop(self, images: int) -> Energy:
        """What was used since `start`, by everything that ran on the package or GPU.

        Args:
            images: pictures that were localized meanwhile.
        """
        after = self._read()
        if self._reason or len(after) != len(self._before) or not after:
            return Energy(reason=self._reason or "the counters disappeared")
        joule = 0.0
        limits = [limit / 1e6 for _, _, limit in self._counters] or [0.0]
        for first, last, limit in zip(self._before, after, limits, strict=True):
            joule += last - first + (limit if last < first else 0.0)  # a counter that overflowed restarts at 0
        names = " + ".join(name for _, name, _ in self._counters)
        source = "NVML, the whole GPU" if self._nvml is not None else f"RAPL, {names}"
        return Energy(joule=joule, joule_per_image=joule / images if images else None, source=source)

    def _read(self) -> list[float]:
        if self._reason:
            return []
        try:
            if self._nvml is not None:
                value = self._nvml.energy_joule()
                return [] if value is None else [value]
            return [int(file.read_text()) / 1e6 for file, _, _ in self._counters]
        except (OSError, ValueError) as error:
            self._reason = f"an energy counter cannot be read any more ({error})"
            return []
