"""Just enough of protobuf's wire format to read an ONNX file's top level without the `onnx` package.

Source: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto (message ModelProto).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lidcam_rt.errors import ArtifactError
from lidcam_rt.files import open_file

__all__ = ["ModelHeader", "metadata_props", "model_header"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Fields of ModelProto; the graph, and parts of others that are too large to be a header, are skipped.
_IR_VERSION, _GRAPH, _OPSETS, _METADATA, _FUNCTIONS = 1, 7, 8, 14, 25
_MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_MAX_PART = 64 * 1024 * 1024


class _NotProtobufError(Exception):
    pass


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
        with open_file(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ArtifactError(f"{path}: the file is empty. Copy or export it again")
            return _read_model(file, size)
    except IsADirectoryError:
        raise ArtifactError(f"{path}: is a folder, an .onnx file is needed") from None
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file. Export one with `lidcam export SOURCE -o {name.name}`") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (_NotProtobufError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not an ONNX model, or damaged ({error}). Copy or export it again") from None
    except ValueError as error:  # a NUL in the path
        raise ArtifactError(f"{str(path)!r}: not a path ({error})") from None


def _varint(file: BinaryIO) -> int | None:
    """A number of up to 64 bits; None at the end of the file."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
        shift += 7
        if shift > 63:
            raise _NotProtobufError("a number of more than 64 bits")
    if shift:
        raise _NotProtobufError("ends inside a number")
    return None


def _fields(file: BinaryIO, size: int, skip: frozenset[int] = frozenset()) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of the fields of a message that fills a file of `size` bytes; skipped ones have no bytes."""
    while (tag := _varint(file)) is not None:
        field, kind = tag >> 3, tag & 7
        if kind not in (_VARINT, _BYTES, _FIXED32, _FIXED64):
            raise _NotProtobufError(f"unknown wire type {kind}")
        value = 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else _varint(file)
        if value is None or (kind != _VARINT and value > size - file.tell()):
            raise _NotProtobufError("truncated")
        if kind == _VARINT:
            yield field, value
        elif field in skip or value > _MAX_PART:
            file.seek(value, os.SEEK_CUR)
            yield field, b""
        else:
            yield field, file.read(value)


def _read_model(file: BinaryIO, size: int) -> ModelHeader:
    metadata: dict[str, str] = {}
    opsets: dict[str, int] = {}
    functions: list[str] = []
    ir_version, has_graph = 0, False
    for field, value in _fields(file, size, frozenset({_GRAPH})):
        if field not in _MODEL_FIELDS:
            raise _NotProtobufError(f"field {field} does not belong to an ONNX model")
        has_graph |= field == _GRAPH
        if field == _IR_VERSION and isinstance(value, int):
            ir_version = value
        if field not in (_METADATA, _OPSETS, _FUNCTIONS) or not isinstance(value, bytes):
            continue
        part = dict(_fields(io.BytesIO(value), len(value)))
        if field == _METADATA:
            metadata[_text(part.get(1))] = _text(part.get(2))
        elif field == _OPSETS:
            opsets[_text(part.get(1))] = version if isinstance(version := part.get(2, 0), int) else 0
        else:
            functions.append(f"{_text(part.get(10))}::{_text(part.get(1))}")
    if not has_graph:
        raise _NotProtobufError("it has no graph")
    return ModelHeader(ir_version, opsets, tuple(functions), metadata)


def _text(value: int | bytes | None) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else ""
