"""Does another clock agree? hyperfine around `lidcam localize`, and `lidcam bench` on the same pictures, interleaved.

    python benchmarks/suites/bench_stopwatch.py [--rounds 5] [--write NAME]

EfficientNet-Lite0 at 320 with its ImageNet weights, 96 JPEG files of 500x375. hyperfine times whole processes
(https://github.com/sharkdp/hyperfine): `lidcam localize --no-overlay` over all pictures and over one. Their difference
over 95 is the time of a picture in the steady state, with reading it and writing its mask and journal. `lidcam bench`
measures the same without files, as the inverse of its offline throughput. One picture alone is the time from the start
of a process to its first result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import lite0
import results

PICTURES = 96
LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]


def stopwatch(command: list[str], folder: Path) -> float:
    """Seconds of one run, by hyperfine; the results of the run before are removed first."""
    report = folder / "hyperfine.json"
    quoted = " ".join(f"'{word}'" for word in command)
    subprocess.run(
        ["hyperfine", "-N", "--style", "none", "--runs", "1", "--prepare", f"rm -rf {folder / 'out'}",
         "--export-json", str(report), quoted],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return float(json.loads(report.read_text())["results"][0]["times"][0])


def offline(model: Path, photos: Path, folder: Path, seconds: float) -> float:
    """Seconds per picture, by `lidcam bench`."""
    out = folder / "bench"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(
        [*LIDCAM, "bench", str(model), "--images", str(photos), "--scenario", "offline", "--duration", str(seconds),
         "--cold-starts", "0", "--no-floor", "-q", "-o", str(out)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    return 1 / float(run["scenarios"][0]["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of a run of lidcam bench")
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    if shutil.which("hyperfine") is None:
        sys.exit("hyperfine is not installed: https://github.com/sharkdp/hyperfine#installation")
    load = os.getloadavg()[0]
    samples: dict[str, list[float]] = {"lidcam bench, offline": [], "hyperfine, 95 pictures more": []}
    first: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "photos").mkdir()
        (folder / "one").mkdir()
        paths = lite0.photos(folder / "photos", PICTURES)
        shutil.copy(paths[0], folder / "one")
        model = lite0.artifact(folder / "lite0.onnx")
        command = [*LIDCAM, "localize", str(model), "--no-overlay", "-q", "-o", str(folder / "out")]
        stopwatch([*command, str(folder / "one")], folder)  # files come into the page cache
        for _ in range(options.rounds):
            samples["lidcam bench, offline"].append(1e3 * offline(model, folder / "photos", folder, options.seconds))
            one = stopwatch([*command, str(folder / "one")], folder)
            every = stopwatch([*command, str(folder / "photos")], folder)
            samples["hyperfine, 95 pictures more"].append(1e3 * (every - one) / (PICTURES - 1))
            first.append(1e3 * one)
    rows = {}
    for name, values in samples.items():
        share, spread = results.ratio(samples["lidcam bench, offline"], values)
        rows[name] = {
            "median_ms": round(statistics.median(values), 2), "lowest_ms": round(min(values), 2),
            "highest_ms": round(max(values), 2), "samples_ms": [round(v, 2) for v in values],
            "times_as_fast_as_bench": share, "ratio_10_90": spread,
        }  # fmt: skip
        print(f"{name:30}{rows[name]['median_ms']:8.2f} ms  {share:5.2f} x  {spread}")
    start = {"median": round(statistics.median(first)), "lowest": round(min(first)), "highest": round(max(first))}
    print(f"start of a process to its first result: {start} ms")
    what = "Another stopwatch: a picture of EfficientNet-Lite0 by lidcam bench and by hyperfine, in turns"
    results.write(options.write, what, load, rows, process_start_to_first_result_ms=start)


if __name__ == "__main__":
    main()
