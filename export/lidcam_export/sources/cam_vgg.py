"""`cam:vgg16`, VGG with the CAM head of the released code: 3x3 convolution to 1024 channels, ReLU, pooling, linear."""

from __future__ import annotations

from dataclasses import replace

from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.models.state_dict import class_count, load_into, read_state_dict, strip_prefixes
from torch import Tensor

from lidcam_export.sources.network import LoadedNetwork, Request, source_spec
from lidcam_rt.errors import ExportError

__all__ = ["load"]

_NAMES = ("vgg11", "vgg13", "vgg16", "vgg19")
#: Prefixes of the released code's keys, and ours.
_RELEASED = {"features.": "backbone.features.", "conv6.": "neck.0.", "fc.": "head."}


def load(name: str, request: Request) -> LoadedNetwork:
    """Build the network, at stride 16 unless another is wanted, and load its weights.

    Raises:
        ExportError: no such VGG.
        InputError: the weights cannot be read or do not fit.
    """
    if name not in _NAMES:
        raise ExportError(f"cam:{name}: unknown; there are {', '.join(f'cam:{known}' for known in _NAMES)}")
    spec = ClassifierSpec(name, pooling="gap", stride=request.stride or 16)
    model = build_classifier(spec)
    if request.weights:
        state = _our_names(read_state_dict(request.weights), model.state_dict())
        classes = class_count(state, model, ("head",))
        if classes and classes != spec.num_classes:
            model = build_classifier(replace(spec, num_classes=classes))
        load_into(model, state, request.weights)
    return LoadedNetwork(model, source_spec(f"cam:{name}", request.weights))


def _our_names(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the released code's keys under ours; others stay as they are."""
    released = {
        key.replace(ours, theirs, 1): key
        for key in wanted
        for theirs, ours in _RELEASED.items()
        if key.startswith(ours)
    }
    bare = strip_prefixes(state, dict.fromkeys(released, next(iter(wanted.values()))))
    if not any(key in released for key in bare):
        return bare
    return {released.get(key, key): value for key, value in bare.items()}
