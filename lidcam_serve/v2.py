"""The bodies of the Open Inference Protocol over HTTP: JSON, and JSON followed by raw tensors."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import json_object
from lidcam_serve.errors import BadRequest
from lidcam_serve.tensors import DTYPES, InferRequest, Tensor, as_array, by_name, check_output, element_count, raw_bytes

__all__ = ["HEADER", "decode", "encode", "json_length"]

#: The header with the length of the JSON that precedes raw tensors.
HEADER = "inference-header-content-length"


def json_length(body: bytes, header: str | None) -> int:
    """Length of a body's JSON in bytes.

    Args:
        body: of the request.
        header: the header `HEADER`, or None.

    Raises:
        BadRequest: the header is not such a length.
    """
    if header is None:
        return len(body)
    plain = header.isascii() and header.isdigit() and len(header) <= 12
    if not plain or int(header) > len(body):
        raise BadRequest(f"{HEADER} must be the length of the JSON in bytes")
    return int(header)


def decode(body: bytes, length: int) -> tuple[InferRequest, dict[str, Any]]:
    """A request from its body, and its JSON for `encode`.

    Args:
        body: of the request.
        length: of its JSON, in bytes.

    Raises:
        BadRequest: it does not follow the protocol.
    """
    try:
        head = json_object(body[:length])
    except ValueError as error:
        raise BadRequest(f"the body is {error}") from None
    raw, inputs = memoryview(body)[length:], []
    for entry in _objects(head.get("inputs"), "inputs"):
        name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
        if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
            raise BadRequest("each input must have a name, a datatype and a shape")
        size = _parameters(entry).get("binary_data_size")
        if size is not None:
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(raw):
                raise BadRequest(f"input {name}: its binary_data_size must be the number of its bytes in the body")
            inputs.append(Tensor(name, as_array(name, datatype, shape, raw[:size])))
            raw = raw[size:]
        else:
            inputs.append(Tensor(name, _from_json(name, datatype, shape, entry.get("data"))))
    if len(raw):
        raise BadRequest(f"{len(raw)} bytes are left over after the inputs")
    asked = _objects(head.get("outputs", []), "outputs")
    if not all(isinstance(entry.get("name"), str) for entry in asked):
        raise BadRequest("each output must have a name")
    outputs = [check_output(entry["name"], _parameters(entry)) for entry in asked]
    return InferRequest(by_name(inputs), outputs, _parameters(head)), head


def encode(name: str, version: str, tensors: Sequence[Tensor], head: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where raw tensors follow it.

    Args:
        name: of the model.
        version: of the model.
        tensors: the outputs.
        head: JSON of the request, which says which outputs are wanted as raw tensors.
    """
    binary = {
        str(entry.get("name")): _parameters(entry).get("binary_data") for entry in _objects(head.get("outputs", []), "")
    }
    every = _parameters(head).get("binary_data_output") is True
    outputs, raw = [], []
    for tensor in tensors:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.data.shape)}
        wanted = binary.get(tensor.name)
        if wanted is True or (wanted is None and every):
            raw.append(raw_bytes(tensor.data))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        elif tensor.data.dtype == object:
            entry["data"] = [value.decode("utf-8", "replace") for value in tensor.data.ravel()]
        else:
            entry["data"] = tensor.data.ravel().tolist()
        outputs.append(entry)
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    if isinstance(head.get("id"), str):
        answer["id"] = head["id"][:1024]
    text = json.dumps(answer, separators=(",", ":")).encode()
    return (text + b"".join(raw), len(text)) if raw else (text, None)


def _objects(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > 64 or not all(isinstance(entry, dict) for entry in value):
        raise BadRequest(f"{what} must be a list of objects")
    return value


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    value = entry.get("parameters", {})
    if not isinstance(value, dict):
        raise BadRequest("parameters must be an object")
    return value


def _from_json(name: str, datatype: str, shape: list[Any], data: Any) -> npt.NDArray[Any]:
    """A tensor from nested or flat lists; elements of BYTES are base64."""
    count = element_count(name, shape)
    if not isinstance(data, list):
        raise BadRequest(f"input {name}: has neither data nor a binary_data_size (shared memory is not supported)")
    try:
        if datatype == "BYTES":
            files = [base64.b64decode(text, validate=True) for text in np.array(data, object).ravel()]
            packed = b"".join(len(entry).to_bytes(4, "little") + entry for entry in files)
            return as_array(name, datatype, shape, packed)
        if datatype not in DTYPES:
            raise BadRequest(f"input {name}: unknown datatype {datatype[:16]!r}")
        exact, flat = np.dtype(DTYPES[datatype]), data
        if any(isinstance(value, list) for value in data):
            flat = np.array(data, object).ravel().tolist()
        if len(flat) != count:
            raise BadRequest(f"input {name}: {shape} has {count} elements, got {len(flat)}")
        kinds: tuple[type, ...] = {"f": (int, float), "i": (int,), "u": (int,), "b": (bool,)}[exact.kind]
        if not all(type(value) in kinds for value in flat):
            raise BadRequest(f"input {name}: its data are not of datatype {datatype}")
        with np.errstate(over="raise"):  # 1e39 is no float32
            return np.array(flat, exact).reshape(shape)
    except (ValueError, TypeError, ArithmeticError, RecursionError, binascii.Error):
        raise BadRequest(f"input {name}: its data are not {datatype} {shape}") from None
