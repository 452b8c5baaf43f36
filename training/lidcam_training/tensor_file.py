"""Tensors and plain values in one file: tensors as safetensors, everything else as JSON in its header.

Reading returns tensors, numbers, texts, tuples, lists and dictionaries; nothing in such a file can run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lidcam_rt.artifact import json_object
from lidcam_rt.errors import DataError, OutputError

__all__ = ["decoded", "encoded", "read_tensor_file", "read_values", "save_tensors", "write_tensor_file"]

#: The only entry of the header's metadata; safetensors would write several in an order that varies by process.
_ENTRY = "lidcam"


def encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value in a form fit for JSON; its tensors go to `tensors`, on the CPU and contiguous.

    Lists and plain values stay; the others become objects with one key that names their kind: `tuple`, `dict` (a list
    of pairs, since keys may be numbers), and `tensor` (its name; `channels_last` where it has that memory layout).

    Raises:
        TypeError: it holds something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [encoded(entry, tensors) for entry in value]
    if isinstance(value, tuple):
        return {"tuple": [encoded(entry, tensors) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[encoded(key, tensors), encoded(entry, tensors)] for key, entry in value.items()]}
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} is neither a tensor nor a plain value")
    name = str(len(tensors))
    last = value.ndim == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
    tensors[name] = value.detach().cpu().contiguous().clone()
    return {"tensor": name, "channels_last": True} if last else {"tensor": name}


def decoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `encoded` was given.

    Raises:
        ValueError: it is not as `encoded` makes it.
        KeyError: a tensor is not there.
    """
    if isinstance(value, list):
        return [decoded(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        last = value.get("channels_last") and tensor.ndim == 4
        return tensor.contiguous(memory_format=torch.channels_last) if last else tensor
    (kind, entries), *others = value.items()
    if others or kind not in ("tuple", "dict") or not isinstance(entries, list):
        raise ValueError(f"{kind!r} is not a kind of value")
    if kind == "tuple":
        return tuple(decoded(entry, tensors) for entry in entries)
    return {decoded(key, tensors): decoded(entry, tensors) for key, entry in entries}


def _digest(value: Any, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(value).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, str(path), metadata)
    except SafetensorError as error:  # what the system said is in its text only
        code = re.search(r"(?:code: |os error )(\d+)", str(error))
        reason = os.strerror(int(code[1]) if code else errno.EIO)
        text = f"{path.parent}: cannot be written ({reason}). Free space, or choose another folder"
        raise OutputError(text) from None


def write_tensor_file(path: Path, value: Any) -> None:
    """Write a value of tensors, lists, tuples, dictionaries, texts, numbers and None.

    The file is written in place: use `lidcam_rt.files.replacing` if it may exist already.

    Raises:
        OutputError: it cannot be written.
        TypeError: it holds something else.
    """
    tensors: dict[str, Tensor] = {}
    plain = encoded(value, tensors)
    about = {"sha256": _digest(plain, tensors), "value": plain}
    save_tensors(tensors, path, {_ENTRY: json.dumps(about, separators=(",", ":"))})


def _read(path: Path, *, with_tensors: bool) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            about = json_object((file.metadata() or {})[_ENTRY])
            if not with_tensors:
                return decoded(about["value"], dict.fromkeys(file.keys(), torch.empty(0)))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
        if _digest(about["value"], tensors) != about["sha256"]:
            raise ValueError("its SHA-256 does not match")
        return decoded(about["value"], tensors)
    except KeyError as error:
        raise DataError(f"{path} cannot be read: it is not a lidcam file ({error} is missing)") from None
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None


def read_tensor_file(path: Path) -> Any:
    """The value that `write_tensor_file` was given; tensors on the CPU.

    Raises:
        DataError: it is not such a file, or it was changed.
    """
    return _read(path, with_tensors=True)


def read_values(path: Path) -> Any:
    """As `read_tensor_file`, with empty tensors in place of the real ones, and unchecked: to inspect a file.

    Raises:
        DataError: it is not such a file.
    """
    return _read(path, with_tensors=False)
