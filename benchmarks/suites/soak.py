"""Many pictures through one Localizer: its memory must not grow.

    python benchmarks/suites/soak.py MODEL.onnx FOLDER --pictures 5000

Prints resident memory every 500 pictures; exit status 1 where it grew by more than --limit MB after the
first 500.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import lidcam_rt
from lidcam_rt.image import image_suffixes


def resident_mb() -> float:
    """Resident memory of this process in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def soak(
    model: Path, pictures: list[Path], count: int, step: int = 500, batch_size: int | None = None
) -> list[float]:
    """Resident memory in MB after every `step` pictures."""
    seen: list[float] = []
    with lidcam_rt.load(model, device="cpu") as localizer:
        stream = localizer.stream(itertools.islice(itertools.cycle(pictures), count), batch_size=batch_size)
        for i, _ in enumerate(stream, 1):
            if i % step == 0:
                seen.append(resident_mb())
                print(f"{i:6} pictures  {seen[-1]:8.1f} MB", flush=True)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--limit", type=float, default=20.0, help="MB")
    options = parser.parse_args()
    pictures = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in image_suffixes())
    seen = soak(options.model, pictures, options.pictures, batch_size=options.batch_size)
    growth = max(seen[1:]) - seen[0]
    print(f"largest growth after the first 500: {growth:.1f} MB (limit {options.limit:g})")
    return int(growth > options.limit)


if __name__ == "__main__":
    sys.exit(main())
