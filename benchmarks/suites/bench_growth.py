"""How the kernels' time grows: PaS with batch, maps per picture, size and threads; the dense CRF with size, labels and
threads.

    python benchmarks/suites/bench_growth.py [--rounds 9] [--write NAME]

The exponent is the slope of a line through the medians on logarithmic axes, with the standard error of that slope where
there are more than two sizes. One thread and processor time; over threads, of which there are at most as many as cores,
wall-clock time, where -1 would be perfect scaling. All sizes and peers are interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import bench_crf
import bench_pas
import cv2
import numpy as np
import results

from lidcam_rt.backends.base import usable_cores
from lidcam_rt.crf import PRESETS, DenseCRF
from lidcam_rt.pas import PasOptions, pas

Call = Callable[[], Any]


def exponent(sizes: list[int], times: list[float]) -> tuple[float, float | None]:
    """Slope of log(time) over log(size), and its standard error; None for two sizes, through which any line goes."""
    x, y = np.log(sizes), np.log(times)
    x = x - x.mean()
    slope = float((x * y).sum() / (x**2).sum())
    residual = y - y.mean() - slope * x
    if len(sizes) < 3:
        return slope, None
    return slope, float(np.sqrt((residual**2).sum() / (len(sizes) - 2) / (x**2).sum()))


def maps(batch: int = 1, classes: int = 1, cells: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    made = [cv2.GaussianBlur(rng.random((cells, cells), np.float32), (5, 5), 2) for _ in range(batch * classes)]
    return np.stack(made).reshape(batch, classes, cells, cells)


def pas_call(cams: np.ndarray, side: int, threads: int = 1) -> Call:
    options = PasOptions(bench_pas.PERCENTILE, bench_pas.THETA)
    return lambda: pas(cams, (side, side), options, threads=threads)


def plain_pas(cams: np.ndarray, side: int) -> Call:
    """OpenCV and numpy, map by map."""

    def one(cam: np.ndarray) -> np.ndarray:
        big = cv2.resize(cam, (side, side), interpolation=cv2.INTER_CUBIC)
        big -= big.min()
        gray = (big / big.max() * 255).astype(np.uint8)
        return gray > int(bench_pas.THETA * np.percentile(gray, bench_pas.PERCENTILE))

    return lambda: [one(cam) for cam in cams.reshape(-1, *cams.shape[2:])]


def crf_calls(side: int, labels: int) -> dict[str, Call]:
    image = bench_crf.photo("astronaut", side, side)
    unary = -np.log(bench_crf.probabilities(labels, side, side))
    own = DenseCRF("psa")
    return {"lidcam_rt": lambda: own.infer(image, unary),
            "pydensecrf2": lambda: bench_crf.run_peer(image, unary, PRESETS["psa"])}  # fmt: skip


def experiments() -> dict[str, dict[int, dict[str, Call]]]:
    """By name, size and peer."""
    out: dict[str, dict[int, dict[str, Call]]] = {}
    for name, values in (("batch", (1, 4, 16, 32)), ("classes", (1, 4, 16, 32)), ("side", (192, 384, 768))):
        rows: dict[int, dict[str, Call]] = {}
        for value in values:
            cams = maps(**{name: value}) if name != "side" else maps(cells=value // 16)
            side = value if name == "side" else bench_pas.SIDE
            rows[value] = {"lidcam_rt": pas_call(cams, side), "OpenCV + numpy": plain_pas(cams, side)}
        out[f"PaS, {name}"] = rows
    out["dense CRF, side"] = {side: crf_calls(side, 2) for side in (96, 192, 384)}
    out["dense CRF, labels"] = {labels: crf_calls(192, labels) for labels in (2, 6, 21)}
    counts = [1 << i for i in range(usable_cores().bit_length())]  # 1, 2, 4, ... up to the cores
    if len(counts) > 1:
        cams = maps(batch=32)
        out["PaS, threads"] = {n: {"lidcam_rt": pas_call(cams, bench_pas.SIDE, n)} for n in counts}
        out["dense CRF, threads"] = {n: crf_threads(n) for n in counts}
    return out


def crf_threads(threads: int) -> dict[str, Call]:
    """Eight pictures, which is what threads share among them."""
    image, probabilities = bench_crf.photo("astronaut", 192, 192), bench_crf.probabilities(2, 192, 192)
    own = DenseCRF("psa")
    return {"lidcam_rt": lambda: own.refine_batch([image] * 8, [probabilities] * 8, threads=threads)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    load = os.getloadavg()[0]
    rows = {}
    for title, sizes in experiments().items():
        clock = time.perf_counter if title.endswith("threads") else time.process_time
        samples: dict[str, dict[int, list[float]]] = {}
        for turn in range(-1, options.rounds):
            for size, peers in sizes.items():
                for peer, call in peers.items():
                    start = clock()
                    call()
                    if turn >= 0:
                        elapsed = (clock() - start) * 1e3
                        samples.setdefault(peer, {}).setdefault(size, []).append(elapsed)
        row: dict[str, Any] = {}
        for peer, by_size in samples.items():
            medians = [statistics.median(values) for values in by_size.values()]
            slope, error = exponent(list(by_size), medians)
            row[peer] = {
                "exponent": round(slope, 2),
                "standard_error": None if error is None else round(error, 2),
                "median_ms": {str(size): round(ms, 3) for size, ms in zip(by_size, medians, strict=True)},
                "samples_ms": {str(size): [round(ms, 3) for ms in values] for size, values in by_size.items()},
            }
        rows[title] = row
        texts = [f"{peer} {entry['exponent']} +- {entry['standard_error']}" for peer, entry in row.items()]
        print(f"{title:20} {'; '.join(texts)}", flush=True)
    what = "growth of the kernels' time, exponent of a fitted power; one thread, processor time (threads: the clock's)"
    results.write(options.write, what, load, rows, command="python benchmarks/suites/bench_growth.py")


if __name__ == "__main__":
    main()
