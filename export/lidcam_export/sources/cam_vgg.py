"""`cam:vgg16`, VGG with the CAM head of the released code: 3x3 convolution to 1024 channels, ReLU, pooling, linear."""

from __future__ import annotations

from dataclasses import replace

from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.models.state_dict import class_count, fit_names, load_into
from torch import Tensor

from lidcam_export.sources.kinds import check_name
from lidcam_export.sources.network import LoadedNetwork, Request, source_spec

__all__ = ["load"]

#: Prefixes of our keys, and of the keys in other projects' checkpoints.
_COMMON = {"backbone.features.": "features.", "neck.0.": "conv6.", "head.": "fc."}


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network, at stride 16 unless another is wanted, and load its weights.

    Raises:
        ExportError: no such VGG, or no weights.
        InputError: the weights cannot be read or do not fit.
    """
    source = f"cam:{name}"
    check_name(source)
    weights = request.need_weights(source)
    spec = ClassifierSpec(name, pooling="gap", stride=request.stride or 16)
    model = build_classifier(spec)
    if weights is not None:
        weights = replace(weights, tensors=_our_names(weights.tensors, model.state_dict()))
        classes = class_count(weights.tensors, model, ("head",))
        if classes and classes != spec.num_classes:
            model = build_classifier(replace(spec, num_classes=classes))
        load_into(model, weights)
    return LoadedNetwork(model, source_spec(source, weights, random=weights is None))


def _our_names(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Another project's state dict under our names; names that are not theirs stay as they are."""
    # In the released code all convolutions are in main_layers: the added one follows the last one and its ReLU.
    last = max(int(key.split(".")[2]) for key in wanted if key.startswith("backbone.features."))
    released = {"backbone.features.": "main_layers.", "neck.0.": f"main_layers.{last + 2}.", "head.": "fc."}
    for prefixes in (_COMMON, released):
        ours = {
            key.replace(own, theirs, 1): key
            for key in wanted
            for own, theirs in prefixes.items()
            if key.startswith(own)
        }
        bare = fit_names(state, dict.fromkeys(ours, next(iter(wanted.values()))))
        if sum(key in ours for key in bare) > len(ours) / 2:
            return {ours.get(key, key): value for key, value in bare.items()}
    return fit_names(state, wanted)
