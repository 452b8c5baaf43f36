"""One check of everything that runs on an NVIDIA GPU. Needs nvcc and PyTorch there; no network, no installation.

    python -m benchmarks.gpu_check

Builds the kernels if they are not installed, compares every CUDA kernel with the reference bit for bit, times them
against their floor and against PyTorch and CuPy, runs the artifact in ONNX Runtime's CUDA provider, TensorRT and
TensorRT for RTX where these are installed, and writes one JSON named after the device and the date, again after every
part, so that a run cut off at its time limit keeps what it measured.
A part that cannot run says why, and the rest continues. Exit status: 0 if all ran and agreed, 1 if something failed, 2
if nothing failed but something could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parents[1]
for _folder in ("export", "training", "benchmarks"):  # the packages of a checkout that is not installed
    sys.path.append(str(ROOT / _folder))

from benchmarks.gpu.build import build_kernels  # noqa: E402
from benchmarks.gpu.device import CpuRehearsal, TorchCuda, open_device  # noqa: E402
from benchmarks.gpu.report import Cannot, Report  # noqa: E402

Part: TypeAlias = Callable[[dict[str, Any]], None]

_PACKAGES = ("numpy", "torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "onnx", "onnxruntime", "onnxruntime-gpu",
             "tensorrt", "tensorrt-rtx", "cuda-python", "cuda-bindings", "nvidia-nvimgcodec-cu12",
             "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg-cu12", "timm", "nanobind")  # fmt: skip


def facts(now: datetime.date) -> dict[str, Any]:
    """What this machine is, as far as reports need it."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    found: dict[str, Any] = {
        "command": "python -m benchmarks.gpu_check",
        "date": now.isoformat(),
        "device": None,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "packages": versions,
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
        found["nvidia-smi"] = answer.stdout.strip().splitlines()
    if shutil.which("git"):
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
        found["commit"] = git.stdout.strip() or None
    return found


class Check:
    """The parts, in order. Later ones use what earlier ones found."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.report = Report(facts(datetime.date.today()))
        self.device: TorchCuda | None = None
        self.ceilings: dict[str, Any] = {}
        self.artifact: Path | None = None
        self.output: Path | None = None

    def _device(self) -> TorchCuda:
        if self.device is None:
            raise Cannot(f"no device: {self.report.outcomes[0].reason}")
        return self.device

    def find_device(self, data: dict[str, Any]) -> None:
        """Which GPU."""
        self.device = open_device(self.options.rehearse, self.options.index)
        self.report.facts["device"] = self.device.name
        data |= self.device.facts

    def build(self, data: dict[str, Any]) -> None:
        """The kernels, installed or built here."""
        if self.options.rehearse:
            raise Cannot("a rehearsal uses the CPU's kernels")
        capability = str(self.device.facts["compute_capability"]) if self.device is not None else ""
        build_kernels(data, force=self.options.rebuild, capability=capability)
        from lidcam_gpu import kernels

        data["architectures"] = kernels.architectures()
        if not kernels.available():
            raise Cannot(f"built, and cannot be used: {kernels.reason()}")

    def kernels(self, name: str, data: dict[str, Any]) -> None:
        """A kernel against the reference."""
        from benchmarks.gpu import agreement

        device = self._device()
        small = {"check_pas": [((7, 5), (31, 64)), ((1, 1), (5, 3))], "check_boxes": [(7, 9), (64, 64)],
                 "check_boxes_at_size": [((64, 48), (33, 21))]}  # fmt: skip
        sizes = small[name] if self.options.quick else None
        getattr(agreement, name)(device, data, seed=self.options.seed, sizes=sizes)

    def crf(self, data: dict[str, Any]) -> None:
        """The dense CRF on the GPU: probabilities of the CPU, same bits twice, times."""
        from benchmarks.gpu.crf import check_crf

        quick: dict[str, Any] = {"cases": [(2, 2, 24, 33, "psa")], "rounds": 2} if self.options.quick else {}
        check_crf(self._device(), data, seed=self.options.seed, **quick)

    def measure(self, data: dict[str, Any]) -> None:
        """Bandwidth and launch."""
        from benchmarks.gpu.speed import measure_ceilings

        quick = {"megabytes": 4, "rounds": 3} if self.options.quick else {}
        measure_ceilings(self._device(), data, **quick)
        self.ceilings = data

    def time(self, name: str, data: dict[str, Any]) -> None:
        """Times of a kernel."""
        from benchmarks.gpu import speed

        quick: dict[str, Any] = {}
        if self.options.quick:
            quick = {"rounds": 3, "inner": 2, "shapes": [(2, 7, 64)] if name == "time_pas" else [(2, 64)]}
        getattr(speed, name)(self._device(), data, self.ceilings, **quick)

    def export(self, data: dict[str, Any]) -> None:
        """The artifact to run."""
        from benchmarks.gpu.engines import make_artifact

        self._device()
        given = Path(self.options.artifact) if self.options.artifact else None
        self.artifact = make_artifact(data, self.folder, given=given, network=self.options.network)

    def _artifact(self) -> Path:
        if self.artifact is None:
            raise Cannot(f"no artifact: {next(o for o in self.report.outcomes if o.part == 'artifact').reason}")
        return self.artifact

    def onnxruntime(self, data: dict[str, Any]) -> None:
        """ONNX Runtime on the GPU (on the CPU in a rehearsal)."""
        from benchmarks.gpu.engines import check_onnxruntime

        self._device()
        quick: dict[str, Any] = {"batches": (1, 2), "rounds": 2} if self.options.quick else {}
        device = "cpu" if self.options.rehearse else f"cuda:{self.options.index}"
        check_onnxruntime(data, self._artifact(), device=device, **quick)

    def bench(self, data: dict[str, Any]) -> None:
        """The command that a user measures with."""
        from benchmarks.gpu.bench import check_bench

        self._device()
        quick: dict[str, Any] = {"batches": "1", "seconds": 0.1, "floor": False} if self.options.quick else {}
        device = "cpu" if self.options.rehearse else f"cuda:{self.options.index}"
        check_bench(data, self._artifact(), self.folder, device=device, **quick)

    def resident(self, data: dict[str, Any]) -> None:
        """Picture to box without leaving the GPU."""
        from benchmarks.gpu.resident import check_resident

        device = self._device()
        quick: dict[str, Any] = {"batches": (1, 2), "seconds": 0.2, "compiled": False} if self.options.quick else {}
        check_resident(device, data, self._artifact(), index=self.options.index, **quick)

    def threads(self, data: dict[str, Any]) -> None:
        """CUDA graphs captured beside other threads."""
        from benchmarks.gpu.threads import check_threads

        self._device()
        quick: dict[str, Any] = {"batches": (1, 2), "rounds": 2} if self.options.quick else {}
        check_threads(data, self._artifact(), rehearsal=self.options.rehearse, index=self.options.index, **quick)

    def decoding(self, data: dict[str, Any]) -> None:
        """JPEG decoded on the GPU (in a rehearsal: nvImageCodec's decoders on the CPU)."""
        from benchmarks.gpu.decoding import check_decoding

        self._device()
        quick: dict[str, Any] = {"batches": (1, 2), "seconds": 0.2} if self.options.quick else {}
        check_decoding(data, self._artifact(), rehearsal=self.options.rehearse, index=self.options.index, **quick)

    def tensorrt(self, flavour: str, precision: str, pas: str, data: dict[str, Any]) -> None:
        """An engine."""
        from benchmarks.gpu.engines import check_tensorrt

        self._device()
        if self.options.rehearse:
            raise Cannot("TensorRT does not run on a CPU")
        check_tensorrt(data, self._artifact(), self.folder, flavour=flavour, precision=precision, pas=pas)

    def parts(self) -> dict[str, tuple[str, Part]]:
        """Name on the command line -> title in the report and what it does, in the order they run."""
        found: dict[str, tuple[str, Part]] = {
            "device": ("device", self.find_device),
            "build": ("build", self.build),
            "pas": ("PaS kernel equals the reference", lambda d: self.kernels("check_pas", d)),
            "boxes": ("box kernel equals the reference", lambda d: self.kernels("check_boxes", d)),
            "boxes-at-size": ("box kernel at picture size", lambda d: self.kernels("check_boxes_at_size", d)),
            "crf": ("dense CRF kernel", self.crf),
            "ceilings": ("bandwidth and launch", self.measure),
            "time-pas": ("time of PaS", lambda d: self.time("time_pas", d)),
            "time-boxes": ("time of boxes", lambda d: self.time("time_boxes", d)),
            "artifact": ("artifact", self.export),
            "onnxruntime": ("ONNX Runtime, CUDA provider", self.onnxruntime),
            "resident": ("picture to box on the device", self.resident),
            "threads": ("CUDA graphs beside other threads", self.threads),
            "decoding": ("JPEG decoded on the device", self.decoding),
            "bench": ("lidcam bench", self.bench),
        }
        for flavour in ("tensorrt", "tensorrt-rtx"):
            for precision in ("fp32", "fp16"):
                found[f"{flavour}-{precision}"] = (
                    f"{flavour} {precision}, PaS in standard operators",
                    lambda d, f=flavour, p=precision: self.tensorrt(f, p, "body", d),
                )
        found["tensorrt-plugin"] = (
            "tensorrt fp16, PaS as a plugin", lambda d: self.tensorrt("tensorrt", "fp16", "plugin", d)
        )  # fmt: skip
        return found

    def run(self) -> None:
        """The parts requested, and those they need; the JSON is written after each."""
        parts = self.parts()
        chosen = choose(tuple(parts), self.options.only, self.options.skip)
        with contextlib.ExitStack() as stack:
            for name in chosen:
                self.report.run(*parts[name])
                if isinstance(self.device, CpuRehearsal) and name == "build":
                    stack.enter_context(self.device.kernels())
                self.write()

    def write(self) -> Path | None:
        """Write what is known so far; returns the file, or None where nothing of a GPU was seen."""
        asked: Path | None = self.options.output
        if asked is None and (self.device is None or self.options.rehearse):
            return None
        folder = asked or ROOT / "benchmarks" / "results"
        output = folder if folder.suffix == ".json" else folder / self.report.file_name()
        if self.output not in (None, output):  # the file is named after the device, once that is known
            self.output.unlink(missing_ok=True)
        self.report.write(output)
        self.output = output
        return output


def choose(names: tuple[str, ...], only: str, skip: str) -> tuple[str, ...]:
    """The parts to run, in order.

    Args:
        names: all there are.
        only: comma-separated names, or nothing for all; what these need is added.
        skip: comma-separated names.

    Raises:
        SystemExit: a name is not known.
    """
    asked, left = ({n for n in text.replace(" ", "").split(",") if n} for text in (only, skip))
    if unknown := sorted((asked | left) - set(names)):
        sys.exit(f"no part is called {', '.join(unknown)}: the parts are {', '.join(names)}")
    wanted = asked or set(names)
    wanted = (wanted - left) | {need for name in wanted - left for need in _needs(name)}
    return tuple(name for name in names if name in wanted)


def _needs(name: str) -> tuple[str, ...]:
    if name.startswith("time-"):
        return ("device", "build", "ceilings")
    if name.startswith(("tensorrt", "onnxruntime", "resident", "threads", "decoding", "bench")):
        return ("device", "build", "artifact")
    return ("device", "build")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=0, help="number of the GPU")
    parser.add_argument("--output", type=Path, metavar="PLACE", help="a folder, or a file that ends in .json; "
                        "default: benchmarks/results/gpu_DEVICE_DATE.json")  # fmt: skip
    parser.add_argument("--only", default="", metavar="PART,...", help="these parts, and what they need")
    parser.add_argument("--skip", default="", metavar="PART,...", help="all but these parts")
    parser.add_argument("--artifact", help="an artifact to run; default: timm:seresnet50 at 384, random weights")
    parser.add_argument("--network", default="", help="another source for `lidcam export`")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random input")
    parser.add_argument("--rebuild", action="store_true", help="build the kernels even if installed ones would do")
    parser.add_argument("--quick", action="store_true", help="small shapes and few samples, to see whether it runs")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, to test this program itself")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Run the check; returns the exit status."""
    options = arguments(given)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(options, Path(folder))
        check.run()
    report, output = check.report, check.write()
    print(f"\n{report.summary()}\n\n{output or 'no file: nothing of a GPU was seen'}, exit {report.exit_status}")
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
