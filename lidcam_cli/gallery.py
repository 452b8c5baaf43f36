"""`index.html` of a run: a page of its overlays."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from lidcam_rt.text import encode_text, plain

__all__ = ["gallery"]

_STYLE = (
    "body{font:16px system-ui;margin:2rem;background:#f6f6f4;color:#222}main{display:grid;gap:1.5rem;"
    "grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr))}figure{margin:0;background:#fff;padding:.7rem;"
    "border-radius:.5rem;box-shadow:0 1px 4px #0003}img{width:100%;border-radius:.3rem}small{color:#666}"
    "figcaption,li{overflow-wrap:anywhere}"
)


def gallery(records: Sequence[dict[str, Any]], *, title: str, about: str = "") -> bytes:
    """The page; it links to the overlays beside it.

    Args:
        records: of results.json, results and failures.
        title: heading of the page.
        about: a paragraph below it.
    """
    cards = [_card(record) for record in records if "error" not in record]
    failures = [f"<li>{_text(record['message'])}</li>" for record in records if "error" in record]
    failed = f"<h2>{len(failures)} pictures failed</h2><ul>{''.join(failures)}</ul>" if failures else ""
    return encode_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style><h1>{_text(title)}</h1><p>{_text(about)}</p>"
        f"<main>{''.join(cards)}</main>{failed}</html>\n"
    )


def _card(record: dict[str, Any]) -> str:
    if "classes" in record:  # a label map
        caption = _text(", ".join(entry["class_name"] for entry in record["classes"]) or "background")
        about = f"{len(record['classes'])} classes"
    else:
        caption = f"{_text(record['class_name'])} {record['score']:.2f}"
        about = f"box {' '.join(map(str, record['box'])) if record['box'] else 'none'}"
    name = plain(record["image"]).replace("\\", "/").rsplit("/", 1)[-1]
    return (
        f'<figure><img loading="lazy" alt="{caption}" src="{quote(record["files"]["overlay"])}">'
        f"<figcaption><b>{caption}</b><br>{about}<br><small>{_text(name)}</small></figcaption></figure>"
    )


def _text(text: str) -> str:
    return html.escape(plain(text))
