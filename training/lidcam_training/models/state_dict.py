"""State dicts: read from a file, taken out of wrappers and prefixes, and fitted to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lidcam_rt.errors import InputError

__all__ = ["class_count", "clean_state_dict", "load_into", "read_state_dict", "strip_prefixes"]

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "encoder.")
_WRAPPERS = ("state_dict", "model_state_dict", "state_dict_ema", "ema_state_dict", "model", "net")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a .pth / .pt / .safetensors state dict, wrapped or not.

    Raises:
        InputError: missing, damaged, or no state dict.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file. Give --weights a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(str(path)))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {reason[:200]}). "
            "Save a plain state dict with torch.save(model.state_dict(), ...)"
        ) from None
    return clean_state_dict(loaded, path)


def clean_state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Take a state dict out of its wrappers (`state_dict`, `model` ...).

    Raises:
        InputError: no state dict is in it.
    """
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path}: holds no state dict. Save one with torch.save(model.state_dict(), ...)")
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def strip_prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take prefixes such as `module.` off the keys, as many as make most of the names fit.

    Args:
        state: as read.
        wanted: the network's own state dict.

    Returns:
        The tensors under the prefix that fits best; keys outside it (a loss, another head) are left out.
    """
    best = dict(state)
    best_count = sum(key in wanted for key in best)
    waiting, seen = [dict(state)], {""}
    trails = [""]
    while waiting:
        current, trail = waiting.pop(), trails.pop()
        for prefix in _PREFIXES:
            inner = {k.removeprefix(prefix): v for k, v in current.items() if k.startswith(prefix)}
            if not inner or trail + prefix in seen:
                continue
            seen.add(trail + prefix)
            fitting = sum(key in wanted for key in inner)
            if fitting > best_count:
                best, best_count = inner, fitting
            waiting.append(inner)
            trails.append(trail + prefix)
    return best


def class_count(state: Mapping[str, Tensor], model: nn.Module, heads: Sequence[str]) -> int | None:
    """Classes of a state dict: rows of its classifying layer; None where it is not in it.

    Args:
        state: as read, with or without prefixes.
        model: a network of that architecture, of any class count.
        heads: names that the classifying layer may have.
    """
    bare = strip_prefixes(state, model.state_dict())
    rows = [int(bare[f"{head}.weight"].shape[0]) for head in heads if f"{head}.weight" in bare]
    return rows[0] if rows else None


def _renamed_by_order(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of efficientnet-lite-pytorch under timm's names: the same ones in the same order.

    A backbone takes all but the classifier.
    """
    if "_conv_stem.weight" not in state:
        return state
    for leave_out in ((), ("_fc.weight", "_fc.bias")):
        kept = [value for key, value in state.items() if key not in leave_out]
        if [value.shape for value in kept] == [value.shape for value in wanted.values()]:
            return dict(zip(wanted, kept, strict=True))
    return state


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict into a network; every tensor of the network must be there.

    Raises:
        InputError: tensors are missing or have another shape.
    """
    wanted = model.state_dict()
    state = _renamed_by_order(strip_prefixes(state, wanted), wanted)
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    if missing or wrong:
        unknown = [k for k in state if k not in wanted]

        def few(names: list[str]) -> str:
            return f"{len(names)} ({', '.join(names[:3])})" if names else "0"

        raise InputError(
            f"{path}: does not fit the network. Of its {len(wanted)} tensors are missing: {few(missing)}; of another "
            f"shape: {few(wrong)}; unknown in the file: {few(unknown)}. Give the weights of this very architecture"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
