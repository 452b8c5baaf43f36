"""The Open Inference Protocol over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from lidcam_rt.version import __version__
from lidcam_serve import tracing
from lidcam_serve.app import EXTENSIONS
from lidcam_serve.errors import BadRequest, RequestError, as_request_error
from lidcam_serve.gate import check_token, log_error
from lidcam_serve.logs import request_id
from lidcam_serve.messages import MESSAGES, SERVICE
from lidcam_serve.options import grpc_cannot_listen
from lidcam_serve.service import Service
from lidcam_serve.tensors import (
    DTYPES,
    InferRequest,
    Tensor,
    as_array,
    by_name,
    check_output,
    describe_model,
    element_count,
    infer_job,
    raw_bytes,
    split_name,
)

__all__ = ["start"]

_log = logging.getLogger("lidcam_serve")
_OPEN = ("ServerLive", "ServerReady")
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


async def start(service: Service, address: str) -> tuple[grpc.aio.Server, int]:
    """Start a gRPC server in this event loop; returns it and its port.

    Args:
        service: what answers.
        address: HOST:PORT. Processes with the same one share it.

    Raises:
        OutputError: nothing can listen there.
    """
    limit = service.options.max_body
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1 if service.options.workers > 1 else 0),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small message must not unpack to a large one
        ],
        maximum_concurrent_rpcs=service.options.queue + 32,
    )
    api = _Api(service)
    names = [name.removesuffix("Request") for name in MESSAGES if name.endswith("Request")]
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            api.guarded(name),
            request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
        )
        for name in names
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise grpc_cannot_listen(address) from error
    await server.start()
    return server, port


class _Api:
    """The calls."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def guarded(self, name: str) -> Callable[..., Any]:
        """A call with token, errors, metrics, log and trace."""
        method = getattr(self, name)

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            begun, kind, code = time.monotonic(), "", "OK"
            headers = {k.lower(): v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
            rid = request_id(headers.get("x-request-id"))
            fields: dict[str, Any] = {}
            metrics, route = self._service.metrics, f"grpc {name}"
            with tracing.span(route, headers) as span:
                try:
                    if name not in _OPEN:
                        check_token(self._service.options.token, headers.get("authorization", ""))
                    return await method(request, context, fields)
                except asyncio.CancelledError:
                    kind, code = "client_gone", "CANCELLED"
                    raise
                except Exception as error:
                    told = as_request_error(error)
                    kind, code = told.kind, told.grpc
                    metrics.errors.labels(kind).inc()
                    if told.status >= 500 and not isinstance(error, RequestError):
                        log_error(error, {"request_id": rid})
                    text = str(told)
                    del told  # as in lidcam_serve.gate
                    await context.abort(getattr(grpc.StatusCode, code), text)
                finally:
                    seconds = time.monotonic() - begun
                    metrics.requests.labels(route, code).inc()
                    metrics.request_seconds.labels(route).observe(seconds)
                    tracing.finish(span, {"rpc.method": name, "lidcam.request_id": rid}, failed=code == "INTERNAL")
                    entry = {"request_id": rid, "method": route, "status": code, **fields, "seconds": round(seconds, 4)}
                    _log.info("request", extra={"fields": {**entry, **({"error": kind} if kind else {})}})

        return call

    async def ServerLive(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ServerReady(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._service.ready)

    async def ModelReady(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        name, _ = split_name(self._service.models, request.name)
        self._service.models.get(name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=self._service.ready)

    async def ServerMetadata(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        return MESSAGES["ServerMetadataResponse"](name="lidcam", version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        models = self._service.models
        name, pictures = split_name(models, request.name)
        told = describe_model(models.get(name, request.version), pictures, models.versions(name))
        for side in ("inputs", "outputs"):
            told[side] = [MESSAGES["TensorMetadata"](**entry) for entry in told[side]]
        return MESSAGES["ModelMetadataResponse"](**told)

    async def ModelInfer(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        service = self._service
        name, pictures = split_name(service.models, request.model_name)
        deadline = service.deadline(seconds=context.time_remaining())
        with service.models.lent(name, request.model_version) as model:
            wanted = _request(request)
            job = infer_job(model, pictures, wanted, refine=service.options.refine, deadline=deadline)
            tensors = await service.answer(lambda: model.batcher.submit(job), job)
            fields |= {"model": model.spec.name, **job.traced}
            version = model.spec.version
        out = MESSAGES["ModelInferResponse"](model_name=request.model_name, model_version=version, id=request.id)
        for tensor in tensors:
            out.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.data.shape)
            out.raw_output_contents.append(raw_bytes(tensor.data))
        return out

    async def RepositoryIndex(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        out = MESSAGES["RepositoryIndexResponse"]()
        for model in self._service.models.all():
            out.models.add(name=model.spec.name, version=model.spec.version, state="READY")
        return out

    async def RepositoryModelLoad(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        if request.parameters:
            raise BadRequest("load takes no parameters: it reloads the file that the server was started with")
        name, _ = split_name(self._service.models, request.model_name)
        if "failed" in (await self._service.reload(name)).values():
            raise RequestError("the new file cannot be loaded, so the old model stays; the server's log says why")
        return MESSAGES["RepositoryModelLoadResponse"]()

    async def RepositoryModelUnload(self, request: Any, context: Any, fields: dict[str, Any]) -> Any:
        raise BadRequest("the models are those that the server was started with: they cannot be unloaded")


def _request(request: Any) -> InferRequest:
    """A request from its message; tensors come raw, or typed in their `contents`.

    Raises:
        BadRequest: its parts do not match.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"there are {len(request.inputs)} inputs but {len(raw)} raw contents")
    inputs = []
    for i, entry in enumerate(request.inputs):
        name, shape = entry.name, list(entry.shape)
        if raw:
            data = as_array(name, entry.datatype, shape, raw[i])
        elif entry.datatype not in _CONTENTS:
            raise BadRequest(f"input {name}: datatype {entry.datatype[:16]!r} must be sent raw")
        else:
            values, count = getattr(entry.contents, _CONTENTS[entry.datatype]), element_count(name, shape)
            if len(values) != count:
                raise BadRequest(f"input {name}: {shape} has {count} elements, got {len(values)}")
            if entry.datatype == "BYTES":
                packed = b"".join(len(value).to_bytes(4, "little") + value for value in values)
                data = as_array(name, "BYTES", shape, packed)
            else:
                data = _typed(name, entry.datatype, values).reshape(shape)
        inputs.append(Tensor(name, data))
    parameters = {
        k: getattr(v, v.WhichOneof("parameter_choice") or "bool_param") for k, v in request.parameters.items()
    }
    outputs = [check_output(entry.name, entry.parameters) for entry in request.outputs]
    return InferRequest(by_name(inputs), outputs, parameters)


def _typed(name: str, datatype: str, values: Any) -> Any:
    try:
        return np.array(values, np.dtype(DTYPES[datatype]))
    except OverflowError:
        raise BadRequest(f"input {name}: a value is out of the range of {datatype}") from None
