"""Builds engines of TensorRT for RTX from artifacts: batch 1 to 32, three sizes, fp32 and fp16; needs no GPU.

Run: python -m benchmarks.suites.bench_engines MODEL.onnx ... [--sizes 224,384,512] [--capability 8.9]
     [--output FILE.json]
Prints a row per engine and writes what `lidcam build` put into the sidecars.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

from lidcam_export.tensorrt.builder import build_engine
from lidcam_export.tensorrt.options import BuildOptions


def main() -> None:
    """Build every combination and report it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--sizes", default="224,384,512")
    parser.add_argument("--capability", default="8.9")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/engines_tensorrt_rtx.json"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            for size in (int(side) for side in options.sizes.split(",")):
                for precision in ("fp32", "fp16"):
                    start = time.perf_counter()
                    spec = build_engine(
                        model,
                        Path(folder) / "model.engine",
                        BuildOptions(
                            flavour="tensorrt-rtx",
                            precision=precision,
                            size=(size, size),
                            capability=tuple(options.capability.split(",")),
                        ),
                    ).spec
                    image = spec.profile["image"]
                    rows.append(
                        {
                            "model": model.stem,
                            "size": size,
                            "precision": precision,
                            "convolutions": spec.built,
                            "evidence": spec.evidence,
                            "profile": [image.min, image.opt, image.max],
                            "megabytes": round(spec.engine_bytes / 1e6, 1),
                            "seconds": round(time.perf_counter() - start, 1),
                            "fp16 against fp32": spec.half_check,
                        }
                    )
                    row = rows[-1]
                    print(f"{row['model']:<18}{size:>4} {precision}  {row['megabytes']:>6} MB  {row['seconds']:>5} s  "
                          f"convolutions {row['convolutions']} ({row['evidence']})", flush=True)
    report = {
        "what": "engines of TensorRT for RTX built without a GPU; none was loaded or run",
        "tensorrt_rtx": spec.version,
        "capability": options.capability,
        "machine": f"{platform.machine()}, no GPU",
        "rows": rows,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
