"""`python:PACKAGE.MODULE:FUNCTION`, a network that the user's code builds."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from lidcam_training.models.state_dict import load_into
from torch import nn

from lidcam_export.sources.network import LoadedNetwork, Request, source_spec
from lidcam_rt.errors import ExportError

__all__ = ["load"]


def load(target: str, request: Request) -> LoadedNetwork:
    """Call the function, which takes no arguments, and load weights into what it returns.

    Raises:
        ExportError: no such module or function, it fails, or it does not return a network.
        InputError: the weights cannot be read or do not fit.
    """
    source = f"python:{target}"
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise ExportError(f"{source}: give python:PACKAGE.MODULE:FUNCTION, a function that returns the network")
    weights = request.read_weights()
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = _unwrapped(getattr(importlib.import_module(module_name), attribute)())
    except Exception as error:
        raise ExportError(f"{source}: cannot be called ({_reason(error)}). {_way_out(error)}") from None
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise ExportError(f"{source} returned a {type(model).__name__}, not a torch.nn.Module")
    model = model.cpu().float()
    if weights is not None:
        load_into(model, weights)
    return LoadedNetwork(model, source_spec(source, weights, random=request.random_weights))


def _unwrapped(model: Any) -> Any:
    """The network inside torch.compile's and DataParallel's wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _reason(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0][:300]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text}; {Path(frame.filename).name}, line {frame.lineno}"


def _way_out(error: Exception) -> str:
    if "cuda" in str(error).lower() or "nvidia" in str(error).lower():
        return "Export runs on the CPU: build the network there, without .cuda() or .to('cuda')"
    return (
        "Give a module that Python finds from this folder and a function of it that takes no arguments and returns the "
        "network"
    )
