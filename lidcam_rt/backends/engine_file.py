"""The sidecar of an engine: what an engine file was built from, for what, and with what; checked before it is loaded.

TensorRT's engines carry no version that a user can read and no manifest, and nothing may be added to them. So
`model.engine` has `model.engine.json` beside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lidcam_rt.artifact import Manifest, first_fault, json_object
from lidcam_rt.errors import ArtifactError, RebuildError
from lidcam_rt.files import file_sha256, open_file

__all__ = ["ENGINE_SUFFIX", "EngineSpec", "Profile", "TensorSpec", "check_engine", "engine_manifest", "read_sidecar",
           "sidecar_path"]  # fmt: skip

ENGINE_SUFFIX = ".engine"
SIDECAR_SCHEMA = 1
_MAX_SIDECAR = 64 << 20
_DTYPES = frozenset({"uint8", "int32", "int64", "float16", "float32", "bool"})

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Profile(_Spec):
    """Smallest, preferred and largest shape of one input."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


class TensorSpec(_Spec):
    """An input or output of the engine; -1 is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class EngineSpec(_Spec):
    """All that decides whether an engine may be loaded, and how it is fed.

    Attributes:
        schema_version: version of this model.
        engine_bytes: size of the engine file.
        engine_sha256: its SHA-256.
        artifact: name of the artifact it was built from.
        artifact_sha256: SHA-256 of that file.
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: version of TensorRT that built it.
        compute_capability: what it was built for, such as 8.9; several for TensorRT for RTX.
        precision: what was requested: `fp32` or `fp16`.
        built: what was built: how many of the network's convolutions have which type.
        evidence: what `built` was read from: `inspector` (the engine, loaded), `plan` (text inside the engine file) or
            `network` (the strongly typed network it was built from).
        profile: shapes of each input.
        pas: `body` (standard operators) or `plugin` (a kernel baked into the engine).
        kernel_sha256: SHA-256 of the plugin's kernel, or None.
        inputs: the engine's inputs.
        outputs: the engine's outputs.
        half_check: fp16 against fp32 in ONNX Runtime, as measured when it was built, or None.
        manifest: metadata of the artifact with the size that the engine was built for.
        package_version: version of lidcam_rt that built it.
    """

    schema_version: int = Field(default=SIDECAR_SCHEMA, ge=1)
    engine_bytes: int = Field(ge=1)
    engine_sha256: _Sha256
    artifact: str
    artifact_sha256: _Sha256
    flavour: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    compute_capability: tuple[str, ...]
    precision: Literal["fp32", "fp16"]
    built: dict[str, int]
    evidence: Literal["inspector", "plan", "network"]
    profile: dict[str, Profile]
    pas: Literal["body", "plugin"]
    kernel_sha256: _Sha256 | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    half_check: dict[str, float] | None = None
    manifest: dict[str, str]
    package_version: str

    @model_validator(mode="after")
    def _tensors_fit(self) -> EngineSpec:
        if unknown := {entry.dtype for entry in (*self.inputs, *self.outputs)} - _DTYPES:
            raise ValueError(f"no tensor has the type {sorted(unknown)[0]}")
        if set(self.profile) != {entry.name for entry in self.inputs}:
            raise ValueError("the profile does not match the engine's inputs")
        for entry in self.inputs:
            shapes = self.profile[entry.name]
            if not len(shapes.min) == len(shapes.opt) == len(shapes.max) == len(entry.shape):
                raise ValueError(f"the profile of {entry.name} has another number of dimensions than the input")
        return self

    def read_manifest(self, path: str | os.PathLike[str]) -> Manifest:
        """The artifact's manifest, checked as an artifact's is."""
        return Manifest.from_metadata(self.manifest, path)


def sidecar_path(engine: str | os.PathLike[str]) -> Path:
    """`model.engine` -> `model.engine.json`."""
    return Path(f"{os.fspath(engine)}.json")


def read_sidecar(engine: str | os.PathLike[str]) -> EngineSpec:
    """Read the sidecar of an engine. The engine itself is not opened.

    Raises:
        ArtifactError: there is no sidecar.
        RebuildError: it cannot be read, or is of a newer version.
    """
    path = sidecar_path(engine)
    again = "build the engine again: lidcam build MODEL.onnx -o " + Path(engine).name
    try:
        with open_file(path) as file:
            text = file.read(_MAX_SIDECAR + 1)
        if len(text) > _MAX_SIDECAR:
            raise ValueError(f"over {_MAX_SIDECAR >> 20} MiB")
        raw = json_object(text)
    except FileNotFoundError:
        raise ArtifactError(
            f"{engine}: it has no sidecar {path.name} and cannot be verified. Copy both files, or {again}"
        ) from None
    except (OSError, ValueError) as error:
        raise RebuildError(f"{path}: cannot be read ({error}); {again}") from None
    version = raw.get("schema_version")
    if isinstance(version, int) and version > SIDECAR_SCHEMA:
        raise RebuildError(
            f"{path}: it has schema {version}, but this lidcam_rt reads up to {SIDECAR_SCHEMA}: "
            f"pip install -U lidcam-rt, or {again}"
        )
    try:
        return EngineSpec.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise RebuildError(f"{path}: invalid ({first_fault(error, 'sidecar')}); {again}") from None


def engine_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of the artifact that an engine was built from, read from the sidecar; the engine is not loaded.

    Raises:
        ArtifactError: there is no sidecar, or it cannot be used.
    """
    return read_sidecar(path).read_manifest(path)


def check_engine(
    path: str | os.PathLike[str], spec: EngineSpec, *, flavour: str, version: str, capability: str | None
) -> None:
    """Compare an engine file and this machine with the sidecar; nothing of the engine is interpreted.

    Args:
        path: the engine.
        spec: its sidecar.
        flavour: `tensorrt` or `tensorrt-rtx`, whichever will load it.
        version: its version.
        capability: compute capability of the GPU, such as 8.9; None: unknown.

    Raises:
        ArtifactError: the engine is missing.
        RebuildError: engine and sidecar do not belong together, or the engine was built for another TensorRT or GPU.
    """
    again = f"build it again: lidcam build {spec.artifact} -o {Path(path).name}"
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    if size != spec.engine_bytes:
        raise RebuildError(
            f"{path}: {size} bytes, but its sidecar says {spec.engine_bytes}: an incomplete copy, or another engine's "
            f"sidecar; copy both files again, or {again}"
        )
    if (flavour, version) != (spec.flavour, spec.version):
        raise RebuildError(
            f"{path}: built by {spec.flavour} {spec.version}, but {flavour} {version} is installed, and an engine runs "
            f"only in the version that built it; install that one, or {again}"
        )
    if capability is not None and capability not in spec.compute_capability:
        raise RebuildError(
            f"{path}: built for compute capability {', '.join(spec.compute_capability)}, but this GPU has "
            f"{capability}; {again} on this machine"
        )
    if file_sha256(path) != spec.engine_sha256:
        raise RebuildError(
            f"{path}: its SHA-256 is not the one in its sidecar: the file was damaged or replaced; {again}"
        )
