"""Activation maps of a picture's own classes, from a checkpoint in PyTorch or from an artifact on an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from lidcam_cli.loading import load_localizer
from lidcam_rt.artifact import InputSpec
from lidcam_rt.augment import Augment
from lidcam_rt.errors import InputError
from lidcam_rt.files import file_sha256
from lidcam_rt.image import network_input
from lidcam_rt.localizer import Localizer
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.models.folding import folded

__all__ = ["CamNetwork", "CheckpointNetwork", "averaged_cams", "in_batches", "open_network"]

NO_FEATURES = "an artifact has no features to walk along: walk along colours, or give the checkpoint"

Pixels = npt.NDArray[np.uint8]
Cams = npt.NDArray[np.float32]


class CamNetwork(Protocol):
    """What pseudo labels need from a network.

    Attributes:
        class_names: one per class.
        spec: its input.
        percentile: of PaS, as trained or exported.
        theta: of PaS.
        identity: what its maps depend on, for the identity of a run.
        gives_features: whether `descriptors` is supported.
    """

    class_names: tuple[str, ...]
    spec: InputSpec
    percentile: float
    theta: float
    identity: dict[str, Any]
    gives_features: bool

    def signed(self, nwc: bool | None) -> bool:
        """Whether maps keep negative weights; InputError if the network cannot do what is requested."""
        ...

    def cams(self, batch: Pixels, classes: Sequence[Sequence[int]], *, nwc: bool | None) -> list[Cams]:
        """Maps float32 [K, h, w] of each picture's classes; `batch` is uint8 [N, H, W, 3]."""
        ...

    def probabilities(self, batch: Pixels) -> npt.NDArray[np.float32]:
        """Sigmoid scores, float32 [N, classes]."""
        ...

    def descriptors(self, pictures: Sequence[Pixels]) -> list[Cams]:
        """Features float32 [C, h, w] of pictures of any sizes; InputError if the network has none."""
        ...


class CheckpointNetwork:
    """A checkpoint of `lidcam train` in PyTorch. A `CamNetwork`.

    Args:
        path: the folder.

    Attributes:
        model: the classifier.
    """

    gives_features = True

    def __init__(self, path: Path) -> None:
        checkpoint = load_checkpoint(path)
        meta = checkpoint.meta
        self.model, self.class_names = checkpoint.model, meta.class_names
        self._features = folded(self.model).to(memory_format=torch.channels_last)
        self.spec = InputSpec(
            height=meta.size[0], width=meta.size[1], dynamic_size=True, mean=meta.mean, std=meta.std,
            interpolation=meta.interpolation,
        )  # fmt: skip
        self.percentile, self.theta, self._nwc = meta.percentile, meta.theta, meta.nwc
        self.identity = {"checkpoint_sha256": checkpoint.weights_sha256, "nwc": meta.nwc}
        shape = (1, 3, 1, 1)
        self._mean, self._std = torch.tensor(meta.mean).view(shape), torch.tensor(meta.std).view(shape)

    def signed(self, nwc: bool | None) -> bool:
        """See `CamNetwork`."""
        return not (self._nwc if nwc is None else nwc)

    def features(self, batch: Pixels) -> torch.Tensor:
        """F [N, C, h, w] of uint8 [N, H, W, 3]."""
        x = (torch.tensor(batch).permute(0, 3, 1, 2).float() - self._mean) / self._std
        return self._features.forward_features(x.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def cams(self, batch: Pixels, classes: Sequence[Sequence[int]], *, nwc: bool | None) -> list[Cams]:
        """See `CamNetwork`."""
        features, weight = self.features(batch).float(), self.model.head_weight.float()
        if not self.signed(nwc):
            weight = weight.clamp(min=0)
        return [
            torch.einsum("chw,kc->khw", entry, weight[list(ids)]).numpy()
            for entry, ids in zip(features, classes, strict=True)
        ]

    @torch.inference_mode()
    def probabilities(self, batch: Pixels) -> npt.NDArray[np.float32]:
        """See `CamNetwork`."""
        return self.model.pool_and_classify(self.features(batch)).sigmoid().float().numpy()


    @torch.inference_mode()
    def descriptors(self, pictures: Sequence[Pixels]) -> list[Cams]:
        """See `CamNetwork`: from the stage of stride 4 where timm names one, else from the last feature map."""
        batch: Any = np.stack([network_input(picture, self.spec) for picture in pictures])
        info = getattr(self._features.backbone, "feature_info", None)
        stages = [entry for entry in info or () if entry.get("reduction", 99) <= 4 and entry.get("module")]
        if not stages:
            return list(self.features(batch).float().numpy())
        found: list[torch.Tensor] = []
        stage = self._features.backbone.get_submodule(stages[-1]["module"])
        handle = stage.register_forward_hook(lambda _, __, output: found.append(output))
        try:
            self.features(batch)
        finally:
            handle.remove()
        return list(found[0].float().numpy())


class _Artifact:
    gives_features = False

    def __init__(self, localizer: Localizer) -> None:
        manifest = localizer.manifest
        if not manifest.labels_input:
            raise InputError(f"{localizer.path} takes no labels: export it with the labels input")
        assert manifest.cam is not None
        self._pipeline, self._top_k, self._nwc = localizer.pipeline, manifest.top_k, manifest.cam.nwc
        self.class_names, self.spec = manifest.class_names, manifest.input
        if self.spec.dtype != "uint8":
            raise InputError(f"{localizer.path} takes float32 pixels: pseudo labels need one with --input-dtype uint8")
        self.percentile, self.theta = manifest.pas.percentile, manifest.pas.theta
        self.identity = {"artifact_sha256": file_sha256(Path(str(localizer.path))), "engine": localizer.pipeline.engine}

    def signed(self, nwc: bool | None) -> bool:
        if nwc is not None and nwc != self._nwc:
            raise InputError(
                f"this artifact was exported {'with' if self._nwc else 'without'} NWC: export it again with "
                f"--{'nwc' if nwc else 'no-nwc'}, or give the checkpoint"
            )
        return not self._nwc

    def _run(self, batch: Pixels, labels: npt.NDArray[np.int64], output: str) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = self._pipeline.backend.run(batch, labels, (output,))[output]
        return result

    def cams(self, batch: Pixels, classes: Sequence[Sequence[int]], *, nwc: bool | None) -> list[Cams]:
        self.signed(nwc)
        parts: list[list[Cams]] = [[] for _ in classes]
        for start in range(0, max(map(len, classes), default=0), self._top_k):
            labels = np.full((len(batch), self._top_k), -1, np.int64)
            for row, ids in zip(labels, classes, strict=True):
                chunk = list(ids)[start : start + self._top_k]
                row[: len(chunk)] = chunk
            maps = self._run(batch, labels, "cam")
            for i, ids in enumerate(classes):
                parts[i].append(maps[i, : max(0, min(len(ids) - start, self._top_k))])
        return [np.concatenate(found) for found in parts]

    def probabilities(self, batch: Pixels) -> npt.NDArray[np.float32]:
        labels = np.full((len(batch), self._top_k), -1, np.int64)
        logits = self._run(batch, labels, "logits").astype(np.float64)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


    def descriptors(self, pictures: Sequence[Pixels]) -> list[Cams]:
        raise InputError(NO_FEATURES)


def open_network(path: Path) -> CamNetwork:
    """Open a checkpoint folder, or an artifact.

    Raises:
        DataError: the checkpoint cannot be read.
        ArtifactError: the artifact cannot be read.
        InputError: an artifact without the labels input.
    """
    return CheckpointNetwork(path) if path.is_dir() else _Artifact(load_localizer(path))


def averaged_cams(
    network: CamNetwork,
    pictures: Sequence[Pixels],
    classes: Sequence[Sequence[int]],
    views: Augment,
    *,
    nwc: bool | None,
) -> list[Cams]:
    """Maps of several pictures, averaged over their views; the network runs once per scale for all of them.

    Args:
        network: of `open_network`.
        pictures: uint8 [H, W, 3] RGB, of any sizes.
        classes: of each picture.
        views: scales and mirror images.
        nwc: clamp negative weights; None: the network's default.

    Returns:
        float32 [K, h, w] per picture; [0, 1, 1] without classes.
    """
    chosen = [i for i, ids in enumerate(classes) if len(ids)]
    out: list[Cams] = [np.zeros((0, 1, 1), np.float32) for _ in classes]
    if not chosen:
        return out
    inputs = [views.inputs(pictures[i], network.spec) for i in chosen]
    count = 2 if views.flip else 1
    repeated = [classes[i] for i in chosen for _ in range(count)]
    per_scale = [
        network.cams(np.concatenate([entry[s] for entry in inputs]), repeated, nwc=nwc)
        for s in range(len(views.scales))
    ]
    for place, i in enumerate(chosen):
        out[i] = views.merge([np.stack(maps[place * count : (place + 1) * count]) for maps in per_scale])
    return out


def in_batches(length: int, size: int) -> list[range]:
    """The same batches whatever was done before, so that a resumed run yields the same bits."""
    return [range(start, min(start + size, length)) for start in range(0, length, size)]

