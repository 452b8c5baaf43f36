"""What every HTTP request passes through: request id, token, origin, errors, metrics, logs, trace."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lidcam_rt.errors import LidcamError
from lidcam_serve import tracing
from lidcam_serve.errors import ClientGone, Forbidden, RequestError, Unauthorized, WrongMethod, as_request_error
from lidcam_serve.logs import request_id
from lidcam_serve.metrics import Metrics

__all__ = ["Gate", "check_token", "log_error"]

_DRAIN_SECONDS = 2.0
_log = logging.getLogger("lidcam_serve")
#: Paths that need no token: they reveal only that the server is there, or are the page's own files.
_OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready", "/healthz", "/readyz")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
)


def check_token(token: str | None, authorization: str) -> None:
    """Raise Unauthorized unless the header Authorization has the token."""
    if token is not None:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Unauthorized("a bearer token is needed")


def log_error(error: BaseException, fields: Mapping[str, Any]) -> None:
    """Log what a client is not told."""
    if isinstance(error, LidcamError):
        _log.error("error", extra={"fields": {**fields, "reason": f"{type(error).__name__}: {error}"}})
    else:
        _log.error("error", extra={"fields": fields}, exc_info=error)


class Gate:
    """ASGI middleware.

    Args:
        app: what it guards.
        token: the bearer token, or None.
        metrics: of the process.
        max_body: bytes of a body.
    """

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics, max_body: int) -> None:
        self._app, self._token, self._metrics, self._max_body = app, token, metrics, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer with JSON if that raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._metrics.under_way.track_inprogress():
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status = time.monotonic(), 0
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        rid = request_id(headers.get("x-request-id"))
        fields: dict[str, Any] = {}
        scope["state"] = {**scope.get("state", {}), "request_id": rid, "start": start, "fields": fields}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS, (b"x-request-id", rid.encode())]
            await send(message)

        body = _Body(receive, expects="expect" in headers)
        kind = ""
        with tracing.span(f"{scope['method']} {scope['path'][:128]}", headers) as span:
            try:
                self._check(scope, headers)
                await self._app(scope, body.receive, answer)
            except Exception as error:
                told = as_request_error(error)
                kind = told.kind
                self._metrics.errors.labels(kind).inc()
                if told.status >= 500 and not isinstance(error, RequestError):
                    log_error(error, {"request_id": rid})
                if not status and not isinstance(error, ClientGone):
                    if told.status != 408:  # a client that was slow gets no more time
                        await body.drain(2 * self._max_body)
                    await _refuse(answer, told, rid)
                status = status or told.status
                del told  # its traceback would keep this frame, and all of the request, until a garbage collection
            seconds = time.monotonic() - start
            route = _route(scope)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            fields = {"method": scope["method"], "path": scope["path"][:256], "status": status, **fields}
            tracing.finish(
                span, {"http.response.status_code": status, "http.route": route, "lidcam.request_id": rid},
                failed=status >= 500,
            )  # fmt: skip
        entry = {"request_id": rid, **fields, "seconds": round(seconds, 4), **({"error": kind} if kind else {})}
        _log.info("request", extra={"fields": entry})

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin and scope["method"] != "GET" and _place(origin) != headers.get("host"):
            raise Forbidden("requests from the pages of other sites are refused")
        if scope["path"] not in _OPEN and not scope["path"].startswith("/static/"):
            check_token(self._token, headers.get("authorization", ""))


def _place(origin: str) -> str | None:
    """Host and port of an origin; None if it is not an origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


class _Body:
    """Knows how much of a request's body was read.

    Args:
        receive: receives it.
        expects: whether the client waits for `100 Continue` before it sends it.
    """

    def __init__(self, receive: Receive, *, expects: bool) -> None:
        self._receive, self._unsent, self._ended = receive, expects, False

    async def receive(self) -> Message:
        self._unsent = False
        message = await self._receive()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self, limit: int) -> None:
        """Read and discard the rest, so that the client gets the answer before the connection is closed."""
        if self._unsent:
            return
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._ended and limit >= 0:
                    limit -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def _route(scope: Scope) -> str:
    """The route, without the values that the client chose, for metrics."""
    route = scope.get("route")
    return getattr(route, "path", None) or "other"


async def _refuse(send: Send, error: RequestError, rid: str) -> None:
    body = json.dumps({"error": str(error), "kind": error.kind, "request_id": rid}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if isinstance(error, WrongMethod):
        headers.append((b"allow", error.allowed.encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
