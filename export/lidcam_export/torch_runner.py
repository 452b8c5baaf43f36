"""A checkpoint run in PyTorch behind the runtime's Localizer: the reference for `lidcam compare` and `lidcam bench`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lidcam_export.exporter import manifest_of
from lidcam_export.graph.localization import LocalizationGraph
from lidcam_export.options import ExportOptions
from lidcam_export.sources.source import load_source
from lidcam_rt.backends.base import StageHook, Stop, unobserved
from lidcam_rt.backends.outputs import OutputCheck
from lidcam_rt.errors import InputError
from lidcam_rt.localizer import Localizer
from lidcam_rt.pas import pas, pas_reference

__all__ = ["TorchBackend", "open_checkpoint"]


class TorchBackend:
    """The network in PyTorch float32 on the CPU. A `lidcam_rt.backends.Backend`.

    Args:
        graph: the network with its manifest.
        compiled: whether the network goes through torch.compile; its first call then takes a while.
        kernels: PaS by the compiled kernel, for measurements of speed, in place of the numpy reference. The bits are
            the same.
    """

    def __init__(self, graph: LocalizationGraph, *, compiled: bool = False, kernels: bool = False) -> None:
        self._graph: LocalizationGraph | None = graph
        self._call: Callable[..., Any] | None = torch.compile(graph) if compiled else graph
        self._pas = pas if kernels else pas_reference
        self._stage: StageHook = unobserved
        self.name = f"pytorch {torch.__version__}, {'torch.compile' if compiled else 'eager'}"
        self.device, self.precision = "cpu", "fp32"
        promised = OutputCheck(graph.manifest)
        self.inputs = _described(promised.inputs)
        self.outputs = _described(promised.outputs)

    @torch.inference_mode()
    def run(
        self,
        image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
        outputs: Sequence[str],
        stop: Stop | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a batch, uint8 [N, H, W, 3]; outputs as those of an artifact.

        Raises:
            InputError: the backend is closed.
        """
        graph, call = self._graph, self._call
        if graph is None or call is None:
            raise InputError("this backend is closed; open the checkpoint again")
        given = () if labels is None else (torch.from_numpy(labels),)
        with self._stage("graph"):
            logits, class_ids, scores, cam, _ = (value.numpy() for value in call(torch.tensor(image), *given))
        with self._stage("PaS"):
            maps = self._pas(cam, (image.shape[1], image.shape[2]), graph.manifest.pas)
        results: dict[str, npt.NDArray[Any]] = {
            "logits": logits,
            "class_ids": class_ids,
            "scores": scores,
            "cam": cam,
            "map8": maps.map,
            "mask": maps.mask.view(np.uint8),
            "threshold": maps.threshold,
        }
        return {name: results[name] for name in outputs}

    def observe(self, stage: StageHook) -> None:
        """Have a hook entered around the graph (network and CAM) and PaS."""
        self._stage = stage

    def for_streams(self) -> tuple[TorchBackend, int]:
        """This backend, called by one thread: PyTorch uses all cores for one call."""
        return self, 1

    def close(self) -> None:
        """Free the network."""
        self._graph = self._call = None


def _described(promised: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> Sequence[Mapping[str, Any]]:
    return [
        {"name": name, "dtype": dtype, "shape": ["batch", *("any" if side is None else side for side in shape)]}
        for name, (dtype, shape) in promised.items()
    ]


def open_checkpoint(path: Path, *, compiled: bool = False, kernels: bool = False, threads: int = 0) -> Localizer:
    """Open a checkpoint folder as a Localizer that runs in PyTorch.

    Args:
        path: the folder.
        compiled: see `TorchBackend`.
        kernels: see `TorchBackend`.
        threads: of PyTorch, in the whole process; 0: PyTorch's choice.

    Raises:
        DataError: missing, incomplete or damaged.
    """
    source = load_source(str(path))
    manifest = manifest_of(source, ExportOptions())
    if threads:
        torch.set_num_threads(threads)
    backend = TorchBackend(LocalizationGraph(source, manifest).eval(), compiled=compiled, kernels=kernels)
    return Localizer(backend, manifest, path=path)
