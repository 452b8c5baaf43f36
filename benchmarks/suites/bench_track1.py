"""The segmentation stage of Track 1 on the CPU, from JPEG bytes to a label map, against PyTorch.

    python benchmarks/suites/bench_track1.py [--labels 201] [--encoder resnet50] [--rounds 12] [--write NAME]

DeepLabV3+ with random weights at 384, one thread, pictures of 500x375, all peers interleaved; the processor
time of the process is counted. The peer in PyTorch does what people write: logits resized to the picture by
F.interpolate, then argmax. The runtime resizes only the logits of the classes that the network's own label map has: a
class that is nowhere the highest there cannot win a pixel. The share of pixels with PyTorch's label is in the result.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import bench_crf
import cv2
import lite0
import numpy as np
import results
import simplejpeg
import torch
from bench_track3 import Stages
from lidcam_export.segmentation import export_segmentation
from lidcam_training.segmentation.checkpoint import SegmentationMeta, save_segmentation
from lidcam_training.segmentation.network import build_network
from lidcam_training.segmentation.spec import NetworkSpec

import lidcam_rt

PICTURES = 8
STAGES = ("decode", "preprocess", "network", "maps", "compose")
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)


def checkpoint(folder: Path, labels: int, encoder: str, size: int) -> tuple[torch.nn.Module, Path]:
    """A network of random weights whose statistics fit its input: else one class has every pixel."""
    torch.manual_seed(0)
    spec = NetworkSpec(architecture="deeplabv3plus", encoder=encoder, num_labels=labels)
    network = build_network(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(4, 3, 128, 128))
    names = tuple(f"class {i}" for i in range(1, labels))
    meta = SegmentationMeta(spec, names, (size, size), MEAN, STD)
    return network.eval(), save_segmentation(network.eval(), meta, folder / "checkpoint")


class Plain:
    """PyTorch and OpenCV."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], size: int) -> None:
        self.network, self.size, self.stage = network, size, Stages()
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    @torch.inference_mode()
    def __call__(self, data: bytes) -> np.ndarray:
        stage = self.stage
        with stage("decode"):
            picture = simplejpeg.decode_jpeg(data)
        with stage("preprocess"):
            small = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
            x = (torch.from_numpy(small)[None].permute(0, 3, 1, 2).float() - self.mean) / self.std
        with stage("network"):
            logits = self.network(x)
        with stage("maps"):
            large = torch.nn.functional.interpolate(logits, picture.shape[:2], mode="bilinear", align_corners=False)
        with stage("compose"):
            return large[0].argmax(0).to(torch.uint8).numpy()


class Ours:
    """An artifact."""

    def __init__(self, path: Path, backend: str, precision: str) -> None:
        self.segmenter: Any = lidcam_rt.load(path, backend=backend, precision=precision, device="cpu", threads=1)
        self.stage = Stages()
        self.segmenter.pipeline.observe(self.stage)

    def __call__(self, data: bytes) -> np.ndarray:
        labels: np.ndarray = self.segmenter(data, keep_image=False).labels
        return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=201, help="with the background; LID has 201")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        network, saved = checkpoint(folder, options.labels, options.encoder, options.size)
        export_segmentation(saved, folder / "model.onnx")
        data = [path.read_bytes() for path in lite0.photos(folder, PICTURES)]
        peers: dict[str, Any] = {"PyTorch eager": Plain(network, options.size)}
        if options.compile:
            peers["torch.compile"] = Plain(torch.compile(network), options.size)
        for backend, precision in (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")):
            try:
                peers[f"{backend} {precision}"] = Ours(folder / "model.onnx", backend, precision)
            except lidcam_rt.errors.LidcamError as error:
                print(f"left out: {backend} {precision}: {error}")
        alike = {}
        for name, peer in peers.items():
            shares = [float((peer(one) == peers["PyTorch eager"](one)).mean()) for one in data[:2]]
            alike[name] = round(min(shares), 4)
            peer.stage.now.clear()
        peers["PyTorch eager"].stage.now.clear()
        classes = len(np.unique(peers["PyTorch eager"](data[0])))
        peers["PyTorch eager"].stage.now.clear()
        samples: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(options.rounds):
            for name, peer in peers.items():
                start = time.process_time()
                peer(data[number % PICTURES])
                samples[name].append((time.process_time() - start) * 1e3)
                peer.stage.next()
    rows = {}
    for name, values in samples.items():
        times, spread = results.ratio(samples["PyTorch eager"], values)
        stages = peers[name].stage.samples
        rows[name] = bench_crf.spread_of(values) | {
            "times_as_fast_as_eager": times,
            "ratio_10_90": spread,
            "stages_ms": {s: round(statistics.median(stages[s]), 2) for s in STAGES if stages.get(s)},
            "pixels_as_eager": alike[name],
        }
        print(f"{name:20}{rows[name]['median_ms']:8.1f} ms  {times:5.2f} x  {spread}  {alike[name]}  "
              f"{rows[name]['stages_ms']}", flush=True)  # fmt: skip
    what = (
        f"Track 1, segmentation: DeepLabV3+ with {options.encoder}, {options.labels} labels, at {options.size}, "
        "one thread, JPEG of 500x375 to label map; processor time in turns"
    )
    results.write(options.write, what, load, rows, labels_in_the_first_picture=classes)


if __name__ == "__main__":
    main()
