"""Registers, stack and spills of every CUDA kernel, as ptxas reports them: docs/gpu_resources.json.

python tests/native/cuda/resources.py compiles what has changed for all architectures and writes the table anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
KERNELS = ROOT / "kernels"
TABLE = ROOT / "docs" / "gpu_resources.json"
STORE = ROOT / "build" / "gpu_resources"
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "110", "120")
FIELDS = ("registers", "stack", "spilled")  # spilled: bytes stored and loaded

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def release(compiler: str) -> str:
    """Such as 13.0: another release allots registers otherwise."""
    text = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release ([\d.]+)", text)
    return match[1] if match else "unknown"


def sources() -> list[Path]:
    return sorted(KERNELS.rglob("*.cu"))


def parse(report: str) -> dict[str, dict[str, int]]:
    """The kernels of one file for one architecture; a function that a kernel calls counts as the kernel's."""
    kernels: dict[str, dict[str, int]] = {}
    name = ""
    for line in report.splitlines():
        if entry := ENTRY.search(line):
            name = entry[1]
            kernels[name] = dict.fromkeys(FIELDS, 0)
        elif name and (frame := FRAME.search(line)):
            stack, stores, loads = (int(v) for v in frame.groups())
            kernels[name]["stack"] = max(kernels[name]["stack"], stack)
            kernels[name]["spilled"] += stores + loads
        elif name and (used := USED.search(line)):
            kernels[name]["registers"] = int(used[1])
    return kernels


def kept(compiler: str, architecture: str, source: Path) -> Path:
    """Where the figures of one file are kept, by the hash of what it can include."""
    digest = hashlib.sha256(f"{release(compiler)} {architecture} {source.name}".encode())
    for path in [source, *sorted(source.parent.glob("*.h")), *sorted(KERNELS.glob("*/*.cuh"))]:
        if path.suffix != ".cuh" or path.parent in (source.parent, KERNELS / "cuda"):
            digest.update(path.name.encode() + path.read_bytes())
    return STORE / f"{source.stem}-{architecture}-{digest.hexdigest()[:16]}.json"


def measure_file(compiler: str, architecture: str, source: Path) -> dict[str, dict[str, int]]:
    """The kernels of one file for one architecture, compiled as CMakeLists.txt does."""
    place = kept(compiler, architecture, source)
    if not place.exists():
        flags = ["-std=c++17", "-O3", "-fmad=false", "-I", str(KERNELS), "-cubin", "-Xptxas", "-v", "-o", "/dev/null"]
        command = [compiler, *flags, f"-arch=sm_{architecture}", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        STORE.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(parse(done.stdout + done.stderr)))
    result: dict[str, dict[str, int]] = json.loads(place.read_text())
    return result


def measure(compiler: str, architecture: str) -> dict[str, dict[str, int]]:
    """All kernels for one architecture."""
    return {k: v for source in sources() for k, v in measure_file(compiler, architecture, source).items()}


def refresh() -> None:
    compiler = nvcc()
    if compiler is None:
        sys.exit("needs nvcc")
    known = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    table: dict[str, dict[str, list[int]]] = {}
    for architecture in ARCHITECTURES:
        if f"sm_{architecture}" in known:
            for name, used in measure(compiler, architecture).items():
                table.setdefault(name, {})[architecture] = [used[field] for field in FIELDS]
    rows = ",\n".join(f'  "{name}": {json.dumps(table[name])}' for name in sorted(table))
    TABLE.write_text(
        f'{{\n "nvcc": "{release(compiler)}",\n "fields": {json.dumps(FIELDS)},\n "kernels": {{\n{rows}\n }}\n}}\n'
    )


if __name__ == "__main__":
    refresh()
