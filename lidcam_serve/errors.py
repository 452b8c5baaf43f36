"""What a client is told when its request is not answered: a status, a kind for metrics, and a text without secrets."""

from __future__ import annotations

import re

from lidcam_rt.errors import BackendError, ImageError, InputError, LidcamError

__all__ = [
    "BadRequest",
    "Busy",
    "ClientGone",
    "DeadlinePassed",
    "Forbidden",
    "NotFound",
    "RequestError",
    "SlowBody",
    "TooLarge",
    "Unauthorized",
    "Unprocessable",
    "UnsupportedMedia",
    "WrongMethod",
    "as_request_error",
    "without_advice",
]


class RequestError(LidcamError):
    """A request that is not answered.

    Attributes:
        status: the HTTP status.
        kind: a short name for metrics, logs and clients.
        grpc: name of the gRPC status.
        retry_after: seconds after which another attempt makes sense, or None.
    """

    status = 500
    kind = "internal"
    grpc = "INTERNAL"
    retry_after: int | None = None


class BadRequest(RequestError):
    """The request does not follow the protocol."""

    status, kind, grpc = 400, "bad_request", "INVALID_ARGUMENT"


class Unauthorized(RequestError):
    """The bearer token is missing or wrong."""

    status, kind, grpc = 401, "unauthorized", "UNAUTHENTICATED"


class Forbidden(RequestError):
    """The request comes from another site's page."""

    status, kind, grpc = 403, "forbidden", "PERMISSION_DENIED"


class NotFound(RequestError):
    """There is no such model or endpoint."""

    status, kind, grpc = 404, "not_found", "NOT_FOUND"


class WrongMethod(RequestError):
    """The endpoint accepts other methods.

    Args:
        allowed: the methods that it accepts.
    """

    status, kind, grpc = 405, "wrong_method", "UNIMPLEMENTED"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this endpoint accepts {allowed}")
        self.allowed = allowed


class SlowBody(RequestError):
    """The body did not arrive in time."""

    status, kind, grpc = 408, "slow_body", "DEADLINE_EXCEEDED"


class TooLarge(RequestError):
    """The body is over the limit."""

    status, kind, grpc = 413, "too_large", "INVALID_ARGUMENT"


class UnsupportedMedia(RequestError):
    """The body's type or encoding is not supported."""

    status, kind, grpc = 415, "unsupported_media", "INVALID_ARGUMENT"


class Unprocessable(RequestError):
    """The picture, or an option, is refused."""

    status, kind, grpc = 422, "unprocessable", "INVALID_ARGUMENT"


class Busy(RequestError):
    """The queue is full.

    Args:
        retry_after: seconds after which the queue may have room.
    """

    status, kind, grpc = 429, "busy", "RESOURCE_EXHAUSTED"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full: try again in {retry_after} s")
        self.retry_after = retry_after


class ClientGone(RequestError):
    """The client closed its connection; nobody reads the answer."""

    status, kind, grpc = 499, "client_gone", "CANCELLED"


class DeadlinePassed(RequestError):
    """The request was not answered before its deadline."""

    status, kind, grpc = 504, "deadline", "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("the deadline passed before the request was answered")


#: Advice for those who run the runtime themselves; a client can follow none of it.
_ADVICE = re.compile(
    r"((, or raise the limit|, or use what can be read of it|, which needs pillow-heif): |; export it with "
    r"|, or give CrfOptions).*",
    re.S,
)


def without_advice(text: str) -> str:
    """A message of the runtime without advice that a client cannot follow."""
    return _ADVICE.sub("", text)


def as_request_error(error: BaseException) -> RequestError:
    """What a client is told about an error. Only errors in its own input keep their text."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ImageError):
        text = re.sub(r"^<\d+ bytes>", "the picture", str(error))
        return Unprocessable(without_advice(text))
    if isinstance(error, InputError):
        return Unprocessable(without_advice(str(error)))
    if isinstance(error, BackendError):
        return RequestError("the engine failed on this request; the server's log says why")
    return RequestError("an error in the server; its log says which")
