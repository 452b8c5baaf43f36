"""Building the kernels with what is installed: CMake, a C++ compiler, nvcc and nanobind; no pip, no network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import Cannot

__all__ = ["ROOT", "build_kernels", "offer", "offered"]

ROOT = Path(__file__).parents[2]
_ASK = "import lidcam_gpu.kernels as c; print(int(c.compiled()))"


def _installed_has_kernels() -> bool:
    """Asked in another process: a module that is loaded once cannot be replaced."""
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, cwd=ROOT, timeout=120)
    return done.returncode == 0 and done.stdout.strip() == "1"


def _compiled_here(folder: Path) -> Path | None:
    found = sorted(folder.glob("_kernels*.so"))
    return found[0] if found else None


def build_kernels(
    data: dict[str, Any], folder: Path | None = None, *, force: bool = False, capability: str = ""
) -> None:
    """Use the installed kernels if they hold CUDA code, else build them into a folder and load them from there.

    Args:
        data: receives what was done.
        folder: where to build; None: build/gpu_check.
        force: build even if the installed ones would do.
        capability: of the device to build for, as 9.0; empty: for all that a package is built for.

    Raises:
        Cannot: a tool is missing, or the compiler failed.
    """
    if not force and _installed_has_kernels():
        data["kernels"] = "installed"
        return
    folder = folder or ROOT / "build" / "gpu_check"
    nvcc = shutil.which("nvcc") or next((str(p) for p in (Path("/usr/local/cuda/bin/nvcc"),) if p.exists()), None)
    missing = [name for name in ("cmake",) if shutil.which(name) is None]
    missing += [name for name in ("nanobind",) if importlib.util.find_spec(name) is None]
    if nvcc is None:
        missing.append("nvcc (CUDA's compiler)")
    if missing:
        raise Cannot(f"the installed kernels hold no CUDA code, and {', '.join(missing)} is missing to build them")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    configure = [
        "cmake", "-S", str(ROOT / "kernels"), "-B", str(folder), *generator, "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython_EXECUTABLE={sys.executable}", "-DLIDCAM_CUDA=ON", f"-DLIDCAM_NVCC={nvcc}",
        "-DLIDCAM_FETCH_ORT=OFF", f"-DLIDCAM_CUDA_ARCHITECTURES={capability.replace('.', '')}",
    ]  # fmt: skip
    jobs = str(min(16, os.cpu_count() or 1))
    for command in (configure, ["cmake", "--build", str(folder), "-j", jobs]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
            raise Cannot(f"{' '.join(command[:2])} failed: {tail[:800]}")
    library = _compiled_here(folder)
    if library is None:
        raise Cannot(f"the build left no _kernels module in {folder.name}")
    for ops in folder.glob("ops/*lidcam_ops*"):  # looked for beside the module
        shutil.copy2(ops, folder)
    offer(library, folder / "python")
    _load(library)
    data["kernels"] = "built by CMake"
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout.strip().splitlines()
    data["nvcc"] = version[-1] if version else "?"


def offer(library: Path, folder: Path) -> None:
    """Make a built file the module lidcam_rt._kernels of all Python processes that have the folder in PYTHONPATH."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_FINDER.format(library=str(library)))
    _offered[:] = [str(folder)]


_FINDER = """
import importlib.util
import sys


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "lidcam_rt._kernels":
            return importlib.util.spec_from_file_location(name, {library!r})
        return None


sys.meta_path.insert(0, Finder)
"""


def offered() -> list[str]:
    """What other processes need in PYTHONPATH to find the kernels that this process built."""
    return _offered


_offered: list[str] = []


def _load(library: Path) -> None:
    """Make a built file the module lidcam_rt._kernels of this process."""
    import lidcam_rt

    if "lidcam_rt._kernels" in sys.modules:
        raise Cannot("lidcam_rt._kernels is loaded already: run the check in a process of its own")
    spec = importlib.util.spec_from_file_location("lidcam_rt._kernels", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lidcam_rt._kernels"] = module
    spec.loader.exec_module(module)
    lidcam_rt._kernels = module  # type: ignore[attr-defined]
