"""The networks of the zoo side by side: top-1 on photos, maps on `stamps`, and time.

    python benchmarks/suites/bench_zoo.py --photos FOLDER --data stamps:data/stamps [--write zoo_NAME]

Photos are one of every second of ImageNet's classes, named by WordNet id: the i-th by name is of class 2i. The maps are
those of the class that each network predicts. The processor time of a call of the network on one thread is counted, and
that of a whole picture (decoding to box); the networks are interleaved.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bench_crf
import numpy as np
import results
from lidcam_bench.data import ImageSet, open_data
from lidcam_bench.metrics import PixelAveragePrecision
from lidcam_export.exporter import export_artifact

from lidcam_cli.loading import load_localizer
from lidcam_rt.localizer import Localizer

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def accuracy(localizer: Localizer, photos: list[Path], truths: list[int]) -> tuple[float, float]:
    """Top-1 and top-5, percent."""
    first = fifth = 0
    for truth, result in zip(truths, localizer.stream(photos, keep_image=False), strict=True):
        ranked = [entry.class_id for entry in result.topk]
        first, fifth = first + (ranked[0] == truth), fifth + (truth in ranked)
    return 100 * first / len(photos), 100 * fifth / len(photos)


def maps(localizer: Localizer, data: ImageSet) -> dict[str, Any]:
    """PxAP with its 95% interval (bootstrap over pictures), and mask IoU at the artifact's own settings."""
    metric, ious = PixelAveragePrecision(replicates=200), []
    images = [record.image for record in data.records]
    for record, result in zip(data.records, localizer.stream(images, keep_image=False), strict=True):
        truth = record.truth(result.size).object_mask()
        metric.update(result.map, truth, key=record.image.name)
        ious.append((result.mask & (truth == 1)).sum() / (result.mask | (truth == 1)).sum())
    scores = metric.to_dict()
    return {
        "pxap": round(scores["scores"]["pxap"], 1),
        "pxap_95": [round(value, 1) for value in scores["intervals_95"]["pxap"]],
        "mask_iou": round(float(np.mean(ious)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    load, data, rows = os.getloadavg()[0], open_data(options.data, "test"), {}
    files = sorted(options.photos.glob("n*_*.jpg"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        opened: dict[str, tuple[Localizer, np.ndarray]] = {}
        for name in NAMES:
            path = folder / f"{name}.onnx"
            manifest, _ = export_artifact(f"zoo:{name}", path)
            localizer = stack.enter_context(load_localizer(path, device="cpu", threads=1))
            first, fifth = accuracy(localizer, files, [2 * place for place in range(len(files))])
            rows[f"zoo:{name}"] = {
                "side": manifest.input.height,
                "megabytes": round(path.stat().st_size / 1e6, 1),
                "photos": len(files),
                "top1": round(first, 1),
                "top5": round(fifth, 1),
                **maps(localizer, data),
            }
            size = (1, manifest.input.height, manifest.input.width, 3)
            opened[name] = localizer, np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
            print(name, rows[f"zoo:{name}"], flush=True)
        photo = files[0].read_bytes()
        calls: dict[str, list[float]] = {name: [] for name in NAMES}
        pictures: dict[str, list[float]] = {name: [] for name in NAMES}
        for turn in range(-3, options.rounds):
            for name, (localizer, image) in opened.items():
                start = time.process_time()
                localizer.backend.run(image, np.full((1, 1), -1), ["logits", "map8"])
                middle = time.process_time()
                localizer(photo, keep_image=False)
                if turn >= 0:
                    calls[name].append((middle - start) * 1e3)
                    pictures[name].append((time.process_time() - middle) * 1e3)
    for name in NAMES:
        times, spread = results.ratio(calls[NAMES[0]], calls[name])
        rows[f"zoo:{name}"] |= bench_crf.spread_of(calls[name]) | {
            "times_as_fast": times,
            "ratio_10_90": spread,
            "whole_picture_ms": round(float(np.median(pictures[name])), 2),
        }
        print(name, rows[f"zoo:{name}"]["median_ms"], rows[f"zoo:{name}"]["whole_picture_ms"], times, spread)
    what = (
        "the zoo at its own sizes, a call of the network on one thread, processor time in turns; ratios are with the "
        "first row; top-1, PxAP and whole pictures are in the file"
    )
    results.write(options.write, what, load, rows, data=data.name, pictures=len(data))


if __name__ == "__main__":
    main()
