"""Options of a server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lidcam_rt.errors import InputError, OutputError
from lidcam_rt.files import read_file, safe_name
from lidcam_rt.image import MAX_PIXELS

__all__ = ["PICTURES", "ModelSpec", "ServeOptions", "at", "grpc_cannot_listen", "model_name", "read_token", "specs"]

#: Suffix of the name of a model that takes pictures.
PICTURES = "_pictures"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to serve.

    Attributes:
        name: its name in URLs.
        version: a whole number, as text.
        path: path of its artifact or engine.
    """

    name: str
    version: str
    path: str

    @classmethod
    def of(cls, text: str) -> ModelSpec:
        """`PATH`, `NAME=PATH` or `NAME:VERSION=PATH`; by default the name is the file's and the version is 1.

        Raises:
            InputError: a name or version has characters that are not allowed in URLs.
        """
        head, equals, path = text.partition("=")
        if not equals:
            head, path = Path(text).stem, text
        name, _, version = head.partition(":")
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version or "1") or not path:
            raise InputError(
                f"{text}: a model is PATH, NAME=PATH or NAME:VERSION=PATH, where the name has up to 128 letters, "
                "digits, dots, dashes and underscores, beginning with a letter or digit, and the version is a whole "
                "number"
            )
        return cls(name, str(int(version or "1")), path)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a server runs.

    Attributes:
        models: what is served; the first is the default of `/v1`.
        host: address to listen on.
        port: of HTTP; 0: any free one.
        grpc_port: of gRPC; 0: any free one; None: no gRPC.
        workers: processes. Each loads every model.
        devices: what runs the networks; worker i uses the i-th, starting over after the last.
        backend: as for `lidcam_rt.load`.
        precision: as for `lidcam_rt.load`.
        max_batch: rows of one call of the network; None: 1 on the CPU, 8 on a GPU.
        max_delay: seconds that a row may wait for others to fill a batch.
        queue: rows that may wait per model and process; more are refused with 429.
        deadline: seconds from a request's first byte to its answer.
        max_body: bytes of a request's body.
        max_pixels: pictures with more pixels are refused before they are decoded.
        refine: preset of the dense CRF for requests that name none; None: no CRF.
        token: what clients must send as `Authorization: Bearer TOKEN`, or None.
        quiet: log errors only.
    """

    models: tuple[ModelSpec, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    workers: int = 1
    devices: tuple[str, ...] = ("auto",)
    backend: str = "auto"
    precision: str = "auto"
    max_batch: int | None = None
    max_delay: float = 0.002
    queue: int = 32
    deadline: float = 10.0
    max_body: int = 32 << 20
    max_pixels: int = MAX_PIXELS
    refine: str | None = None
    token: str | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        names = [(spec.name, spec.version) for spec in self.models]
        if not names:
            raise InputError("no model to serve: give at least one artifact")
        if len(set(names)) < len(names):
            twice = next(entry for entry in names if names.count(entry) > 1)
            raise InputError(f"two models are {twice[0]} version {twice[1]}: give NAME:VERSION=PATH for one of them")
        for name, _ in names:
            if name.endswith(PICTURES) and name.removesuffix(PICTURES) in dict(names):
                raise InputError(
                    f"{name} is also the name under which {name.removesuffix(PICTURES)} takes pictures: rename one"
                )
        if self.token is not None and not (len(self.token) >= 8 and self.token.isascii() and self.token.isprintable()):
            raise InputError("the token must have at least 8 printable ASCII characters")

    def to_json(self) -> str:
        """For another process; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServeOptions:
        """What `to_json` wrote."""
        raw = json.loads(text)
        raw["models"] = tuple(ModelSpec(**entry) for entry in raw["models"])
        return cls(**{**raw, "devices": tuple(raw["devices"])})


def model_name(given: str, model: Path) -> str:
    """A name for URLs and folders: the given one, else the file's.

    Raises:
        InputError: the given one has other characters.
    """
    if given and not _NAME.fullmatch(given):
        form = "use up to 128 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
        raise InputError(f"--name {given}: {form}")
    return given or safe_name(model.stem).lstrip("-")[:100] or "model"


def at(host: str, port: int) -> str:
    """An address as written in URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def grpc_cannot_listen(address: str, reason: str = "it is in use, or not this machine's") -> OutputError:
    """The error when gRPC cannot listen on its port."""
    return OutputError(f"{address}: gRPC cannot listen there ({reason}). Choose another --grpc-port")


def read_token(path: str | os.PathLike[str] | None) -> str | None:
    """The token in a file, or that in the environment (`LIDCAM_TOKEN`), or None.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    if path is None:
        return os.environ.get("LIDCAM_TOKEN") or None
    try:
        token = read_file(path).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no token can be read ({error}). Give a file with the token as its only line"
        ) from None
    if not token:
        raise InputError(f"{path}: is empty. Give a file with the token as its only line")
    return token


def specs(texts: Sequence[str]) -> tuple[ModelSpec, ...]:
    """`ModelSpec.of` each."""
    return tuple(ModelSpec.of(text) for text in texts)
