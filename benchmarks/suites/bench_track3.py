"""A whole Track 3 picture on the CPU, from JPEG bytes to class, mask and box, against PyTorch and OpenCV.

    python benchmarks/suites/bench_track3.py [--network timm:seresnet50] [--rounds 20] [--models FP32.onnx INT8.onnx]
        [--write NAME]

seresnet50 at 384, stride 32, with random weights, since time does not depend on them; int8 is calibrated on the
pictures. All peers run interleaved in one process on one thread, picture by picture; the processor time of the process
is counted, which other work on the machine stretches less than wall-clock time. The peers in PyTorch do what people
write: simplejpeg, OpenCV's resize, the network eagerly or through torch.compile, the map by OpenCV and numpy,
pydensecrf2 with the preset psa at the network's size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from lidcam_bench.latency.floor import measure_floor
from lidcam_export.exporter import export_artifact
from lidcam_export.options import ExportOptions
from lidcam_export.precision.quantize import QuantizeOptions, quantize_artifact
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source

import lidcam_rt
from lidcam_rt.artifact import Manifest, read_manifest
from lidcam_rt.crf import PRESETS, foreground_probability

STAGES = ("decode", "preprocess", "network", "maps", "crf", "boxes")
PICTURES = 12


class Stages:
    """Processor time by stage, as a hook for `Pipeline.observe` and for the peers."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.now: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str, stream: int | None = None) -> Iterator[None]:
        start = time.process_time()
        yield
        self.now[name] += time.process_time() - start

    def next(self) -> None:
        """A picture is done."""
        for name, seconds in self.now.items():
            self.samples[name].append(seconds * 1e3)
        self.now.clear()


class Plain:
    """PyTorch, OpenCV, numpy and pydensecrf2."""

    def __init__(self, source: Any, features: Any, manifest: Manifest, crf: bool) -> None:
        structure = source.structure
        self.features = features
        self.weight, self.bias = structure.weight.detach(), structure.bias.detach()
        self.clamped = self.weight.clamp(min=0)
        self.spec, self.pas, self.crf = manifest.input, manifest.pas, crf
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.spec.mean, self.spec.std))
        self.stage = Stages()

    @torch.inference_mode()
    def __call__(self, data: bytes) -> tuple[int, np.ndarray, tuple[int, ...]]:
        stage, side = self.stage, (self.spec.width, self.spec.height)
        with stage("decode"):
            picture = simplejpeg.decode_jpeg(data)
        with stage("preprocess"):
            small = cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
            x = (torch.from_numpy(small)[None].permute(0, 3, 1, 2).float() - self.mean) / self.std
        with stage("network"):
            features = self.features(x)
            k = int((features.mean((2, 3)) @ self.weight.t() + self.bias).argmax())
            cam = torch.einsum("c,chw->hw", self.clamped[k], features[0]).numpy()
        with stage("maps"):
            big = cv2.resize(cam, side, interpolation=cv2.INTER_CUBIC)
            map8 = ((big - big.min()) / (big.max() - big.min()) * 255.0).astype(np.uint8)
            level = int(self.pas.theta * np.percentile(map8, self.pas.percentile))
        if self.crf:
            with stage("crf"):
                p = foreground_probability(level)[map8]
                unary = -np.log(np.clip([1 - p, p], 1e-5, 1)).astype(np.float32)
                map8 = np.rint(255 * bench_crf.run_peer(small, unary, PRESETS["psa"])[1]).astype(np.uint8)
                level = 127
        with stage("maps"):
            full = cv2.resize(map8, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            mask = full > level
        with stage("boxes"):
            contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea)) if contours else (0, 0, 0, 0)
        return k, mask, (x, y, x + w, y + h)


class Ours:
    """An artifact."""

    def __init__(self, path: Path, backend: str, precision: str, crf: str | None) -> None:
        self.localizer = lidcam_rt.load(path, backend=backend, precision=precision, device="cpu", threads=1)
        self.crf, self.stage = crf, Stages()
        self.localizer.pipeline.observe(self.stage)

    def __call__(self, data: bytes) -> tuple[int, np.ndarray, tuple[int, ...] | None]:
        result = self.localizer(data, refine=self.crf, keep_image=False)
        return result.class_id, result.mask, result.box


def artifacts(folder: Path, network: str, size: int, photos: Path) -> tuple[Path, Path]:
    """In float32 and in int8."""
    random = network.startswith("timm:")
    export_artifact(network, folder / "fp32.onnx", ExportOptions(random_weights=random, size=(size, size)))
    options = QuantizeOptions(calibration=photos, pictures=2 * PICTURES)
    quantize_artifact(folder / "fp32.onnx", folder / "int8.onnx", options)
    return folder / "fp32.onnx", folder / "int8.onnx"


def peers(network: str, models: tuple[Path, Path], compiled: bool) -> dict[str, Callable[..., Any]]:
    manifest = read_manifest(models[0])
    source = load_source(network, Request(random_weights=network.startswith("timm:")))
    source.module.eval()
    features = {"PyTorch eager": source.structure.features}
    if compiled:
        features["torch.compile"] = torch.compile(source.structure.features)
    out: dict[str, Callable[..., Any]] = {}
    for end, preset in (("", None), (", CRF", "psa"), (", CRF psa-fast", "psa-fast")):
        for name, call in features.items():
            if preset != "psa-fast":  # pydensecrf has no other rounding
                out[name + end] = Plain(source, call, manifest, preset is not None)
        for path, backend, precision in (
            (models[0], "onnxruntime", "fp32"), (models[0], "openvino", "fp32"), (models[0], "openvino", "bf16"),
            (models[1], "onnxruntime", "int8"), (models[1], "openvino", "int8"),
        ):  # fmt: skip
            try:
                out[f"{backend} {precision}{end}"] = Ours(path, backend, precision, preset)
            except lidcam_rt.errors.LidcamError as error:
                print(f"left out: {backend} {precision}: {error}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="timm:seresnet50")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--models", nargs=2, type=Path, help="artifacts in float32 and int8 made before")
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        paths = lite0.photos(photos, PICTURES)
        data = [path.read_bytes() for path in paths]
        models = options.models or artifacts(Path(folder), options.network, options.size, photos)
        all_peers = peers(options.network, tuple(models), not options.no_compile)
        for peer in all_peers.values():
            for warm in data[:2]:
                peer(warm)
            peer.stage.now.clear()  # type: ignore[attr-defined]
        samples: dict[str, list[float]] = {name: [] for name in all_peers}
        for number in range(options.rounds):
            for name, peer in all_peers.items():
                start = time.process_time()
                peer(data[number % PICTURES])
                samples[name].append((time.process_time() - start) * 1e3)
                peer.stage.next()  # type: ignore[attr-defined]
        floor = measure_floor([1])
    rows = {}
    for name, values in samples.items():
        baseline = samples["PyTorch eager, CRF" if ", CRF" in name else "PyTorch eager"]
        times, spread = results.ratio(baseline, values)
        stages = all_peers[name].stage.samples  # type: ignore[attr-defined]
        rows[name] = bench_crf.spread_of(values) | {
            "times_as_fast_as_eager": times,
            "ratio_10_90": spread,
            "stages_ms": {s: round(statistics.median(stages[s]), 2) for s in STAGES if stages.get(s)},
        }
        print(f"{name:28}{rows[name]['median_ms']:8.1f} ms  {rows[name]['times_as_fast_as_eager']:5.2f} x  "
              f"{rows[name]['ratio_10_90']}  {rows[name]['stages_ms']}", flush=True)  # fmt: skip
    what = (
        f"{options.network} at {options.size}, one thread, JPEG of 500x375 to class, mask and box; processor time "
        "in turns"
    )
    results.write(options.write, what, load, rows, floor=floor.model_dump(mode="json"))


if __name__ == "__main__":
    main()
