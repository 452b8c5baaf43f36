"""`python:PACKAGE.MODULE:FUNCTION`, a network that the user's code builds."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from lidcam_training.models.state_dict import load_into, read_state_dict
from torch import nn

from lidcam_export.sources.network import LoadedNetwork, Request, source_spec
from lidcam_rt.errors import ExportError

__all__ = ["load"]


def load(target: str, request: Request) -> LoadedNetwork:
    """Call the function, which takes no arguments, and load weights into what it returns.

    Raises:
        ExportError: no such module or function, or it does not return a network.
        InputError: the weights cannot be read or do not fit.
    """
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise ExportError(f"python:{target}: give python:PACKAGE.MODULE:FUNCTION, a function that returns the network")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module_name), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ExportError(
            f"python:{target}: cannot be called ({type(error).__name__}: {error}). Give a module that Python finds "
            "from this folder and a function of it that takes no arguments and returns the network"
        ) from None
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise ExportError(f"python:{target} returned a {type(model).__name__}, not a torch.nn.Module")
    if request.weights:
        load_into(model, read_state_dict(request.weights), request.weights)
    return LoadedNetwork(model, source_spec(f"python:{target}", request.weights))
