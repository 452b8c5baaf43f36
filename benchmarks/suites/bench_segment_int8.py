"""A trained segmentation network in float32 and in int8: label maps against the true ones, and interleaved times.

    python benchmarks/suites/bench_segment_int8.py RUN/checkpoint scenes:data/scenes [--rounds 40] [--write NAME]

The checkpoint is exported and quantized (calibrated on pictures of train alone); both artifacts segment the pictures
of test in ONNX Runtime and OpenVINO, through the whole runtime. The processor time of a call of the network on one
thread is counted, all ways interleaved, at the network's size and at four times its pixels (the size is free).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import bench_crf
import numpy as np
import results
from lidcam_bench.data import ImageSet, open_data
from lidcam_bench.metrics.segmentation import SegmentationScores
from lidcam_export.precision.quantize import QuantizeOptions, quantize_artifact
from lidcam_export.segmentation import export_segmentation

from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends import open_backend
from lidcam_rt.loading import load
from lidcam_rt.segmentation import Segmenter

ENGINES = ("onnxruntime", "openvino")


def label_maps(path: Path, engine: str, data: ImageSet, augment: str | None = None) -> list[np.ndarray]:
    """At the size of each picture."""
    with load(path, backend=engine, device="cpu", threads=1) as segment:
        assert isinstance(segment, Segmenter)
        return [segment(record.image, keep_image=False, augment=augment).labels for record in data.records]


def scored(labels: list[np.ndarray], reference: list[np.ndarray], data: ImageSet) -> dict[str, float | None]:
    """Mean IoU against the truth; share of pixels with another label than the reference, and IoU with it, in %."""
    truth, between = (SegmentationScores(1 + len(data.class_names)) for _ in range(2))
    for record, found, one in zip(data.records, labels, reference, strict=True):
        true = record.truth(found.shape[::-1]).label_map()
        assert true is not None
        truth.update(found, true)
        between.update(found, one)
    same = between.compute()
    assert same["pixel_accuracy"] is not None
    return {
        "mean_iou": truth.compute()["mean_iou"],
        "flipped_percent": 100 - same["pixel_accuracy"],
        "label_iou": same["mean_iou"],
    }


def timed(paths: dict[str, Path], size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Milliseconds of a call of the network by way."""
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    ways = {}
    for precision, path in paths.items():
        manifest = read_manifest(path)
        manifest = manifest.model_copy(
            update={"input": manifest.input.model_copy(update={"height": size[0], "width": size[1]})}
        )
        for engine in ENGINES:
            ways[f"{engine} {precision}"] = open_backend(path, manifest, backend=engine, device="cpu", threads=1)
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-3, rounds):
        for name, backend in ways.items():
            start = time.process_time()
            backend.run(image, None, ["logits", "label_map", "scores"])
            if turn >= 0:
                samples[name].append((time.process_time() - start) * 1e3)
    first = samples["onnxruntime fp32"]
    rows = {}
    for way, values in samples.items():
        times, spread = results.ratio(first, values)
        name = f"{way}, {size[0]}x{size[1]}"
        rows[name] = bench_crf.spread_of(values) | {"times_as_fast": times, "ratio_10_90": spread}
        print(f"{name:30}{rows[name]['median_ms']:8.2f} ms {times:6.2f} x {spread}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--limit", type=int, help="pictures of test")
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    test = open_data(options.data, "test")
    test = ImageSet(test.name, test.class_names, test.records[: options.limit])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
        export_segmentation(options.checkpoint, paths["fp32"])
        images = folder / "calibration"
        images.mkdir()
        for record in open_data(options.data, "train").records[:200]:
            (images / record.image.name).symlink_to(record.image.resolve())
        manifest, _ = quantize_artifact(paths["fp32"], paths["int8"], QuantizeOptions(calibration=images, pictures=100))
        accuracy: dict[str, Any] = {}
        for views in (None, "ms-flip"):
            reference = label_maps(paths["fp32"], "onnxruntime", test, views)
            for engine in ENGINES:
                for precision, path in paths.items():
                    if views and engine == "openvino":
                        continue  # an engine of one size
                    name = f"{engine} {precision}{', ' + views if views else ''}"
                    accuracy[name] = scored(label_maps(path, engine, test, views), reference, test)
                    print(name, accuracy[name], flush=True)
        spec = manifest.input
        sizes = [(spec.height, spec.width), (2 * spec.height, 2 * spec.width)]
        rows = {name: row for side in sizes for name, row in timed(paths, side, options.rounds).items()}
        made = manifest.precision
        assert made is not None
        size = {name: round(path.stat().st_size / 1e6, 1) for name, path in paths.items()}
        what = (
            f"{options.checkpoint.name} at {spec.height}x{spec.width}, {len(test.records)} pictures of {test.name}: "
            "mean IoU against the true label maps, share of pixels and IoU against float32 in ONNX Runtime; a call of "
            "the network on one thread, processor time in turns"
        )
        results.write(
            options.write, what, load_before, rows,
            precision=made.model_dump(mode="json", exclude_none=True), megabytes=size, accuracy=accuracy,
        )  # fmt: skip


if __name__ == "__main__":
    main()
