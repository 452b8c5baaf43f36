"""State dicts: read from a file, taken out of wrappers and prefixes, and fitted to a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError
from lidcam_training.models.torch_file import Placeholder, check_kind, read_torch_file

__all__ = ["AVERAGED", "StateDict", "class_count", "fit_names", "load_into", "read_state_dict"]

#: Entries that hold an exponential moving average of the weights.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")


@dataclass(frozen=True)
class StateDict:
    """The weights of a file.

    Attributes:
        path: the file.
        tensors: by name, as in the file.
        key: the entry of the file that they were taken from, such as `state_dict_ema`; empty if it holds nothing
            else.
        averaged: whether they are an exponential moving average (EMA).
        others: entries with weights that were not taken.
        architecture: name of the network as the file states it (`arch`, or the training script's arguments), or None.
    """

    path: Path
    tensors: dict[str, Tensor]
    key: str = ""
    averaged: bool = False
    others: tuple[str, ...] = ()
    architecture: str | None = None


def read_state_dict(path: Path, *, ema: bool | None = None) -> StateDict:
    """Read a .pth, .pt, .ckpt, .bin or .safetensors file, wrapped or not.

    Args:
        path: the file.
        ema: True requires averaged weights; False takes the others; None takes averaged weights if the
            file has them, as timm's loader does.

    Raises:
        InputError: missing, damaged, something else, or without the weights that are wanted.
    """
    check_kind(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded: Any = dict(load_file(str(path)))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as weights ({error}). Copy or download it again") from None
    else:
        loaded = read_torch_file(path)
    return _unwrap(loaded, path, ema)


def _unwrap(loaded: Any, path: Path, ema: bool | None) -> StateDict:
    entries = loaded if isinstance(loaded, Mapping) else {}
    found = {name: t for name in (*AVERAGED, *_PLAIN) if (t := _tensors(entries.get(name), depth=3))}
    averaged = [name for name in found if name in AVERAGED]
    plain = [name for name in found if name in _PLAIN]
    direct = _tensors(loaded, depth=0)
    if ema and not averaged:
        raise InputError(f"{path}: holds no averaged weights ({', '.join(AVERAGED)}): leave --ema out")
    if averaged and ema is not False:
        key = averaged[0]
    elif plain:
        key = plain[0]
    else:
        key = ""
    tensors = found[key] if key else direct
    if not tensors:
        raise InputError(
            f"{path}: holds {_describe(loaded)}, not a state dict. Save one with torch.save(model.state_dict(), ...)"
        )
    others = tuple(name for name in found if name != key)
    return StateDict(path, tensors, key, key in AVERAGED, others, _architecture(entries))


def _tensors(value: Any, depth: int) -> dict[str, Tensor]:
    """The tensors of a state dict or a whole network, or of one inside up to `depth` wrappers."""
    if isinstance(value, Placeholder):
        return value.tensors()
    if not isinstance(value, Mapping):
        return {}
    for name in _PLAIN if depth else ():
        if inner := _tensors(value.get(name), depth - 1):
            return inner
    return {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [str(name) for name in value]
        return f"{len(names)} entries ({', '.join(names[:5])}{' ...' if len(names) > 5 else ''})"
    kind = type(value)
    return f"a {kind.__name__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"


def _architecture(entries: Mapping[Any, Any]) -> str | None:
    """From `arch` (timm, ImageNet example) or the arguments of the training script (`args.model`, `args.arch`)."""
    for value in (entries.get("arch"), *_arguments(entries.get("args")), *_arguments(entries.get("hyper_parameters"))):
        if isinstance(value, str) and value:
            return value
    return None


def _arguments(value: Any) -> Iterator[Any]:
    state = value.state if isinstance(value, Placeholder) else value
    if isinstance(state, Mapping):
        yield from (state.get(name) for name in ("model", "arch", "model_name", "backbone"))


def fit_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of a network: without `module.`, `model.`, `_orig_mod.` or any other prefix.

    Args:
        state: as read.
        wanted: the network's own state dict.

    Returns:
        The tensors under the prefix that makes most names fit; tensors outside it (a loss, another head) are left out.
    """
    best, best_count = dict(state), sum(name in wanted for name in state)
    for wrapper in ("", "_orig_mod.", "module."):  # from torch.compile and DataParallel, also around inner modules
        bare = {name.replace(wrapper, ""): value for name, value in state.items()} if wrapper else dict(state)
        prefixes = {
            name.removesuffix(last) for last in list(wanted)[:8] for name in bare if name.endswith(f".{last}")
        }
        for prefix in sorted(prefixes | {""}):
            inner = {name.removeprefix(prefix): value for name, value in bare.items() if name.startswith(prefix)}
            count = sum(name in wanted for name in inner)
            if count > best_count:
                best, best_count = inner, count
    return _renamed_by_order(best, wanted)


def _renamed_by_order(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of efficientnet-lite-pytorch under timm's names: the same ones in the same order.

    A backbone takes all but the classifier.
    """
    if "_conv_stem.weight" not in state:
        return state
    for leave_out in ((), ("_fc.weight", "_fc.bias")):
        kept = [value for name, value in state.items() if name not in leave_out]
        if [value.shape for value in kept] == [value.shape for value in wanted.values()]:
            return dict(zip(wanted, kept, strict=True))
    return state


def class_count(state: Mapping[str, Tensor], model: nn.Module, heads: Sequence[str]) -> int | None:
    """Classes of a state dict: rows of its classifying layer; None if it has no such layer.

    Args:
        state: as read, with or without prefixes.
        model: a network of that architecture, of any class count.
        heads: names that the classifying layer may have.
    """
    bare = fit_names(state, model.state_dict())
    rows = [int(bare[f"{head}.weight"].shape[0]) for head in heads if f"{head}.weight" in bare]
    return rows[0] if rows else None


def load_into(model: nn.Module, weights: StateDict) -> None:
    """Load weights into a network, in the network's precision; every tensor of the network must be there.

    Args:
        model: the network.
        weights: as read, with or without prefixes.

    Raises:
        InputError: tensors are missing, have another shape, or hold values that are not finite.
    """
    wanted, path = model.state_dict(), weights.path
    state = fit_names(weights.tensors, wanted)
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or wrong:
        unknown = [name for name in state if name not in wanted]

        def few(names: list[str]) -> str:
            return f"{len(names)} ({', '.join(names[:3])})" if names else "0"

        raise InputError(
            f"{path}: does not fit the network of {len(wanted)} tensors. Missing: {few(missing)}; of another "
            f"shape: {few(wrong)}; unknown in the file: {few(unknown)}. Give weights of exactly this architecture"
        )
    used = {name: value for name, value in state.items() if name in wanted}
    for name, value in used.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            kind = "NaN" if bool(torch.isnan(value).any()) else "infinite"
            raise InputError(
                f"{path}: {name} holds {kind} values: the training diverged, or the file is damaged. Take an earlier "
                "checkpoint"
            )
    model.load_state_dict(used, strict=False)
