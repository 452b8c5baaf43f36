"""Errors of lidcam_rt: one base, subclasses by what the user must do.

Every message names the thing, the reason it was refused, and the remedy. The command line prints only
the message (no traceback) and exits with `exit_code`.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BackendError",
    "DataError",
    "ExportError",
    "ImageError",
    "InputError",
    "LidcamError",
    "MissingExtraError",
    "OutputError",
    "RebuildError",
]


class LidcamError(Exception):
    """Base of all errors raised on purpose by lidcam_rt, lidcam_export and lidcam_training."""

    exit_code = 1


class InputError(LidcamError, ValueError):
    """An argument is wrong: fix the call."""

    exit_code = 2


class ImageError(InputError):
    """A picture cannot be read or is refused: fix or leave out the file."""


class DataError(InputError):
    """A data set, label file or folder is not as expected: fix the data."""


class ArtifactError(LidcamError):
    """An .onnx file is not a usable lidcam artifact: export it again."""

    exit_code = 3


class RebuildError(ArtifactError):
    """An engine or artifact does not fit this machine or version: build it again."""


class ExportError(LidcamError):
    """A model cannot be exported, or the exported file failed its comparison with PyTorch."""

    exit_code = 4


class BackendError(LidcamError):
    """An engine cannot do on this machine what was requested: install the backend or choose another device."""

    exit_code = 5


class OutputError(LidcamError, OSError):
    """A result cannot be written: free space, or choose another folder."""

    exit_code = 6


class MissingExtraError(LidcamError, ImportError):
    """A part of lidcam_rt needs packages that are not installed: install the extra.

    Args:
        what: what the user requested, for example ``lidcam export``.
        extra: name of the extra that provides it.
        missing: the modules that could not be found.
    """

    exit_code = 7

    def __init__(self, what: str, extra: str, missing: tuple[str, ...] = ()) -> None:
        self.extra = extra
        self.missing = missing
        lacks = f" ({', '.join(missing)} not found)" if missing else ""
        super().__init__(
            f"{what} needs packages that are not installed{lacks}: pip install 'lidcam-rt[{extra}]'"
        )
