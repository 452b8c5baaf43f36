"""Time of `import lidcam_rt` in a fresh interpreter, beside an empty one and beside its engine.

python -m pytest benchmarks/suites/bench_import.py -s
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PEERS = {"nothing": "pass", "lidcam_rt": "import lidcam_rt", "lidcam_rt.load": "from lidcam_rt import load",
         "numpy": "import numpy", "onnxruntime": "import onnxruntime"}  # fmt: skip


def test_import(benchmark):
    times: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(9):
        for name, code in PEERS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append((time.perf_counter() - start) * 1e3)
    for name, values in times.items():
        print(f"{name:16} {statistics.median(values):7.1f} ms   {min(values):.1f} to {max(values):.1f}")
    benchmark.extra_info["ms"] = times
    benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", PEERS["lidcam_rt"]], check=True), rounds=5
    )
