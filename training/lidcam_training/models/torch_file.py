"""Files of torch.save, read as data: tensors, numbers and texts. No code that a file names is ever imported or run.

PyTorch's own restricted reader (`weights_only=True`) refuses files with other objects beside the tensors, such as the
argparse.Namespace of timm's and torchvision's training scripts. For each name that it does not know it is given a
placeholder, a class of ours that only remembers what it was made of.
"""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lidcam_rt.errors import InputError

__all__ = ["Placeholder", "check_kind", "read_torch_file"]

#: Never data: a file that names them was made to run something.
_CODE = re.compile(
    r"(os|posix|nt|sys|subprocess|commands|shutil|socket|runpy|pty|importlib|ctypes|code|webbrowser)\.|"
    r"builtins\.(eval|exec|compile|open|__import__|breakpoint|input)$"
)
_UNKNOWN = re.compile(r"unsupported global:? (?:GLOBAL )?(\S+) (?:was not|whose module)", re.IGNORECASE)
_NOT_A = re.compile(r"Can only (SETITEMS?|append)\b.*but got <class '([^']+)'>", re.DOTALL)
_CALLED = re.compile(r"reduce for unrecognized function <(\S+)")
_LIMIT = 1000

_MAGIC = (
    (b"version https://git-lfs.github.com/spec/", "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "is a Keras HDF5 file: give PyTorch weights"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first"),
)
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|\?xml|head)", re.IGNORECASE)


class Placeholder:
    """An object of a type that is not needed.

    Attributes:
        arguments: what it was made with.
        state: what it was filled with, such as the attributes of a Namespace.
    """

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> Placeholder:
        """Remember the arguments."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        """Remember the state."""
        self.state = state

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The state dict of a pickled torch.nn.Module; empty for other objects."""
        state = self.state if isinstance(self.state, Mapping) else {}
        found: dict[str, Tensor] = {}
        for part in ("_parameters", "_buffers"):
            entries = state.get(part)
            for name, value in entries.items() if isinstance(entries, Mapping) else ():
                if isinstance(value, Tensor):
                    found[f"{prefix}{name}"] = value.detach()
        modules = state.get("_modules")
        for name, module in modules.items() if isinstance(modules, Mapping) else ():
            if isinstance(module, Placeholder):
                found |= module.tensors(f"{prefix}{name}.")
        return found


def _placeholder(name: str, base: type) -> Any:
    """A class with the name of what it stands for; for base dict, a function that makes a dictionary."""
    module, _, short = name.rpartition(".")
    if base is OrderedDict:
        return lambda *_: OrderedDict()
    return type(short, (base,), {"__module__": module})


class _List(list[Any]):
    """A list that ignores what it was made with."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


def read_torch_file(path: Path) -> Any:
    """Read a file of torch.save, whatever it holds beside the tensors.

    Args:
        path: a .pth, .pt, .ckpt or .bin file.

    Returns:
        What was saved; objects of unknown types are placeholders.

    Raises:
        InputError: not such a file, damaged, or made to run code; the message says what it is.
    """
    check_kind(path)
    bases: dict[str, type] = {"collections.defaultdict": OrderedDict, "collections.deque": _List}
    for name in _names_in(path):
        _refuse_code(path, name)
        bases.setdefault(name, Placeholder)
    for _ in range(_LIMIT):
        placeholders = [(_placeholder(name, base), name) for name, base in bases.items()]
        try:
            with torch.serialization.safe_globals(placeholders):  # type: ignore[arg-type]  # pairs are allowed
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            text = str(error)
            if (unknown := _UNKNOWN.search(text)) is not None:
                name = unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"
                _refuse_code(path, name)
                if name in bases:
                    raise _damaged(path, text) from None
                bases[name] = Placeholder
            elif (called := _CALLED.search(text)) is not None:
                raise InputError(
                    f"{path}: has an object that is made by calling the result of {called[1]}, so it was not "
                    "read. Save the weights alone: torch.save(model.state_dict(), ...)"
                ) from None
            elif (wrong := _NOT_A.search(text)) is not None and wrong[2] in bases:
                bases[wrong[2]] = _List if wrong[1] == "append" else OrderedDict
            else:
                raise _damaged(path, text) from None
    raise InputError(f"{path}: has objects of more than {_LIMIT} types: save a state dict, model.state_dict()")


def _names_in(path: Path) -> list[str]:
    """The types that a file names and PyTorch does not know, where it can list them without loading."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # files from before PyTorch 1.6, and damaged ones: loading tells more
        return []


def _refuse_code(path: Path, name: str) -> None:
    if _CODE.match(name):
        raise InputError(
            f"{path}: would run {name} when it is loaded, so it was not read. Weights need no code: do not trust "
            "this file"
        )


def _damaged(path: Path, reason: str) -> InputError:
    """PyTorch's reason in one line, without terminal codes and without its advice to run what is in the file."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", reason)
    plain = plain.split("WeightsUnpickler error:")[-1] if "Weights only load failed" in plain else plain
    plain = re.split(r"Check the documentation|In PyTorch 2\.6|Please use `torch", plain)[0]
    first = next((line.strip() for line in plain.splitlines() if line.strip()), "it ends too early")
    return InputError(
        f"{path}: cannot be read as weights ({first[:200]}). Copy or download it again; a state dict is saved with "
        "torch.save(model.state_dict(), ...)"
    )


def check_kind(path: Path) -> None:
    """Raise InputError for files that are something else, judging by their first bytes."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the weights file in it")
    if not path.is_file():
        raise InputError(f"{path}: no such weights file. Give a .pth or .safetensors file")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise InputError(f"{path}: is empty. Copy or download it again")
    for magic, meaning in _MAGIC:
        if start.startswith(magic):
            raise InputError(f"{path}: {meaning}")
    if _PAGE.match(start):
        raise InputError(
            f"{path}: is a web page, not weights: the link led to a page (a login, a preview or an error). Download "
            "the file itself"
        )
    if path.suffix == ".onnx":
        raise InputError(f"{path}: is an ONNX model. Artifacts are exported from PyTorch weights (.pth, .safetensors)")
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception as error:  # an unknown version, a directory cut short
            raise _damaged(path, str(error)) from None
        if any("/code/" in name or name.endswith("constants.pkl") for name in names):
            raise InputError(
                f"{path}: is a TorchScript program. Save the weights of the network in Python: "
                "torch.save(model.state_dict(), ...)"
            )
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(f"{path}: is a zip archive without weights of torch.save: unpack it, or export it again")
