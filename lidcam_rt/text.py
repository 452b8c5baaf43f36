"""Text that comes from data: names of files and classes, messages of libraries."""

from __future__ import annotations

import unicodedata

__all__ = ["cut", "encode_text", "plain"]

#: Marks that change the direction of the text around them.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def cut(text: str, length: int) -> str:
    """A text of at most `length` characters; a longer one keeps both ends, as the reason may be at either."""
    if len(text) <= length:
        return text
    half = (length - 5) // 2
    return f"{text[:half].rstrip()} ... {text[-half:].lstrip()}"


def plain(text: str) -> str:
    r"""A text that a terminal or a plot only displays, without acting on it; newlines stay.

    Control characters, direction marks and lone surrogates are escaped as in a Python literal; a byte of a file
    name that is not UTF-8 (PEP 383) becomes `\xNN`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" or not _controls(c) else _escaped(c) for c in text)


def _controls(character: str) -> bool:
    return character in _DIRECTION or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def encode_text(text: str) -> bytes:
    """UTF-8. Bytes of a file name that are not UTF-8 (PEP 383) come back as they were; other surrogates are escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")
