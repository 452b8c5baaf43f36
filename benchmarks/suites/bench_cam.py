"""The CAM stage against the packages that people use for it: grad-cam and torch-cam, and PyTorch by hand.

    python benchmarks/suites/bench_cam.py [--network seresnet50] [--rounds 20] [--write NAME]

From a normalised picture to its class and that class's map at the network's size. seresnet50 of timm at 384, random
weights, one thread, all peers interleaved; the processor time of the process is counted. All compute the plain map (no
negative weight clamping), and before anything is timed the maps are compared: those of torch-cam and grad-cam are the
artifact's without negative values. The artifact also returns PaS's map, mask and threshold. Peers that are not
installed (extra `peers`) are left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import bench_crf
import cv2
import lite0
import numpy as np
import results
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source

import lidcam_rt
from lidcam_rt.artifact import read_manifest

PICTURES = 8
OUTPUTS = ("class_ids", "cam", "map8", "mask", "threshold")
#: A map of the picture's class, float32 [H, W], and the class.
Peer = Callable[[np.ndarray], tuple[int, np.ndarray]]


def plain(source: Any, tensor: Callable[[np.ndarray], torch.Tensor], side: int, rectified: bool = False) -> Peer:
    """By hand: features once, logits and map from them; rectified and resized linearly if asked, as grad-cam does."""
    structure = source.structure
    weight, bias = structure.weight.detach(), structure.bias.detach()

    @torch.inference_mode()
    def run(picture: np.ndarray) -> tuple[int, np.ndarray]:
        features = structure.features(tensor(picture))
        k = int((features.mean((2, 3)) @ weight.t() + bias).argmax())
        cam = torch.einsum("c,chw->hw", weight[k], features[0])
        if rectified:
            return k, cv2.resize(cam.relu().numpy(), (side, side), interpolation=cv2.INTER_LINEAR)
        return k, cv2.resize(cam.numpy(), (side, side), interpolation=cv2.INTER_CUBIC)

    return run


def logits_only(source: Any, tensor: Callable[[np.ndarray], torch.Tensor], side: int) -> Peer:
    """The network without any map: what the map costs is what is above it."""
    none = np.zeros((1, 1), np.float32)

    @torch.inference_mode()
    def run(picture: np.ndarray) -> tuple[int, np.ndarray]:
        return int(source.module(tensor(picture)).argmax()), none

    return run


def torch_cam(source: Any, tensor: Callable[[np.ndarray], torch.Tensor], side: int) -> Peer:
    """torchcam.methods.CAM, as in its README."""
    from torchcam.methods import CAM

    extractor = CAM(source.module, "layer4", "fc", input_shape=(3, side, side))

    @torch.inference_mode()
    def run(picture: np.ndarray) -> tuple[int, np.ndarray]:
        scores = source.module(tensor(picture))
        k = int(scores.argmax())
        cam = extractor(k, scores, normalized=False)[0][0].numpy()
        return k, cv2.resize(cam, (side, side), interpolation=cv2.INTER_CUBIC)

    return run


def grad_cam(source: Any, tensor: Callable[[np.ndarray], torch.Tensor], side: int) -> Peer:
    """pytorch_grad_cam.GradCAM, as in its README; its map is resized and scaled to 0 to 1 by itself.

    Parameters have gradients, as in any network that is loaded in the usual way.
    """
    from pytorch_grad_cam import GradCAM

    source.module.requires_grad_(True)
    extractor = GradCAM(model=source.module, target_layers=[source.module.layer4])

    def run(picture: np.ndarray) -> tuple[int, np.ndarray]:
        cam = extractor(input_tensor=tensor(picture), targets=None)[0]
        return int(extractor.outputs.argmax()), cam

    return run


def ours(path: Path, backend: str) -> Peer:
    """An artifact: uint8 pixels in, and PaS besides."""
    manifest = read_manifest(path)
    engine = lidcam_rt.backends.open_backend(path, manifest, backend=backend, device="cpu", threads=1)
    labels = np.full((1, manifest.top_k), -1, np.int64)
    side = (manifest.input.width, manifest.input.height)

    def run(picture: np.ndarray) -> tuple[int, np.ndarray]:
        values = engine.run(picture[None], labels, OUTPUTS)
        cam = values["cam"][0, 0]
        return int(values["class_ids"][0, 0]), cv2.resize(cam, side, interpolation=cv2.INTER_CUBIC)

    return run


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two maps without what is below zero."""
    return float(np.corrcoef(np.maximum(a, 0).ravel(), np.maximum(b, 0).ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="seresnet50", help="a timm network with the layers layer4 and fc")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    load, side = os.getloadavg()[0], options.size
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder, "model.onnx")
        torch.manual_seed(0)
        export = ExportOptions(random_weights=True, size=(side, side), nwc=False)
        export_artifact(f"timm:{options.network}", artifact, export)
        spec = read_manifest(artifact).input
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))

        def tensor(picture: np.ndarray) -> torch.Tensor:
            return (torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float() - mean) / std

        def network() -> Any:
            """The exported network, for one peer: hooks of another would slow it."""
            torch.manual_seed(0)
            source = load_source(f"timm:{options.network}", Request(random_weights=True))
            source.module.eval()
            return source

        pictures = [
            cv2.resize(lidcam_rt.image.read_image(path), (side, side), interpolation=cv2.INTER_AREA)
            for path in lite0.photos(Path(folder), PICTURES)
        ]
        peers: dict[str, Peer] = {
            "PyTorch eager": plain(network(), tensor, side),
            "PyTorch eager, logits only": logits_only(network(), tensor, side),
        }
        for package, make in (("torchcam", torch_cam), ("grad-cam", grad_cam)):
            try:
                peers[f"{package} {version(package)}"] = make(network(), tensor, side)
            except ImportError as error:  # PackageNotFoundError is one
                print(f"left out: {package}: {error}. pip install 'lidcam-rt[peers]'")
        for backend in ("onnxruntime", "openvino"):
            try:
                peers[f"lidcam_rt, {backend}"] = ours(artifact, backend)
            except lidcam_rt.errors.LidcamError as error:
                print(f"left out: {backend}: {error}")
        # The same work: the same class, and maps that differ in scale only.
        alike = {}
        rectified = plain(network(), tensor, side, rectified=True)
        for name, peer in peers.items():
            known = rectified if name.startswith("grad-cam") else peers["PyTorch eager"]
            pairs = [(peer(picture), known(picture)) for picture in pictures[:2]]
            assert all(a[0] == b[0] for a, b in pairs), f"{name}: another class"
            if "logits" not in name:
                alike[name] = round(min(likeness(a[1], b[1]) for a, b in pairs), 4)
                assert alike[name] > 0.999, (name, alike)
        samples: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(options.rounds):
            for name, peer in peers.items():
                start = time.process_time()
                peer(pictures[number % PICTURES])
                samples[name].append((time.process_time() - start) * 1e3)
    rows = {}
    for name, values in samples.items():
        times, spread = results.ratio(samples["PyTorch eager"], values)
        rows[name] = bench_crf.spread_of(values) | {"times_as_fast_as_eager": times, "ratio_10_90": spread}
        if name in alike:
            rows[name]["correlation_with_eager"] = alike[name]
        print(f"{name:28}{rows[name]['median_ms']:8.1f} ms  {times:5.2f} x  {spread}  {alike.get(name, '')}")
    what = (
        f"CAM stage: {options.network} at {side}, one thread, a picture of the network's size to class and its map; "
        "processor time in turns"
    )
    results.write(options.write, what, load, rows)


if __name__ == "__main__":
    main()
