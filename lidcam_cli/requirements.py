"""Installed packages that are older than this one needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata

from lidcam_rt.errors import LidcamError

__all__ = ["Outdated", "OutdatedPackageError", "outdated", "require_current"]

#: A line of Requires-Dist: name, extras, specifiers, and after a semicolon when it holds.
_LINE = re.compile(r"\s*([\w.-]+)\s*(?:\[[^]]*])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?", re.S)
_EXTRA = re.compile(r"""\bextra\s*==\s*['"]([\w.-]+)['"]""")


@dataclass(frozen=True, slots=True)
class Outdated:
    """A package that is too old.

    Attributes:
        name: its name for pip.
        installed: its version.
        needed: the oldest version that will do.
    """

    name: str
    installed: str
    needed: str

    def __str__(self) -> str:
        return f"{self.name} {self.installed} is installed, lidcam-rt needs {self.needed} or newer"

    @property
    def mend(self) -> str:
        """The command that installs a newer one."""
        return f"pip install '{self.name}>={self.needed}'"


class OutdatedPackageError(LidcamError):
    """An installed package is older than lidcam-rt needs: install a newer one."""

    exit_code = 7


def _lines() -> list[str]:
    try:
        return metadata.requires("lidcam-rt") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return []


def _version(name: str) -> str:
    return metadata.version(name)


def outdated(
    extra: str | None = None,
    *,
    lines: Callable[[], Iterable[str]] = _lines,
    version: Callable[[str], str] = _version,
) -> list[Outdated]:
    """Packages older than the lower bounds of this package's requirements, which nothing but pip enforces.

    Args:
        extra: the requirements of this extra; None: those of the package itself.
        lines: returns the requirements as in the metadata.
        version: returns the version of an installed package, or raises PackageNotFoundError.
    """
    old = []
    for line in lines():
        match = _LINE.match(line)
        if match is None:
            continue
        name, specifiers, condition = match[1], match[2], match[3] or ""
        if set(_EXTRA.findall(condition)) != ({extra} if extra else set()):
            continue
        bound = re.search(r"(?:>=|==)\s*([\w.]+)", specifiers)
        try:
            if bound and _release(installed := version(name)) < _release(bound[1]):
                old.append(Outdated(name, installed, bound[1]))
        except metadata.PackageNotFoundError:  # what is missing shows where it is imported
            continue
    return old


def require_current(*names: str) -> None:
    """Raise OutdatedPackageError where one of these packages is too old."""
    old = [entry for entry in outdated() if entry.name in names]
    if old:
        raise OutdatedPackageError(f"{old[0]}: {old[0].mend}")


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version as far as they go, without zeros at the end: 2.10.0+cu128 is 2.10."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    release = [int(number) for number in numbers[0].split(".")] if numbers else []
    while release and not release[-1]:
        release.pop()
    return tuple(release)
