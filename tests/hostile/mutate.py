"""Mutations that know the structure of what they break, so that they get past the first check of a reader.

Every mutator takes a seeded generator and the bytes of a good file, and gives the bytes of a bad (or still good) one.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["MUTATORS", "mutate"]

Mutator = Callable[[random.Random, bytes], bytes]

_INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)


def flip(rng: random.Random, data: bytes) -> bytes:
    """One to eight bits turned over."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(rng: random.Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data) + 1)]


def hole(rng: random.Random, data: bytes) -> bytes:
    """A stretch is zero, or gone, as after an aborted download."""
    if not data:
        return data
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, max(1, len(data) // 2)))
    return data[:start] + (bytes(end - start) if rng.random() < 0.7 else b"") + data[end:]


def repeat(rng: random.Random, data: bytes) -> bytes:
    """A stretch comes twice, or many times."""
    if not data:
        return data
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 256))
    return data[:end] + data[start:end] * rng.choice((1, 1, 1, 50)) + data[end:]


def number(rng: random.Random, data: bytes) -> bytes:
    """A number of 1, 2, 4 or 8 bytes becomes one that readers forget."""
    size = rng.choice((1, 2, 4, 8))
    if len(data) < size:
        return data
    start = rng.randrange(len(data) - size + 1)
    value = rng.choice(_INTERESTING) % (1 << (8 * size))
    return data[:start] + value.to_bytes(size, rng.choice(("little", "big"))) + data[start + size :]


def text(rng: random.Random, data: bytes) -> bytes:
    """Text of a kind that terminals, paths and parsers stumble over."""
    piece = rng.choice(
        (b"[/bold]", b"\x1b[2J\x1b]0;x\x07", b"../../x", b"/etc/passwd", b"\x00", b"\xff\xfe", b"\xed\xa0\x80",
         b"\xef\xbb\xbf", b"\r\n", b'"', b",", b"9" * 400, b"-1", b"1e999", b"NaN", b"[" * 3000, b"{}", b"%s%n", b"'")
    )  # fmt: skip
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((0, 0, len(piece))))
    return data[:start] + piece + data[end:]


def png(rng: random.Random, data: bytes) -> bytes:
    """Chunks of a PNG changed, left out, doubled or out of order, with the right check sums."""
    if not data.startswith(b"\x89PNG"):
        return flip(rng, data)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(chunks))
        kind, body = chunks[i]
        action = rng.randrange(6)
        if action == 0 and len(chunks) > 1:
            del chunks[i]
        elif action == 1:
            chunks.insert(rng.randrange(len(chunks) + 1), (kind, body))
        elif action == 2:
            chunks[i] = (kind, number(rng, body))
        elif action == 3:
            chunks[i] = (kind, flip(rng, body))
        elif action == 4:
            chunks[i] = (kind, cut(rng, body))
        else:
            chunks.insert(i, (rng.choice((b"tEXt", b"eXIf", b"tRNS", b"PLTE", b"iCCP", b"acTL")), rng.randbytes(40)))
        if not chunks:
            break
    out = data[:8]
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def jpeg(rng: random.Random, data: bytes) -> bytes:
    """A segment of a JPEG changed in its length, its kind or its body."""
    if not data.startswith(b"\xff\xd8"):
        return flip(rng, data)
    places, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        places.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if not places:
        return data
    at = rng.choice(places)
    action = rng.randrange(4)
    if action == 0:
        return data[: at + 2] + rng.choice((0, 1, 2, 65535)).to_bytes(2, "big") + data[at + 4 :]
    if action == 1:
        return data[: at + 1] + bytes([rng.randrange(0xC0, 0xFF)]) + data[at + 2 :]
    if action == 2:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        return data[: at + 4] + flip(rng, data[at + 4 : end]) + data[end:]
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def tree(rng: random.Random, data: bytes) -> bytes:
    """A value somewhere in a JSON document becomes one of another kind, a key goes or comes, or it nests deeply."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return text(rng, data)
    for _ in range(rng.randint(1, 3)):
        document = _change(rng, document)
    out = json.dumps(document)
    if rng.random() < 0.02:
        out = "[" * 100_000 + out + "]" * 100_000
    return out.encode("utf-8", "surrogatepass")


def lines(rng: random.Random, data: bytes) -> bytes:
    """Lines of a text file doubled, left out, swapped or changed."""
    rows = data.split(b"\n")
    i, k = rng.randrange(len(rows)), rng.randrange(len(rows))
    action = rng.randrange(4)
    if action == 0:
        rows.insert(i, rows[k])
    elif action == 1:
        del rows[i]
    elif action == 2:
        rows[i], rows[k] = rows[k], rows[i]
    else:
        rows[i] = tree(rng, rows[i]) if rows[i].startswith(b"{") else text(rng, rows[i])
    return b"\n".join(rows)


def field(rng: random.Random, data: bytes) -> bytes:
    """A length or key of protobuf's wire format changed, at the top level or one below."""
    places, at = [], 0
    while at < len(data) and len(places) < 10_000:
        start = at
        key, at = _varint(data, at)
        if key & 7 == 2:
            length, body = _varint(data, at)
            places.append((start, at, body, length))
            at = body + length
        elif key & 7 == 0:
            _, at = _varint(data, at)
        else:
            at += {1: 8, 5: 4}.get(key & 7, len(data))
    if not places:
        return flip(rng, data)
    start, at, body, length = rng.choice(places)
    action = rng.randrange(4)
    if action == 0:
        return data[:at] + _encoded(rng.choice(_INTERESTING)) + data[body:]
    if action == 1:
        return data[:start] + _encoded(rng.choice((*range(1, 200), 2**29))) + data[at:]
    if action == 2:
        return data[:body] + b"\xff" * rng.randint(1, 12) + data[body:]
    inner = flip(rng, data[body : body + length]) if length < 1 << 16 else data[body : body + length]
    return data[:body] + inner + data[body + length :]


def _change(rng: random.Random, value: Any) -> Any:
    strange = (
        *(None, True, -1, 0, 0.5, 1e308, -(2**63), 2**63, 10**400, 2.0, [-1e9, -1e9, 1e9, 1e9]),
        *("", "2", "NaN", "x" * 5000, "../../x", "[/bold]", "\x1b[2J", "\ud800", "\x00"),
        *([], {}, [[]], [1, "a", None], {"a": {}}),
    )
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if action < 0.15:
            return {**value, rng.choice(("extra", "", "\x1b[0m", key.upper())): rng.choice(strange)}
        return {**value, key: _change(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        i = rng.randrange(len(value))
        action = rng.random()
        if action < 0.1:
            return value[:i] + value[i + 1 :]
        if action < 0.2:
            return [*value[:i], value[i], *value[i:]]
        return [*value[:i], _change(rng, value[i]), *value[i + 1 :]]
    return rng.choice(strange)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at


def _encoded(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 127) | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


#: By kind of file.
MUTATORS: dict[str, tuple[Mutator, ...]] = {
    "binary": (flip, cut, hole, repeat, number, text),
    "png": (flip, cut, hole, number, png, png, png),
    "jpeg": (flip, cut, hole, number, jpeg, jpeg, jpeg),
    "json": (tree, tree, tree, text, cut, flip),
    "lines": (lines, lines, text, cut, flip),
    "protobuf": (field, field, field, flip, cut, hole, number),
}


def mutate(rng: random.Random, kind: str, data: bytes) -> bytes:
    """One to three mutations of a file of a kind; at most 4 MiB come out."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATORS[kind])(rng, data)
    return data[: 1 << 22]
