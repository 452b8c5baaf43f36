"""Artifacts of one network in several precisions: interleaved calls on one thread, and what `lidcam quantize` compared.

    python benchmarks/suites/bench_precision.py FP32.onnx INT8.onnx FP16.onnx [--rounds 60] [--write NAME]

The processor time of the process is counted, from the network's input to logits and map; accuracy is as recorded in
the manifests.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import bench_crf
import numpy as np
import results

from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends import open_backend
from lidcam_rt.backends.base import Backend, engine_text
from lidcam_rt.errors import LidcamError


def opened(paths: list[Path]) -> dict[str, tuple[Path, Backend]]:
    """Every engine and precision that this machine has, by text."""
    out: dict[str, tuple[Path, Backend]] = {}
    for path in paths:
        manifest = read_manifest(path)
        for engine in ("onnxruntime", "openvino"):
            for precision in ("auto", "bf16") if (engine, manifest.arithmetic) == ("openvino", "fp32") else ("auto",):
                asked = {"backend": engine, "precision": precision, "device": "cpu", "threads": 1}
                try:
                    backend = open_backend(path, manifest, **asked)
                except LidcamError as error:
                    print(f"left out: {path.name} in {engine}: {error}")
                    continue
                out[engine_text(backend)] = path, backend
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    load, rng = os.getloadavg()[0], np.random.default_rng(0)
    spec = read_manifest(options.models[0]).input
    image = rng.integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    ways = opened(options.models)
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-3, options.rounds):
        for name, (_, backend) in ways.items():
            start = time.process_time()
            backend.run(image, np.full((1, 1), -1), ["logits", "map8"])
            if turn >= 0:
                samples[name].append((time.process_time() - start) * 1e3)
    first = next(iter(samples.values()))
    rows = {}
    for name, values in samples.items():
        times, spread = results.ratio(first, values)
        made = read_manifest(ways[name][0]).precision
        rows[name] = bench_crf.spread_of(values) | {
            "times_as_fast": times,
            "ratio_10_90": spread,
            "megabytes": round(ways[name][0].stat().st_size / 1e6, 1),
            "precision": made.model_dump(mode="json", exclude_none=True) if made else None,
        }
        print(f"{name:40}{rows[name]['median_ms']:8.1f} ms {rows[name]['times_as_fast']:6.2f} x "
              f"{rows[name]['ratio_10_90']}", flush=True)  # fmt: skip
    source = read_manifest(options.models[0]).source.name
    what = (
        f"{source} at {spec.height}x{spec.width}, a call on one thread, processor time in turns; ratios are with the "
        "first row"
    )
    results.write(options.write, what, load, rows)


if __name__ == "__main__":
    main()
