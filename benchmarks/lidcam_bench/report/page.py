"""Pages from templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lidcam_rt.errors import MissingExtraError
from lidcam_rt.text import encode_text

__all__ = ["render"]

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, extra: str, **context: Any) -> bytes:
    """Fill in a template. In .html ones all text is escaped; every name in a template must have a value.

    Args:
        template: name of the file.
        extra: the extra that brings Jinja2, for the message.
        context: values of the names in the template.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    except ImportError as error:
        raise MissingExtraError("the report", extra, (error.name or "jinja2",)) from None
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _in_markdown
    return encode_text(environment.get_template(template).render(**context))


def _in_markdown(text: str) -> str:
    """A text from data as one line of Markdown, fit for a table cell too."""
    return " ".join(text.replace("<", "&lt;").replace("|", "\\|").splitlines())
