"""Dense CRF against pydensecrf2: `python benchmarks/suites/bench_crf.py [--write] [--check | --float64 | --memory]`.

Set-up and inference are counted on both sides, from the arrays to the marginals. Cold: no spatial lattice is kept;
warm: that of this image size is; fast: with `rounding="fast"`. All run interleaved in one process and thread; the
thread's processor time is counted, and the ratio is that of the medians. Confident unaries are those of a network that
is sure: the marginals reach down to subnormal numbers, which are slow on some processors.

`--check` compares the results on the whole grid of photos, sizes, labels, presets and iterations instead (an hour with
201 labels), `--float64` all three with float64 on the same lattice (10 iterations, 384x384), `--memory` gives the peak
of 8192x8192 (2 labels, terms of psa, 2 iterations), each rounding in a process of its own. `--only` selects the rows
whose name contains a text, `--write` keeps what was measured in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydensecrf.densecrf as peer
from lidcam_rt._kernels import crf as kernels
from lidcam_rt._kernels import isa
from skimage import data, transform

from lidcam_rt.crf import PRESETS, CrfOptions, DenseCRF

RESULTS = Path(__file__).parents[1] / "results"
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SIZES = ((384, 384), (375, 500), (383, 385))


def photo(name: str, height: int, width: int) -> np.ndarray:
    picture = transform.resize(getattr(data, name)(), (height, width), anti_aliasing=True)
    return np.ascontiguousarray((picture * 255).astype(np.uint8))


def probabilities(
    labels: int, height: int, width: int, present: int | None = None, seed: int = 0, spread: float = 2
) -> np.ndarray:
    """Smooth blobs; labels beyond `present` have the floor everywhere. spread: of the logits."""
    count = labels if present is None else present
    coarse = np.random.default_rng(seed).standard_normal((count, 6, 6)) * spread
    logits = np.stack([transform.resize(c, (height, width), order=1) for c in coarse])
    p = np.exp(logits - logits.max(0))
    out = np.full((labels, height, width), 1e-5, np.float32)
    out[:count] = np.clip(p / p.sum(0), 1e-5, 1)
    return out


def run_peer(image: np.ndarray, unary: np.ndarray, o: CrfOptions) -> np.ndarray:
    labels, height, width = unary.shape
    field = peer.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(unary.reshape(labels, -1))
    field.addPairwiseGaussian(sxy=o.gaussian_sxy, compat=o.gaussian_compat)
    field.addPairwiseBilateral(
        sxy=o.bilateral_sxy, srgb=o.bilateral_srgb, rgbim=image, compat=o.bilateral_compat
    )
    return np.array(field.inference(o.iterations)).reshape(unary.shape)


def clock(function: Callable[..., Any], *arguments: Any, now: Callable[[], float] = time.thread_time) -> float:
    start = now()
    function(*arguments)
    return (now() - start) * 1000


def processor() -> str:
    """As the system names it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def spread_of(samples: list[float]) -> dict[str, Any]:
    return {
        "median_ms": round(statistics.median(samples), 2),
        "lowest_ms": round(min(samples), 2),
        "highest_ms": round(max(samples), 2),
        "samples_ms": [round(s, 2) for s in samples],
    }


def measure(name: str, labels: int, present: int | None, repeats: int, spread: float = 2) -> dict[str, Any]:
    image, p = photo("astronaut", 384, 384), probabilities(labels, 384, 384, present, spread=spread)
    unary = -np.log(p)
    fields = {"": DenseCRF(name), "fast_": DenseCRF(f"{name}-fast")}

    def ours(crf: DenseCRF) -> np.ndarray:
        if present is None:
            return crf.infer(image, unary)
        return crf.refine(image, p, labels=list(range(present)))

    for crf in fields.values():
        ours(crf)
    rows: dict[str, list[float]] = {"pydensecrf2": []}
    for _ in range(repeats):
        rows["pydensecrf2"].append(clock(run_peer, image, unary, PRESETS[name]))
        for kind, crf in fields.items():
            kernels.clear_cache()
            rows.setdefault(f"{kind}cold", []).append(clock(ours, crf))
            rows.setdefault(f"{kind}warm", []).append(clock(ours, crf))
    out: dict[str, Any] = {key: spread_of(value) for key, value in rows.items()}
    base = out["pydensecrf2"]["median_ms"]
    for key in rows:
        if key != "pydensecrf2":
            out[f"{key}_ratio"] = round(base / out[key]["median_ms"], 2)
    return out


def measure_threads(name: str, repeats: int) -> dict[str, Any]:
    """Two images: on one thread, on two."""
    images = [photo(name, 384, 384) for name in ("astronaut", "coffee")]
    given = [probabilities(2, 384, 384, seed=seed) for seed in (0, 1)]
    crf = DenseCRF(name)
    rows: dict[str, list[float]] = {"one_thread": [], "two_threads": []}
    wall = time.perf_counter
    for _ in range(repeats):
        rows["one_thread"].append(clock(lambda: crf.refine_batch(images, given, threads=1), now=wall))
        rows["two_threads"].append(clock(lambda: crf.refine_batch(images, given, threads=2), now=wall))
    out: dict[str, Any] = {key: spread_of(value) for key, value in rows.items()}
    out["ratio"] = round(out["one_thread"]["median_ms"] / out["two_threads"]["median_ms"], 2)
    return out


def check(photos: tuple[str, ...], labels: tuple[int, ...]) -> dict[str, Any]:
    worst, flips, cases = 0.0, 0, 0
    for name in photos:
        for size in SIZES:
            image = photo(name, *size)
            for count in labels:
                unary = -np.log(probabilities(count, *size))
                for key, options in PRESETS.items():
                    for iterations in (1, 5, 10):
                        o = replace(options, iterations=iterations)
                        expected, found = run_peer(image, unary, o), DenseCRF(o).infer(image, unary)
                        difference = float(np.abs(found - expected).max())
                        differ = int((found.argmax(0) != expected.argmax(0)).sum())
                        worst, flips, cases = max(worst, difference), flips + differ, cases + 1
                        if difference > 1e-5 or differ:
                            print(f"MISSED {name} {size} {count} labels {key} {iterations}: {difference:.1e}, {differ}")
            print(f"{name} {size}: {cases} cases, largest difference {worst:.1e}, argmax flips {flips}", flush=True)
    return {"cases": cases, "largest_difference": worst, "argmax_flips": flips, "photos": photos, "labels": labels}


def compare_float64(photos: tuple[str, ...], labels: tuple[int, ...]) -> list[dict[str, Any]]:
    """Largest differences to float64 on the same lattice, by the reference of the tests."""
    sys.path.append(str(Path(__file__).parents[2] / "tests" / "lidcam_rt" / "crf"))
    from lattice_reference import Kernel, image_features, mean_field

    out = []
    for name in photos:
        image = photo(name, 384, 384)
        for key in ("psa", "irn", "deeplab"):
            o = PRESETS[key]
            kernels_of = [
                (Kernel(image_features(image, (o.gaussian_sxy,) * 2, None)), o.gaussian_compat),
                (Kernel(image_features(image, (o.bilateral_sxy,) * 2, (o.bilateral_srgb,) * 3)), o.bilateral_compat),
            ]
            for count in labels:
                unary = -np.log(probabilities(count, 384, 384))
                terms = [(kernel, -weight * np.eye(count)) for kernel, weight in kernels_of]
                exact = mean_field(unary.reshape(count, -1), terms, o.iterations).reshape(unary.shape)
                row: dict[str, Any] = {"photo": name, "preset": key, "labels": count}
                for kind, q in (
                    ("pydensecrf2", run_peer(image, unary, o)),
                    ("pydensecrf rounding", DenseCRF(key).infer(image, unary)),
                    ("fast", DenseCRF(f"{key}-fast").infer(image, unary)),
                ):
                    row[kind] = float(f"{np.abs(q - exact).max():.1e}")
                    row[f"{kind}, flips"] = int((q.argmax(0) != exact.argmax(0)).sum())
                print(row, flush=True)
                out.append(row)
    return out


_LARGE = """
import resource, sys
import numpy as np
from lidcam_rt.crf import CrfOptions, DenseCRF
side, rounding = int(sys.argv[1]), sys.argv[2]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
rng = np.random.default_rng(0)
image = rng.integers(0, 256, (side // 32, side // 32, 3), np.uint8).repeat(32, 0).repeat(32, 1)
image += rng.integers(0, 12, image.shape, np.uint8) % 12
unary = np.repeat(np.repeat(rng.random((2, side // 64, side // 64), np.float32), 64, 1), 64, 2)
given = (image.nbytes + unary.nbytes) / 2**30
q = DenseCRF(CrfOptions(iterations=2, rounding=rounding)).infer(image, unary)
assert np.abs(q.sum(0) - 1).max() < 1e-5
print(given, q.nbytes / 2**30, peak())
"""


def measure_memory(side: int = 8192) -> dict[str, Any]:
    """Peak resident GiB, and how much of it is the caller's image and unary, and the result."""
    out = {}
    for rounding in ("pydensecrf", "fast"):
        done = subprocess.run([sys.executable, "-c", _LARGE, str(side), rounding], check=True, capture_output=True)
        given, result, peak = map(float, done.stdout.split())
        out[rounding] = {"given_gib": round(given, 2), "result_gib": round(result, 2), "peak_gib": round(peak, 2)}
        print(f"{side}x{side}, {rounding}: peak {peak:.2f} GiB, given {given:.2f}, result {result:.2f}", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare results on the whole grid, measure nothing")
    parser.add_argument("--float64", action="store_true", help="compare with float64, measure nothing")
    parser.add_argument("--memory", action="store_true", help="peak memory of 8192x8192, nothing else")
    parser.add_argument("--photos", nargs="+", default=PHOTOS)
    parser.add_argument("--labels", nargs="+", type=int, default=(2, 5, 21, 201), help="for --check")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--write", nargs="?", const="crf_2core_epyc.json", help="file in benchmarks/results")
    given = parser.parse_args()
    path = RESULTS / (given.write or "none")
    report = json.loads(path.read_text()) if path.exists() else {}
    report["machine"] = f"{processor()}, kernels {isa()}"
    if given.check:
        report["check"] = check(tuple(given.photos), tuple(given.labels))
    elif given.memory:
        report["8192x8192, 2 labels"] = measure_memory()
    elif given.float64:
        report["float64"] = compare_float64(tuple(given.photos), tuple(given.labels))
    else:
        r = given.repeats
        for name, labels, present, repeats, spread in (
            ("psa", 2, None, r, 2.0),
            ("psa", 2, None, r, 20.0),
            ("deeplab", 2, None, r, 2.0),
            ("irn", 2, None, r, 2.0),
            ("psa", 21, None, max(3, r // 3), 2.0),
            ("psa", 21, None, max(3, r // 3), 20.0),
            ("psa", 201, 6, 3, 2.0),
        ):
            key = f"{name}, {labels} labels" + (f", {present} present" if present else "")
            key += ", confident" if spread > 2 else ""
            if given.only not in key:
                continue
            row = report[key] = measure(name, labels, present, repeats, spread)
            kinds = ("cold", "warm", "fast_cold", "fast_warm")
            ours = ", ".join(f"{kind} {row[kind]['median_ms']} ms ({row[kind + '_ratio']}x)" for kind in kinds)
            print(f"{key}: pydensecrf2 {row['pydensecrf2']['median_ms']} ms, {ours}", flush=True)
        for name in ("psa", "psa-fast") if given.only in "two images" else ():
            runs = [measure_threads(name, r) for _ in range(5)]  # other guests of the machine show here
            ratios = sorted(run["ratio"] for run in runs)
            report[f"{name}, 2 labels, two images"] = {"ratio": ratios[2], "ratios": ratios, "runs": runs}
            print(f"{name}, two images, two threads against one: {ratios[2]}x, of five {ratios}")
    if given.write:
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
