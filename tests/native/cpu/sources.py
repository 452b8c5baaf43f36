"""The sources of kernels that run on the CPU, and how they are compiled: as kernels/CMakeLists.txt does."""

from __future__ import annotations

from pathlib import Path

KERNELS = Path(__file__).parents[3] / "kernels"
PER_ISA = {"cpu/bytes.cpp", "crf/kernels.cpp", "pas/loops.cpp"}
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mbmi2"],
    "avx512": ["-mavx2", "-mbmi2", "-mfma", "-mpopcnt", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}


def sources(*subjects: str, isas: tuple[str, ...] = ("baseline",)) -> list[tuple[Path, str, list[str]]]:
    """Source, name of the object file and flags of each compilation of these subjects."""
    jobs = []
    x86 = ["-DLIDCAM_X86_KERNELS"] if len(isas) > 1 else []
    for subject in subjects:
        for path in sorted((KERNELS / subject).glob("*.cpp")):
            name = f"{subject}_{path.stem}"
            if f"{subject}/{path.name}" not in PER_ISA:
                jobs.append((path, f"{name}.o", x86))
                continue
            for isa in isas:
                jobs.append((path, f"{name}_{isa}.o", [*x86, f"-DLIDCAM_TARGET={isa}", "-Wno-psabi", *FLAGS[isa]]))
    return jobs
