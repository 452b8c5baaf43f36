"""Just enough of protobuf's wire format to read an ONNX file's top level without the `onnx` package.

Source: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto (message ModelProto).
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lidcam_rt.errors import ArtifactError

__all__ = ["ModelHeader", "metadata_props", "model_header"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_METADATA_PROPS = 7, 14
_MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_MODEL_IR_VERSION, _MODEL_OPSET_IMPORT, _MODEL_FUNCTIONS = 1, 8, 25
_MAX_ENTRY = 64 * 1024 * 1024


class _NotProtobufError(Exception):
    pass


def _varint(file: BinaryIO) -> int | None:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            if shift:
                raise _NotProtobufError("ends inside a number")
            return None
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
        shift += 7
        if shift > 63:
            raise _NotProtobufError("a number of more than 64 bits")


def _entry(data: bytes) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    file = io.BytesIO(data)
    fields = {1: b"", 2: b""}
    while (tag := _varint(file)) is not None:
        length = _varint(file)
        if tag & 7 != _BYTES or length is None:
            raise _NotProtobufError("a metadata entry of an unknown form")
        fields[tag >> 3] = file.read(length)
    return fields[1].decode("utf-8"), fields[2].decode("utf-8")


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """The top level of an ONNX model.

    Attributes:
        ir_version: version of the file format.
        opsets: version per operator domain; the empty domain is ONNX's own.
        functions: model-local functions, as `domain::name`.
        metadata: metadata_props.
    """

    ir_version: int
    opsets: dict[str, int]
    functions: tuple[str, ...]
    metadata: dict[str, str]


def metadata_props(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read metadata_props of an ONNX model; its weights are skipped, not loaded.

    Args:
        path: an .onnx file.

    Raises:
        ArtifactError: the file cannot be opened, is empty, truncated, or not an ONNX model.
    """
    return model_header(path).metadata


def model_header(path: str | os.PathLike[str]) -> ModelHeader:
    """Read the top level of an ONNX model; its weights are skipped, not loaded.

    Args:
        path: an .onnx file.

    Raises:
        ArtifactError: as `metadata_props`.
    """
    name = Path(path)
    try:
        size = name.stat().st_size
        if size == 0:
            raise ArtifactError(f"{path}: the file is empty. Copy or export it again")
        with name.open("rb") as file:
            return _scan(file, size)
    except IsADirectoryError:
        raise ArtifactError(f"{path}: is a folder, an .onnx file is needed") from None
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file. Export one with `lidcam export SOURCE -o {name.name}`"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (_NotProtobufError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: not an ONNX model, or damaged ({error}). Copy or export it again"
        ) from None
    except ValueError as error:  # a NUL in the path
        raise ArtifactError(f"{str(path)!r}: not a path ({error})") from None


def _fields(data: bytes) -> dict[int, int | bytes]:
    """The fields of a small message by number, the last of each kept."""
    file, fields = io.BytesIO(data), dict[int, int | bytes]()
    while (tag := _varint(file)) is not None:
        value = _varint(file) if tag & 7 in (_VARINT, _BYTES) else 8 if tag & 7 == _FIXED64 else 4
        if value is None:
            raise _NotProtobufError("truncated")
        fields[tag >> 3] = value if tag & 7 == _VARINT else file.read(value)
    return fields


def _text(value: int | bytes | None) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else ""


def _scan(file: BinaryIO, size: int) -> ModelHeader:
    found: dict[str, str] = {}
    opsets: dict[str, int] = {}
    functions: list[str] = []
    ir_version = 0
    graph_seen = False
    while (tag := _varint(file)) is not None:
        field, kind = tag >> 3, tag & 7
        if field not in _MODEL_FIELDS:
            raise _NotProtobufError(f"field {field} does not belong to an ONNX model")
        if kind == _VARINT:
            value = _varint(file)
            if value is None:
                raise _NotProtobufError("truncated")
            ir_version = value if field == _MODEL_IR_VERSION else ir_version
            continue
        if kind == _BYTES:
            length = _varint(file)
            if length is None:
                raise _NotProtobufError("truncated")
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _NotProtobufError(f"unknown wire type {kind}")
        if file.tell() + length > size:
            raise _NotProtobufError("truncated")
        graph_seen |= field == _MODEL_GRAPH
        if field == _MODEL_METADATA_PROPS and kind == _BYTES:
            if length > _MAX_ENTRY:
                raise _NotProtobufError("a metadata entry of over 64 MiB")
            key, text = _entry(file.read(length))
            found[key] = text
        elif field == _MODEL_OPSET_IMPORT and kind == _BYTES and length <= _MAX_ENTRY:
            entry = _fields(file.read(length))
            version = entry.get(2, 0)
            opsets[_text(entry.get(1))] = version if isinstance(version, int) else 0
        elif field == _MODEL_FUNCTIONS and kind == _BYTES and length <= _MAX_ENTRY:
            entry = _fields(file.read(length))
            functions.append(f"{_text(entry.get(10))}::{_text(entry.get(1))}")
        else:
            file.seek(length, os.SEEK_CUR)
    if not graph_seen:
        raise _NotProtobufError("it has no graph")
    return ModelHeader(ir_version, opsets, tuple(functions), found)
