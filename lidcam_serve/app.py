"""The HTTP endpoints."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route as AnyRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lidcam_rt.version import __version__
from lidcam_serve.asks import Answer, Ask, localize_job, segment_job
from lidcam_serve.bodies import picture_and_fields
from lidcam_serve.errors import (
    BadRequest,
    ClientGone,
    DeadlinePassed,
    NotFound,
    RequestError,
    UnsupportedMedia,
    WrongMethod,
)
from lidcam_serve.gate import Gate
from lidcam_serve.metrics import CONTENT_TYPE
from lidcam_serve.openapi import document
from lidcam_serve.service import Service
from lidcam_serve.tensors import describe_model, infer_job, split_name
from lidcam_serve.v2 import HEADER, decode, encode, json_length

__all__ = ["EXTENSIONS", "build_app"]

EXTENSIONS = ("binary_tensor_data", "model_repository")
_LARGE = 1 << 20  # bytes of JSON, or numbers in it, which take ten times as much memory while being read or written
_PAGE = Path(__file__).parent / "page"
_FILES = {path.name: path for path in _PAGE.iterdir() if path.suffix in (".js", ".css", ".svg")}


class Route(AnyRoute):
    """Refuses other methods with JSON, like every other refusal."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self.methods and scope["method"] not in self.methods:
            raise WrongMethod(", ".join(sorted(self.methods)))
        await super().handle(scope, receive, send)


def build_app(service: Service) -> ASGIApp:
    """The ASGI application of a service."""
    api = _Api(service)
    model = "/v2/models/{model}"
    infer: list[Route] = []
    for prefix in (model, model + "/versions/{version}"):
        infer += [
            Route(prefix, api.metadata, methods=["GET"]),
            Route(prefix + "/ready", api.model_ready, methods=["GET"]),
            Route(prefix + "/infer", api.infer, methods=["POST"]),
        ]
    repository = "/v2/repository/models/{model}"
    routes = [
        Route("/", _page("index.html"), methods=["GET"]),
        Route("/docs", _page("docs.html"), methods=["GET"]),
        Route("/static/{name}", _static, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/healthz", api.live, methods=["GET"]),
        Route("/readyz", api.ready, methods=["GET"]),
        Route("/metrics", api.metrics, methods=["GET"]),
        Route("/v1/models", api.models, methods=["GET"]),
        Route("/v1/localize", api.localize, methods=["POST"]),
        Route("/v1/segment", api.segment, methods=["POST"]),
        Route("/v2", api.server, methods=["GET"]),
        Route("/v2/health/live", api.live, methods=["GET"]),
        Route("/v2/health/ready", api.ready, methods=["GET"]),
        *infer,
        Route("/v2/repository/index", api.index, methods=["POST"]),
        Route(repository + "/load", api.load, methods=["POST"]),
        Route(repository + "/unload", api.unload, methods=["POST"]),
    ]
    router = Router(routes, redirect_slashes=False, default=_nowhere)
    return Gate(router, service.options.token, service.metrics, service.options.max_body)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound("there is no such endpoint; /docs lists those that exist")


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        return FileResponse(_PAGE / name, media_type="text/html")

    return page


async def _static(request: Request) -> Response:
    path = _FILES.get(request.path_params["name"])
    if path is None:
        raise NotFound("there is no such file")
    return FileResponse(path)


async def _openapi(request: Request) -> Response:
    return JSONResponse(document())


class _Api:
    """The endpoints that need the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._large = ThreadPoolExecutor(1, thread_name_prefix="lidcam-json")

    # Health, metrics, lists

    async def live(self, request: Request) -> Response:
        return Response(status_code=200)

    async def ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._service.ready else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def models(self, request: Request) -> Response:
        options = self._service.options
        limits = {"max_body": options.max_body, "max_pixels": options.max_pixels, "deadline": options.deadline}
        models = self._service.models
        return JSONResponse(
            {"models": models.describe(), "default": models.default, "refine": options.refine, "limits": limits}
        )

    # /v1

    async def localize(self, request: Request) -> Response:
        return await self._picture(request, localize_job)

    async def segment(self, request: Request) -> Response:
        return await self._picture(request, segment_job)

    async def _picture(self, request: Request, make: Callable[..., Any]) -> Response:
        service, state = self._service, request.scope["state"]
        deadline = service.deadline(state["start"])
        given = request.query_params.multi_items()
        query = Ask.of(given)
        with service.models.lent(query.model or service.models.default, query.version) as early:
            early.batcher.check_room()  # before a byte of the body is read
        body = await self._body(request, deadline)
        try:
            data, fields = picture_and_fields(body, request.headers.get("content-type", ""))
            ask = Ask.of([*given, *fields])
            with service.models.lent(ask.model or service.models.default, ask.version) as model:
                head = {
                    "model": model.spec.name, "version": model.spec.version, "request_id": state["request_id"],
                }  # fmt: skip
                job = make(
                    model, ask, data, accept=request.headers.get("accept", ""), refine=service.options.refine,
                    deadline=deadline, head=head,
                )  # fmt: skip
                answer: Answer = await service.answer(lambda: model.batcher.submit(job), job, _gone(request))
                state["fields"] |= {"model": model.spec.name, **job.traced}
        finally:
            service.bodies.release(len(body))
        return Response(answer.body, media_type=answer.media_type)

    async def _body(self, request: Request, deadline: float) -> bytes:
        if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise UnsupportedMedia("compressed bodies are not supported")

        async def stream() -> Any:
            try:
                async for part in request.stream():
                    yield part
            except ClientDisconnect:
                raise ClientGone("the client has gone") from None

        return await self._service.bodies.read(stream(), request.headers.get("content-length"), deadline)

    # /v2

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "lidcam", "version": __version__, "extensions": list(EXTENSIONS)})

    async def metadata(self, request: Request) -> Response:
        models = self._service.models
        name, pictures = split_name(models, request.path_params["model"])
        model = models.get(name, request.path_params.get("version", ""))
        return JSONResponse(describe_model(model, pictures, models.versions(name)))

    async def model_ready(self, request: Request) -> Response:
        name, _ = split_name(self._service.models, request.path_params["model"])
        self._service.models.get(name, request.path_params.get("version", ""))
        return Response(status_code=200 if self._service.ready else 503)

    async def infer(self, request: Request) -> Response:
        service, state = self._service, request.scope["state"]
        name, pictures = split_name(service.models, request.path_params["model"])
        version = request.path_params.get("version", "")
        deadline = service.deadline(state["start"])
        with service.models.lent(name, version) as model:
            model.batcher.check_room()
            body = await self._body(request, deadline)
            try:
                length = json_length(body, request.headers.get(HEADER))
                wanted, head = await self._alone(length, deadline, decode, body, length)
                job = infer_job(model, pictures, wanted, refine=service.options.refine, deadline=deadline)
                tensors = await service.answer(lambda: model.batcher.submit(job), job, _gone(request))
            finally:
                service.bodies.release(len(body))
            state["fields"] |= {"model": model.spec.name, **job.traced}
            content, raw = await self._alone(
                sum(tensor.data.size for tensor in tensors), deadline,
                encode, request.path_params["model"], model.spec.version, tensors, head,
            )  # fmt: skip
        headers = {"content-type": "application/json"}
        if raw is not None:
            headers = {"content-type": "application/octet-stream", HEADER: str(raw)}
        return Response(content, headers=headers)

    async def _alone(self, size: int, deadline: float, work: Callable[..., Any], *arguments: Any) -> Any:
        """The result of work in a thread; large work all runs in one thread, which uses its memory again."""
        if size < _LARGE:
            return await asyncio.to_thread(work, *arguments)
        waiting = asyncio.get_running_loop().run_in_executor(self._large, work, *arguments)
        try:
            return await asyncio.wait_for(waiting, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlinePassed from None

    async def index(self, request: Request) -> Response:
        return JSONResponse(
            [{"name": m.spec.name, "version": m.spec.version, "state": "READY"} for m in self._service.models.all()]
        )

    async def load(self, request: Request) -> Response:
        body = await self._body(request, self._service.deadline())
        self._service.bodies.release(len(body))
        if body.strip() and json_parameters(body):
            raise BadRequest("load takes no parameters: it reloads the file that the server was started with")
        name, _ = split_name(self._service.models, request.path_params["model"])
        outcome = await self._service.reload(name)
        if "failed" in outcome.values():
            raise RequestError("the new file cannot be loaded, so the old model stays; the server's log says why")
        return JSONResponse(outcome)

    async def unload(self, request: Request) -> Response:
        raise BadRequest("the models are those that the server was started with: they cannot be unloaded")


def json_parameters(body: bytes) -> Any:
    """The parameters of a request to the repository.

    Raises:
        BadRequest: it is not JSON.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    return raw.get("parameters") if isinstance(raw, dict) else raw


async def _gone(request: Request) -> None:
    """Ends when the client closes its connection. Await it only after the body."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
