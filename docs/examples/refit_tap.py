"""A classifier trained with GAP, its head fitted anew for TAP on pictures without labels: does it pay?

    python docs/examples/refit_tap.py PHOTOS [--data stamps:data/stamps] [--limit 500]

The backbone stays. The head is fitted so that TAP-pooled features p give the network's own logits l:

    diagonal  w'[k, c] = w[k, c] * mean(GAP_c) / mean(TAP_c)
    ridge     min_W sum |W p + b - l|^2 + penalty |(W - w') / s|^2, in closed form, s = w' 's scale per channel

Half of the photos fit, the other half scores: agreement of the first class with the GAP network, and with --data the
PxAP of the maps with NWC, of the class that the GAP network predicts. docs/training.md has the figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lidcam_bench.data import open_data
from lidcam_bench.metrics import PixelAveragePrecision
from lidcam_export.sources.source import Source, load_source
from lidcam_training.models import thresholded_average_pool
from PIL import Image

from lidcam_rt.pas import PasOptions, pas

THRESHOLD = 0.1
Array = npt.NDArray[np.float64]


def features(source: Source, picture: Path) -> torch.Tensor:
    """The last feature map [C, h, w] of a picture."""
    settings = source.settings
    with Image.open(picture) as image:
        resized = image.convert("RGB").resize((settings.size[1], settings.size[0]), Image.Resampling.BICUBIC)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std))
    pixels = (torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() - mean) / std
    with torch.inference_mode():
        return source.structure.features(pixels[None])[0].float()


def diagonal(weight: Array, gap: Array, tap: Array) -> Array:
    """The weights [K, C], each channel scaled by how much smaller its mean is under GAP."""
    return weight * (gap.mean(0) / np.maximum(tap.mean(0), 1e-12))


def ridge(prior: Array, bias: Array, pooled: Array, logits: Array, penalty: float) -> Array:
    """The weights [K, C] nearest to the logits, drawn to the prior: the solution in the n x n dual."""
    spread = np.sqrt((prior**2).mean(0)) + 1e-12  # channels of small weights stay small
    scaled = pooled * spread
    rest = logits - bias - pooled @ prior.T
    inner = scaled @ scaled.T
    inner[np.diag_indices_from(inner)] += penalty * np.trace(inner) / len(inner)
    return prior + (scaled.T @ np.linalg.solve(inner, rest)).T * spread


def pxap(
    source: Source, data: str, heads: dict[str, Array], weight: Array, bias: Array, limit: int
) -> dict[str, float]:
    """PxAP of the maps of each head, with NWC."""
    metrics = {name: PixelAveragePrecision() for name in heads}
    for record in open_data(data, "test").records[:limit]:
        planes = features(source, record.image).numpy()
        truth = record.truth()
        label = int((weight @ planes.mean((1, 2)) + bias).argmax())
        for name, head in heads.items():
            cam = np.tensordot(np.maximum(head[label], 0).astype(np.float32), planes, 1)
            made = pas(cam[None, None], truth.size[::-1], PasOptions())
            metrics[name].update(made.map[0, 0], truth.object_mask())
    return {name: float(metric.compute() or 0) for name, metric in metrics.items()}


def main() -> None:
    """Fit, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--data", help="pictures with masks, such as stamps:data/stamps")
    parser.add_argument("--limit", type=int, default=500, help="photos, and pictures of the data")
    parser.add_argument("--source", default="zoo:efficientnet_lite0")
    options = parser.parse_args()
    source = load_source(options.source)
    weight, bias = (value.double().numpy() for value in (source.structure.weight, source.structure.bias))
    files = sorted(p for p in options.photos.iterdir() if p.suffix in (".jpg", ".png"))[: options.limit]
    gaps, taps = [], []
    for file in files:
        planes = features(source, file)
        gaps.append(planes.mean((1, 2)).double().numpy())
        taps.append(thresholded_average_pool(planes[None], THRESHOLD)[0].double().numpy())
    gap, tap = np.stack(gaps), np.stack(taps)
    logits = gap @ weight.T + bias
    fit, held = slice(0, None, 2), slice(1, None, 2)
    heads = {"GAP, as trained": weight, "TAP, weights as they are": weight}
    heads["TAP, diagonal"] = diagonal(weight, gap[fit], tap[fit])
    for penalty in (1.0, 0.1, 0.01):
        heads[f"TAP, ridge {penalty:g}"] = ridge(heads["TAP, diagonal"], bias, tap[fit], logits[fit], penalty)
    scores = pxap(source, options.data, heads, weight, bias, options.limit) if options.data else {}
    wanted = logits[held].argmax(1)
    print(f"{len(files)} photos, {options.source}, TAP {THRESHOLD}")
    for name, head in heads.items():
        pooled = gap if name.startswith("GAP") else tap
        same = float(((pooled[held] @ head.T + bias).argmax(1) == wanted).mean())
        shown = f"  PxAP {scores[name]:5.1f}" if name in scores else ""
        print(f"{name:26} agrees with GAP {100 * same:5.1f}%{shown}")


if __name__ == "__main__":
    main()
