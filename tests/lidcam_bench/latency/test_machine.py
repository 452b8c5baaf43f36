"""Machine, conditions, energy and memory, on made system files and a stand-in for NVML."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from lidcam_bench.latency.energy import EnergyMeter
from lidcam_bench.latency.machine import Watch, describe_machine
from lidcam_bench.latency.memory import peak_mb, reset_peak, resident_mb
from lidcam_bench.latency.nvml import Nvml

HERTZ = os.sysconf("SC_CLK_TCK")


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def cpuinfo(clocks, flags="fpu avx2 hypervisor"):
    block = "processor\t: {}\nmodel name\t: Acme(R) Fast\ncpu family\t: 6\nmodel\t\t: 167\nstepping\t: 1\n"
    return "\n\n".join(f"{block.format(i)}cpu MHz\t\t: {clock}\nflags\t\t: {flags}" for i, clock in enumerate(clocks))


class FakeNvml:
    """The functions of pynvml that are used."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0
    nvmlClocksThrottleReasonSwThermalSlowdown = 0x20
    nvmlClocksThrottleReasonSwPowerCap = 0x4

    def __init__(self, bits=0):
        self.bits, self.millijoule = bits, 5000

    def nvmlInit(self): ...
    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlSystemGetDriverVersion(self):
        return b"555.1"

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetName(self, gpu):
        return "Acme GPU"

    def nvmlDeviceGetMemoryInfo(self, gpu):
        return SimpleNamespace(total=8e9, used=1.5e9)

    def nvmlDeviceGetCudaComputeCapability(self, gpu):
        return 9, 0

    def nvmlDeviceGetClockInfo(self, gpu, kind):
        return 1980

    def nvmlDeviceGetTemperature(self, gpu, kind):
        return 71

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):
        return self.bits

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        self.millijoule += 1000
        return self.millijoule


def test_a_machine_is_described(tmp_path):
    write(tmp_path, "proc/cpuinfo", cpuinfo([2600, 2600]))
    write(tmp_path, "proc/meminfo", "MemTotal:       8000000 kB\n")
    found = describe_machine(tmp_path, Nvml(api=FakeNvml()))
    assert found.cpu == "Acme(R) Fast (family 6, model 167, stepping 1)"
    assert found.name.startswith("Acme Fast, ") and found.name.endswith(", Acme GPU")
    assert found.memory_gb == 8.2 and found.hypervisor == "yes" and found.governor is None
    assert found.gpus == (
        {"name": "Acme GPU", "driver": "555.1", "memory_gb": "8.0", "compute_capability": "9.0"},
    )
    assert "numpy" in found.packages


def test_a_machine_that_tells_nothing(tmp_path):
    found = describe_machine(tmp_path, Nvml(api=SimpleNamespace()))
    assert found.memory_gb == 0 and found.hypervisor is None and found.gpus == ()


def stat(root, user, idle, steal):
    ticks = [int(v * HERTZ) for v in (user, 0, 0, idle, 0, 0, 0, steal)]
    write(root, "proc/stat", f"cpu  {' '.join(map(str, ticks))} 0 0\ncpu0 1 2 3\n")


def test_shares_of_others_and_of_the_hypervisor(tmp_path, monkeypatch):
    monkeypatch.setattr("time.process_time", iter([10.0, 14.0]).__next__)
    write(tmp_path, "proc/loadavg", "1.25 0.80 0.50 1/100 4242\n")
    write(tmp_path, "proc/cpuinfo", cpuinfo([2600, 2600]))
    stat(tmp_path, 100, 100, 0)
    with Watch(tmp_path, interval=3600) as watch:
        stat(tmp_path, 106, 112, 2)  # 20 s of two cores: 6 busy, 12 idle, 2 stolen
    seen = watch.conditions
    assert (seen.own_percent, seen.others_percent, seen.steal_percent) == (20.0, 10.0, 10.0)
    assert seen.load_before == 1.25 and seen.clock_mhz == (2600, 2600, 2600)
    assert "virtual machine" in seen.clock_reason and seen.gpu_clock_mhz is None


def test_a_clock_that_falls_is_seen(tmp_path):
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "3000000\n")
    with Watch(tmp_path, interval=3600) as watch:
        write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n")
    assert watch.conditions.clock_mhz == (1500, 2250, 3000) and watch.conditions.clock_reason == ""
    assert watch.conditions.others_percent is None  # no /proc/stat there


def test_a_gpu_is_watched(tmp_path):
    with Watch(tmp_path, Nvml(api=FakeNvml(bits=0x24)), interval=3600) as watch:
        pass
    seen = watch.conditions
    assert seen.gpu_clock_mhz == (1980, 1980, 1980) and seen.temperature_c == 71
    assert seen.throttle == ("power limit", "temperature")
    assert seen.clock_mhz is None and "does not report" in seen.clock_reason


def rapl(root, microjoule, name="package-0", folder="intel-rapl:0"):
    base = f"sys/class/powercap/{folder}"
    write(root, f"{base}/energy_uj", str(microjoule))
    write(root, f"{base}/max_energy_range_uj", "1000000000")
    write(root, f"{base}/name", name + "\n")


def test_energy_of_two_packages_one_of_which_runs_over(tmp_path):
    rapl(tmp_path, 5_000_000)
    rapl(tmp_path, 990_000_000, "package-1", "intel-rapl:1")
    rapl(tmp_path, 0, "core", "intel-rapl:0:0")  # a part of package-0: not counted twice
    meter = EnergyMeter(root=tmp_path)
    meter.start()
    rapl(tmp_path, 8_000_000)
    rapl(tmp_path, 2_000_000, "package-1", "intel-rapl:1")
    found = meter.stop(5)
    assert found.joule == pytest.approx(3 + 12) and found.joule_per_image == pytest.approx(3)
    assert found.source == "RAPL, package-0 + package-1" and not found.reason


def test_reasons_why_there_is_no_energy(tmp_path):
    meter = EnergyMeter(root=tmp_path)
    meter.start()
    found = meter.stop(5)
    assert found.joule is None and "virtual machines hide them" in found.reason
    rapl(tmp_path, 1)
    if os.geteuid() != 0:
        (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
        assert "root only" in EnergyMeter(root=tmp_path).stop(1).reason
    meter = EnergyMeter(Nvml(api=SimpleNamespace()))
    assert "NVML finds no GPU" in meter.stop(1).reason


def test_energy_of_a_gpu():
    meter = EnergyMeter(Nvml(api=FakeNvml()))
    meter.start()
    found = meter.stop(2)
    assert found.joule == 1.0 and found.joule_per_image == 0.5 and found.source == "NVML, the whole GPU"


def test_memory_of_this_process(tmp_path):
    status = tmp_path / "status"
    status.write_text("VmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n")
    assert (resident_mb(status), peak_mb(status)) == (1.024, 2.048)
    assert resident_mb(tmp_path / "none") is None
    reset_peak(tmp_path / "clear_refs")
    assert (tmp_path / "clear_refs").read_text() == "5"
    reset_peak(tmp_path / "no" / "such")


def test_nvml_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    nvml = Nvml()
    assert "pip install nvidia-ml-py" in nvml.reason and nvml.describe() == [] and nvml.memory_mb() is None
