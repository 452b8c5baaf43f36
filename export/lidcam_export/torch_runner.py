"""A checkpoint run in PyTorch behind the runtime's Localizer: the reference for `lidcam compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.models import Classifier

from lidcam_rt.artifact import CamSpec, InputSpec, Manifest, SourceSpec
from lidcam_rt.localizer import Localizer
from lidcam_rt.pas import PasOptions, pas_reference
from lidcam_rt.version import __version__

__all__ = ["TorchBackend", "open_checkpoint"]


class TorchBackend:
    """The network in PyTorch float32 on the CPU, PaS by the numpy reference."""

    device = "cpu"

    def __init__(self, model: Classifier, manifest: Manifest) -> None:
        self.model = model.eval()
        self.manifest = manifest
        self.name = f"pytorch {torch.__version__}"

    @torch.inference_mode()
    def run(
        self, image: npt.NDArray[Any], labels: npt.NDArray[np.int64] | None, outputs: Sequence[str]
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a batch, uint8 [N, H, W, 3]; outputs as those of an artifact."""
        spec = self.manifest.input
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        x = (torch.tensor(image).float() - mean) / std
        features = self.model.forward_features(x.permute(0, 3, 1, 2).contiguous())
        logits = self.model.pool_and_classify(features)
        ids = logits.topk(self.manifest.top_k, dim=1).indices
        if labels is not None:
            wanted = torch.from_numpy(labels)
            ids = torch.where(wanted < 0, ids, wanted)
        weight = self.model.head_weight.clamp(min=0) if self.manifest.cam.nwc else self.model.head_weight
        cam = torch.einsum("nkc,nchw->nkhw", weight[ids], features).numpy()
        maps = pas_reference(cam, (image.shape[1], image.shape[2]), self.manifest.pas)
        every: dict[str, npt.NDArray[Any]] = {
            "logits": logits.numpy(),
            "class_ids": ids.numpy(),
            "cam": cam,
            "map8": maps.map,
            "mask": maps.mask,
            "threshold": maps.threshold,
        }
        return {name: every[name] for name in outputs}


def open_checkpoint(path: Path) -> Localizer:
    """Open a checkpoint folder as a Localizer that runs in PyTorch.

    Raises:
        DataError: missing, incomplete or damaged.
    """
    checkpoint = load_checkpoint(path)
    meta, model = checkpoint.meta, checkpoint.model
    manifest = Manifest(
        task=meta.task,
        input=InputSpec(
            height=meta.size[0],
            width=meta.size[1],
            mean=meta.mean,
            std=meta.std,
            interpolation=meta.interpolation,
        ),
        class_names=meta.class_names,
        cam=CamSpec(
            nwc=meta.nwc, pooling=model.pooling, tap_threshold=model.tap_threshold, stride=model.stride
        ),
        pas=PasOptions(percentile=meta.percentile, theta=meta.theta),
        source=SourceSpec(name=path.name, weights="model.safetensors"),
        package_version=__version__,
        opset=18,
    )
    return Localizer(TorchBackend(model, manifest), manifest, path=path)
