"""Bodies of requests: bounded in size, time and number, and never written to disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lidcam_serve.errors import BadRequest, Busy, SlowBody, TooLarge, UnsupportedMedia

__all__ = ["Bodies", "picture_and_fields"]

_MAX_PARTS = 32
_MAX_FIELD = 4096


class Bodies:
    """Reads bodies; all that are held at once have a common limit too.

    Args:
        limit: bytes of one body.
        total: bytes of all bodies that are held at once.
    """

    def __init__(self, limit: int, total: int) -> None:
        self.limit, self.total = limit, max(total, limit)
        self.held = 0

    async def read(self, stream: AsyncIterator[bytes], length: str | None, deadline: float) -> bytes:
        """A whole body; the caller must `release` it.

        Args:
            stream: its parts.
            length: the header Content-Length, or None.
            deadline: `time.monotonic()` by which it must have arrived.

        Raises:
            TooLarge: it is over the limit.
            SlowBody: it did not arrive in time.
            Busy: too many bodies are held.
            ClientGone: the client went away.
        """
        declared = int(length) if length and length.isascii() and length.isdigit() and len(length) < 19 else None
        if declared is not None and declared > self.limit:
            raise self._too_large()
        out = bytearray()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async for part in stream:
                    out += part
                    self.held += len(part)  # what came, not what was declared: declaring costs a client nothing
                    if len(out) > self.limit:
                        raise self._too_large()
                    if self.held > self.total:
                        raise Busy(1)
        except TimeoutError:
            self.held -= len(out)
            raise SlowBody("the body did not arrive in time") from None
        except BaseException:
            self.held -= len(out)
            raise
        return bytes(out)

    def release(self, size: int) -> None:
        """A body of that size is no longer held."""
        self.held -= size

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is over the limit of {self.limit:,} bytes")


@dataclass
class _Form:
    """Collects the parts of a multipart body."""

    picture: bytes | None = None
    fields: list[tuple[str, str]] = field(default_factory=list)
    parts: int = 0
    ended: bool = False
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""
    data: bytearray = field(default_factory=bytearray)

    def begin(self) -> None:
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise BadRequest(f"a form may have at most {_MAX_PARTS} parts")
        self.headers, self.data = {}, bytearray()

    def close(self) -> None:
        self.ended = True

    def header_end(self) -> None:
        self.headers[self.name.lower()] = self.value
        self.name = self.value = b""

    def end(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        if b"filename" in options or options.get(b"name") == b"image":
            if self.picture is not None:
                raise BadRequest("a form may have only one picture: send a request for each")
            self.picture = bytes(self.data)
            return
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if len(self.data) > _MAX_FIELD or not name:
            raise BadRequest("a form's field must have a name and at most 4096 bytes")
        try:
            self.fields.append((name, self.data.decode("utf-8")))
        except UnicodeDecodeError:
            raise BadRequest("a form's field is not UTF-8") from None


def picture_and_fields(body: bytes, content_type: str) -> tuple[bytes, list[tuple[str, str]]]:
    """The picture in a body, and the options beside it.

    Args:
        body: a picture's file; or a form whose only file (or part named `image`) is the picture.
        content_type: the header.

    Raises:
        UnsupportedMedia: a type that is neither.
        BadRequest: the form is damaged or has no picture.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 200:
            raise BadRequest("the form has no boundary")
        form = _Form()

        def add(target: str, data: bytes, start: int, end: int) -> None:
            setattr(form, target, getattr(form, target) + data[start:end])

        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_part_data": lambda data, start, end: form.data.extend(data[start:end]),
                "on_part_end": form.end,
                "on_header_field": lambda data, start, end: add("name", data, start, end),
                "on_header_value": lambda data, start, end: add("value", data, start, end),
                "on_header_end": form.header_end,
                "on_end": form.close,
            },
        )
        try:
            parser.write(body)
            parser.finalize()
        except FormParserError:
            raise BadRequest("the form is damaged") from None
        if not form.ended:
            raise BadRequest("the form is incomplete: its last boundary is missing")
        if form.picture is None:
            raise BadRequest("the form has no picture: send it as a file")
        return form.picture, form.fields
    if kind in (b"", b"application/octet-stream", b"application/x-www-form-urlencoded") or kind.startswith(b"image/"):
        return body, []  # x-www-form-urlencoded is what curl --data-binary sends
    raise UnsupportedMedia("send the picture itself (image/*, application/octet-stream) or as multipart/form-data")
