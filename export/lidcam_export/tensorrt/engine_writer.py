"""Engine files as they are written: the engine, its sidecar, and the key that says whether a build is up to date."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from lidcam_rt.backends.engine_file import EngineSpec, Profile, sidecar_path
from lidcam_rt.files import replacing

__all__ = ["cache_key", "copy_engine", "key_of", "write_engine"]


def cache_key(
    *,
    artifact_sha256: str,
    flavour: str,
    version: str,
    compute_capability: tuple[str, ...],
    precision: str,
    profile: dict[str, Profile],
    pas: str,
    kernel_sha256: str | None,
    package_version: str,
) -> str:
    """Two builds with the same key give interchangeable engines: SHA-256 over everything that determines one.

    The version of this package is part of it, since this package rewrites the graph before TensorRT sees it.
    """
    parts = [artifact_sha256, flavour, version, list(compute_capability), precision, pas, kernel_sha256,
             package_version, {name: shapes.model_dump() for name, shapes in sorted(profile.items())}]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def key_of(spec: EngineSpec) -> str:
    """The cache key of a built engine."""
    return cache_key(
        artifact_sha256=spec.artifact_sha256, flavour=spec.flavour, version=spec.version,
        compute_capability=spec.compute_capability, precision=spec.precision, profile=spec.profile, pas=spec.pas,
        kernel_sha256=spec.kernel_sha256, package_version=spec.package_version,
    )  # fmt: skip


def write_engine(path: Path, engine: bytes | memoryview, spec: EngineSpec) -> None:
    """Write an engine and its sidecar, each whole or not at all.

    A stop between the two leaves a sidecar that does not fit, which is refused when it is loaded. What it leaves beside
    them is removed by the next build.

    Raises:
        OutputError: one of the files cannot be written.
    """
    with replacing(path) as temporary, replacing(sidecar_path(path)) as sidecar:
        temporary.write_bytes(engine)
        sidecar.write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")


def copy_engine(source: Path, output: Path, spec: EngineSpec) -> None:
    """Copy an engine with its sidecar; each whole or not at all.

    Raises:
        OutputError: one of the files cannot be written.
    """
    with replacing(output) as temporary, replacing(sidecar_path(output)) as sidecar:
        shutil.copyfile(source, temporary)
        sidecar.write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
