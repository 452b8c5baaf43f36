"""The peers of bench_stream: one network, once as an artifact, once in a plain PyTorch + OpenCV loop.

The network is timm's `tf_efficientnet_lite0` at 320 with random weights from a fixed seed (speed does not
depend on them); the map is cubic, min-max to bytes, percentile 100, theta 0.35. Both peers must give the
same masks.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import timm
import torch

from lidcam_rt.artifact import CamSpec, InputSpec, Manifest, PasSpec, SourceSpec

SIZE, CLASSES, THETA, MEAN, STD = 320, 1000, 0.35, 127.0, 128.0


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=CLASSES).eval()


class Track3(torch.nn.Module):
    """Image to logits, class, map and threshold, in the artifact's form."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("weights", model.get_classifier().weight.detach().clamp(min=0))

    def forward(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (image.float() - MEAN) / STD
        features = self.model.forward_features(x.permute(0, 3, 1, 2))
        logits = self.model.forward_head(features)
        ranked = logits.argmax(1, keepdim=True)
        class_ids = torch.where(labels < 0, ranked, labels)
        cam = (self.weights[class_ids] @ features.flatten(2)).unflatten(2, features.shape[2:])
        big = torch.nn.functional.interpolate(cam, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
        low, high = big.amin((2, 3), keepdim=True), big.amax((2, 3), keepdim=True)
        map8 = ((big - low) / (high - low) * 255.0).to(torch.uint8)
        threshold = torch.floor(map8.to(torch.float32).amax((2, 3)) * THETA)
        return logits, class_ids, map8, threshold


def artifact(model: torch.nn.Module, path: Path) -> Path:
    """Export the network as an artifact."""
    import onnx

    names = ["logits", "class_ids", "map8", "threshold"]
    example = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8), torch.full((2, 1), -1)
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        Track3(model), example, path, dynamo=True, opset_version=18, input_names=["image", "labels"],
        output_names=names, dynamic_shapes=({0: batch}, {0: batch}), external_data=False, verbose=False,
    )  # fmt: skip
    manifest = Manifest(
        input=InputSpec(height=SIZE, width=SIZE, mean=(MEAN,) * 3, std=(STD,) * 3, interpolation="bicubic"),
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        cam=CamSpec(nwc=True, pooling="gap", stride=32),
        pas=PasSpec(percentile=100.0, theta=THETA),
        source=SourceSpec(name="timm:tf_efficientnet_lite0"),
        package_version="0.1.0",
        opset=18,
    )
    loaded = onnx.load(path)
    onnx.helper.set_model_props(loaded, manifest.to_metadata())
    path.write_bytes(loaded.SerializeToString())
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
            inputs = [cv2.resize(p, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for p in pictures]
            x = (torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).float() - MEAN) / STD
            features = self.model.forward_features(x)
            classes = self.model.forward_head(features).argmax(1)
            for picture, feature, k in zip(pictures, features, classes, strict=True):
                cam = torch.einsum("c,chw->hw", self.weights[k], feature).numpy()
                big = cv2.resize(cam, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
                map8 = ((big - big.min()) / (big.max() - big.min()) * 255.0).astype(np.uint8)
                threshold = int(THETA * np.percentile(map8, 100))
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
