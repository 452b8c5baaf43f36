"""The cache of engines: a folder of engines built on this machine, by a key over everything that determines them.

`KEY.engine` has its sidecar beside it, as an engine anywhere else has, and is checked against it in the same way. The
folder belongs to one user: an engine is a program, and whoever can write both files can have it run.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from lidcam_rt.backends.engine_file import ENGINE_SUFFIX, EngineSpec, read_sidecar, sidecar_path
from lidcam_rt.errors import ArtifactError, InputError, OutputError
from lidcam_rt.files import locked, make_folder

__all__ = ["CachedEngine", "EngineCache"]

#: Of an engine or sidecar, and hidden while it is written.
_PART = re.compile(rf"\.([0-9a-f]{{64}}){re.escape(ENGINE_SUFFIX)}(?:\.json)?\.part")
_NAME = re.compile(rf"([0-9a-f]{{64}}){re.escape(ENGINE_SUFFIX)}(?:\.json)?")
_SHORTEST = 4  # digits of a key that name an engine


@dataclass(frozen=True)
class CachedEngine:
    """An engine in the cache.

    Attributes:
        key: its key, 64 hexadecimal digits.
        path: the engine.
        engine_bytes: its size on the disk; 0 where only its sidecar is there.
        built: when it was written.
        spec: its sidecar; None where that is missing or cannot be read.
        fault: why the sidecar cannot be used; empty where it can.
    """

    key: str
    path: Path
    engine_bytes: int
    built: datetime
    spec: EngineSpec | None
    fault: str = ""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        shown = {"key": self.key, "path": str(self.path), "bytes": self.engine_bytes,
                 "built_at": self.built.isoformat(timespec="seconds"), "fault": self.fault}  # fmt: skip
        if (spec := self.spec) is None:
            return shown
        return shown | spec.model_dump(
            mode="json",
            include={"artifact", "artifact_sha256", "flavour", "version", "compute_capability", "precision", "pas",
                     "kernel_sha256", "profile", "package_version"},
        )  # fmt: skip


class EngineCache:
    """A folder of engines.

    Args:
        folder: made by the first build.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> Self:
        """The user's: `engines` in $LIDCAM_CACHE, else in ~/.cache/lidcam."""
        return cls(Path(os.environ.get("LIDCAM_CACHE") or "~/.cache/lidcam").expanduser() / "engines")

    def path(self, key: str) -> Path:
        """Where the engine of a key is, or would be."""
        return self.folder / f"{key}{ENGINE_SUFFIX}"

    def lock(self, key: str) -> Path:
        """The lock that is held while the engine of a key is built or removed."""
        return self.folder / f".{key}.build.lock"

    def open(self) -> None:
        """Make the folder, for this user alone.

        Raises:
            OutputError: it cannot be made.
            InputError: others can write to it.
        """
        if not self.folder.exists():
            make_folder(self.folder.parent)
            try:
                self.folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{self.folder}: cannot be made ({error.strerror}). Set LIDCAM_CACHE to another folder"
                ) from None
        self.check_owner()

    def check_owner(self) -> None:
        """Refuse a folder whose engines another user may have put there.

        Raises:
            InputError: it belongs to another user, or everyone can write to it.
        """
        if os.name != "posix" or not self.folder.exists():
            return
        about = self.folder.stat()
        if about.st_uid not in (os.geteuid(), 0):
            raise InputError(
                f"{self.folder}: this cache of engines belongs to another user, and loading an engine runs what is in "
                "it. Set LIDCAM_CACHE to a folder of your own"
            )
        if about.st_mode & stat.S_IWOTH:
            raise InputError(
                f"{self.folder}: everyone can write to this cache of engines, and loading an engine runs what is in "
                f"it. Empty it with `lidcam cache clear`, then: chmod o-w {self.folder}"
            )

    def entries(self) -> list[CachedEngine]:
        """All engines, the newest first; those whose sidecar is missing or damaged too."""
        if not self.folder.is_dir():
            return []
        matches = [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        keys = {match[1] for match in matches if match is not None}
        found = [entry for key in keys if (entry := self._entry(key)) is not None]
        return sorted(found, key=lambda entry: (entry.built, entry.key), reverse=True)

    def _entry(self, key: str) -> CachedEngine | None:
        path = self.path(key)
        try:
            about = path.stat()
            size, written = about.st_size, about.st_mtime
        except OSError:
            try:
                size, written = 0, sidecar_path(path).stat().st_mtime
            except OSError:  # removed meanwhile
                return None
        built = datetime.fromtimestamp(written, UTC)
        try:
            spec = read_sidecar(path)
        except ArtifactError as error:
            return CachedEngine(key, path, size, built, None, str(error))
        wrong = f"{size} bytes, its sidecar says {spec.engine_bytes}" if size != spec.engine_bytes else ""
        return CachedEngine(key, path, size, built, spec, wrong)

    def clear(self, keys: Sequence[str] = ()) -> tuple[list[CachedEngine], list[str]]:
        """Remove engines.

        Args:
            keys: beginnings of keys, four digits or more; none: all engines, and what killed builds left behind

        Returns:
            What was removed, and the keys of those that are being built or removed elsewhere, which stay.

        Raises:
            InputError: no engine has such a key, or several have.
            OutputError: a file cannot be removed.
        """
        entries = self.entries()
        chosen = [_one(entries, key) for key in keys] if keys else entries
        removed, busy = [], []
        for entry in {entry.key: entry for entry in chosen}.values():
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(locked(self.lock(entry.key)))
                except OutputError:
                    if not self.lock(entry.key).exists():  # the folder cannot be written
                        raise
                    busy.append(entry.key)
                    continue
                for path in (sidecar_path(entry.path), entry.path):  # an engine without a sidecar is never loaded
                    _remove(path)
                removed.append(entry)
        if not keys and self.folder.is_dir():
            self._remove_parts()
        return removed, busy

    def _remove_parts(self) -> None:
        for path in list(self.folder.iterdir()):
            if (match := _PART.fullmatch(path.name)) is not None:
                with contextlib.suppress(OutputError), locked(self.lock(match[1])):  # else it is being written
                    _remove(path)


def _one(entries: Sequence[CachedEngine], key: str) -> CachedEngine:
    fitting = [entry for entry in entries if len(key) >= _SHORTEST and entry.key.startswith(key)]
    if len(fitting) == 1:
        return fitting[0]
    why = "several engines have" if fitting else "no engine in the cache has"
    raise InputError(f"{key}: {why} a key that begins like this ({_SHORTEST} digits or more): lidcam cache list")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror or error})") from None
