"""The messages of the Open Inference Protocol over gRPC, as protobuf classes.

The descriptors are written here rather than in a .proto, because generated code is tied to one version of protobuf.
The field numbers are those of the protocol's specification, and of Triton's extension for model repositories.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["MESSAGES", "SERVICE"]

SERVICE = "inference.GRPCInferenceService"

_PARAMETERS = "map InferParameter parameters"
#: The fields of each message: `[repeated | map | oneof] TYPE NAME`, and the number.
_FIELDS: dict[str, list[tuple[str, int]]] = {
    "ServerLiveRequest": [],
    "ServerLiveResponse": [("bool live", 1)],
    "ServerReadyRequest": [],
    "ServerReadyResponse": [("bool ready", 1)],
    "ModelReadyRequest": [("string name", 1), ("string version", 2)],
    "ModelReadyResponse": [("bool ready", 1)],
    "ServerMetadataRequest": [],
    "ServerMetadataResponse": [("string name", 1), ("string version", 2), ("repeated string extensions", 3)],
    "ModelMetadataRequest": [("string name", 1), ("string version", 2)],
    "TensorMetadata": [("string name", 1), ("string datatype", 2), ("repeated int64 shape", 3)],
    "ModelMetadataResponse": [
        ("string name", 1),
        ("repeated string versions", 2),
        ("string platform", 3),
        ("repeated TensorMetadata inputs", 4),
        ("repeated TensorMetadata outputs", 5),
    ],
    "InferParameter": [
        ("oneof bool bool_param", 1),
        ("oneof int64 int64_param", 2),
        ("oneof string string_param", 3),
        ("oneof double double_param", 4),
        ("oneof uint64 uint64_param", 5),
    ],
    "InferTensorContents": [
        ("repeated bool bool_contents", 1),
        ("repeated int32 int_contents", 2),
        ("repeated int64 int64_contents", 3),
        ("repeated uint32 uint_contents", 4),
        ("repeated uint64 uint64_contents", 5),
        ("repeated float fp32_contents", 6),
        ("repeated double fp64_contents", 7),
        ("repeated bytes bytes_contents", 8),
    ],
    "InferInputTensor": [
        ("string name", 1),
        ("string datatype", 2),
        ("repeated int64 shape", 3),
        (_PARAMETERS, 4),
        ("InferTensorContents contents", 5),
    ],
    "InferRequestedOutputTensor": [("string name", 1), (_PARAMETERS, 2)],
    "ModelInferRequest": [
        ("string model_name", 1),
        ("string model_version", 2),
        ("string id", 3),
        (_PARAMETERS, 4),
        ("repeated InferInputTensor inputs", 5),
        ("repeated InferRequestedOutputTensor outputs", 6),
        ("repeated bytes raw_input_contents", 7),
    ],
    "InferOutputTensor": [
        ("string name", 1),
        ("string datatype", 2),
        ("repeated int64 shape", 3),
        (_PARAMETERS, 4),
        ("InferTensorContents contents", 5),
    ],
    "ModelInferResponse": [
        ("string model_name", 1),
        ("string model_version", 2),
        ("string id", 3),
        (_PARAMETERS, 4),
        ("repeated InferOutputTensor outputs", 5),
        ("repeated bytes raw_output_contents", 6),
    ],
    "ModelRepositoryParameter": [
        ("oneof bool bool_param", 1),
        ("oneof int64 int64_param", 2),
        ("oneof string string_param", 3),
        ("oneof bytes bytes_param", 4),
    ],
    "RepositoryIndexRequest": [("string repository_name", 1), ("bool ready", 2)],
    "ModelIndex": [("string name", 1), ("string version", 2), ("string state", 3), ("string reason", 4)],
    "RepositoryIndexResponse": [("repeated ModelIndex models", 1)],
    "RepositoryModelLoadRequest": [
        ("string repository_name", 1),
        ("string model_name", 2),
        ("map ModelRepositoryParameter parameters", 3),
    ],
    "RepositoryModelLoadResponse": [],
    "RepositoryModelUnloadRequest": [
        ("string repository_name", 1),
        ("string model_name", 2),
        ("map ModelRepositoryParameter parameters", 3),
    ],
    "RepositoryModelUnloadResponse": [],
}


def _build() -> dict[str, Any]:
    """The classes, in a pool of their own: a client's library in the same process has messages of these names too."""
    file = descriptor_pb2.FileDescriptorProto(name="lidcam_serve/inference.proto", package="inference", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for text, number in fields:
            _add_field(message, name, text, number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"inference.{name}")) for name in _FIELDS}


def _add_field(message: Any, owner: str, text: str, number: int) -> None:
    *how, kind, name = text.split()
    field = message.field.add(name=name, number=number, label=3 if how and how[0] != "oneof" else 1)
    if how == ["oneof"]:
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if how == ["map"]:
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, owner, "string key", 1)
        _add_field(entry, owner, f"{kind} value", 2)
        field.type, field.type_name = 11, f".inference.{owner}.ParametersEntry"
    elif kind[0].isupper():
        field.type, field.type_name = 11, f".inference.{kind}"
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


MESSAGES = _build()
