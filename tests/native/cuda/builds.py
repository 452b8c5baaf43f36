"""Compile the CUDA sources for the CPU; what is built is kept by the hash of all that went into it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KERNELS = ROOT / "kernels"
STORE = ROOT / "build" / "cuda_on_cpu"
DEVICE = ["pas/pas.cuh", "pas/bytes.cuh", "pas/percentile.cuh", "pas/extremes.cuh", "components/components.cuh",
          "components/components.cu", "crf/lattice.cuh", "crf/mean_field.cuh"]  # fmt: skip
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off",
         "-fno-extern-tls-init", "-U_FORTIFY_SOURCE", "-fPIC", "-pthread"]  # fmt: skip
SANITIZED = ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if not found or "clang" in Path(found).name:
        pytest.skip("needs g++ (set CXX): the shim's switches are GCC's")
    return found


def build(name: str, source: str, *extra: str, kernels: Path = KERNELS, shim: bool = True) -> Path:
    """Compile tests/native/cuda/`source` with the kernels of a folder, or give what was built before."""
    subjects = [kernels / name for name in ("pas", "components", "cpu", "crf", "cuda", "image", "ops")]
    folders = [HERE, *(folder for folder in subjects if folder.exists())]
    parts = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in CODE]
    command = [compiler(), *FLAGS, *extra]
    if shim:
        command += ["-include", "shim/cuda_on_cpu.h", "-I", str(HERE / "shim")]
    digest = hashlib.sha256(repr([a for a in command[1:] if not a.startswith(str(HERE))]).encode())
    for part in parts:
        digest.update(part.name.encode() + part.read_bytes())
    target = STORE / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    STORE.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(f".{os.getpid()}")
    paths = ["-I", str(kernels), "-I", str(HERE)]
    _run([*command, *paths, str(HERE / source), "-o", str(fresh)])
    fresh.rename(target)
    return target


CODE = {".cu", ".cuh", ".h", ".cpp"}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


BARRIER = re.compile(r"__syncthreads\(\);|team\.(?:sync|sync_remote|arrive|wait)\(\);")


def with_switches(folder: Path) -> dict[str, list[str]]:
    """A copy of the kernels in which barrier number i of each file is left out where `lidcam_mutant` is i.

    Returns:
        For each subject the place of every barrier, in the order of their numbers.
    """
    shutil.copytree(KERNELS, folder, ignore=shutil.ignore_patterns("python", "ops", "metrics", "*.cpp"))
    places: dict[str, list[str]] = {"pas": [], "components": [], "crf": []}
    number = 0
    for name in DEVICE:
        subject = name.split("/")[0]
        lines = (folder / name).read_text().splitlines()
        for row, line in enumerate(lines):
            if "__device__ void sync" in line or not BARRIER.search(line):
                continue
            lines[row] = BARRIER.sub(lambda m: f"if (lidcam_mutant != {number}) {m[0]}", line)  # noqa: B023
            places[subject].append(f"{number} {name}:{row + 1} {line.strip()}")
            number += 1
        head = "extern int lidcam_mutant;\n" if name.endswith("h") else ""
        (folder / name).write_text(head + "\n".join(lines) + "\n")
    return places
