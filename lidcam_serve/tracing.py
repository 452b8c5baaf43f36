"""OpenTelemetry spans, where opentelemetry-api is installed; else nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

_propagate: Any
_trace: Any
try:
    _propagate, _trace = import_module("opentelemetry.propagate"), import_module("opentelemetry.trace")
except ImportError:
    _propagate = _trace = None

__all__ = ["finish", "span"]


def span(name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
    """A span of a request, a child of the client's span if its headers (`traceparent`) name one.

    Args:
        name: of the span.
        headers: with names in lower case.
    """
    if _trace is None:
        return nullcontext()
    tracer = _trace.get_tracer("lidcam_serve")
    context = _propagate.extract(dict(headers))
    started: AbstractContextManager[Any] = tracer.start_as_current_span(
        name, context=context, kind=_trace.SpanKind.SERVER
    )
    return started


def finish(current: Any, attributes: Mapping[str, Any], *, failed: bool) -> None:
    """Set the attributes of a span, and its status."""
    if current is None or _trace is None:
        return
    for name, value in attributes.items():
        current.set_attribute(name, value)
    if failed:
        current.set_status(_trace.StatusCode.ERROR)
