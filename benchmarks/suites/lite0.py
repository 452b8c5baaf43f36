"""The peers of bench_stream: one network, once as an exported artifact, once in a plain PyTorch + OpenCV loop.

EfficientNet-Lite0 at 320 with its ImageNet weights; cubic map, min-max to bytes, percentile 98, theta 0.35, box of the
largest contour. Both peers must give the same classes and nearly the same masks.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.sources.source import load_source
from PIL import Image

SIZE, PERCENTILE, THETA, MEAN, STD = 320, 98, 0.35, 127.0, 128.0


def network() -> torch.nn.Module:
    return load_source("zoo:efficientnet_lite0").module.eval()


def artifact(path: Path) -> Path:
    """Export the network as a user does."""
    export_artifact("zoo:efficientnet_lite0", path)
    return path


class PlainLoop:
    """What people write: cv2.imread, torch, numpy, cv2.findContours, one step after the other."""

    def __init__(self, model: torch.nn.Module, batch_size: int) -> None:
        self.model = model
        self.batch_size = batch_size
        self.weights = model.get_classifier().weight.detach().clamp(min=0)

    @torch.inference_mode()
    def __call__(self, paths: list[Path]) -> list[tuple[int, np.ndarray, tuple[int, int, int, int] | None]]:
        results = []
        for start in range(0, len(paths), self.batch_size):
            pictures = [
                cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB)
                for p in paths[start : start + self.batch_size]
            ]
            # Pillow's filter, as torchvision's Resize of a PIL image: the one that the weights were evaluated with
            inputs = [np.asarray(Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for p in pictures]
            x = (torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).float() - MEAN) / STD
            features = self.model.forward_features(x)
            classes = self.model.forward_head(features).argmax(1)
            for picture, feature, k in zip(pictures, features, classes, strict=True):
                cam = torch.einsum("c,chw->hw", self.weights[k], feature).numpy()
                big = cv2.resize(cam, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
                map8 = ((big - big.min()) / (big.max() - big.min()) * 255.0).astype(np.uint8)
                threshold = int(THETA * np.percentile(map8, PERCENTILE))
                full = cv2.resize(map8, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
                mask = full > threshold
                contours, _ = cv2.findContours(
                    mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
                )
                box = cv2.boundingRect(max(contours, key=cv2.contourArea)) if contours else None
                results.append((int(k), mask, box))
        return results


def photos(folder: Path, count: int = 48) -> list[Path]:
    """Crops of scikit-image's photos, as JPEG files of about 500x375."""
    from skimage import data

    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        source = sources[i % len(sources)]
        height, width = source.shape[:2]
        y, x = rng.integers(0, height // 4), rng.integers(0, width // 4)
        crop = cv2.resize(source[y:, x:], (500, 375), interpolation=cv2.INTER_CUBIC)
        paths.append(folder / f"{i:03}.jpg")
        cv2.imwrite(str(paths[-1]), crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return paths
