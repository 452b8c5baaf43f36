"""The state from which a training run resumes: Lightning's, as tensors and plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO

from lidcam_rt.errors import DataError
from lidcam_rt.files import replacing
from lidcam_training.tensor_file import read_tensor_file, read_values, write_tensor_file

__all__ = ["PlainCheckpoints", "read_progress"]


class PlainCheckpoints(CheckpointIO):
    """Lightning's checkpoints as files of data (`lidcam_training.tensor_file`) instead of pickles."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(Path(path)) as temporary:
            write_tensor_file(temporary, checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; its tensors are on the CPU.

        Raises:
            DataError: it is damaged, or of another kind.
        """
        checkpoint = read_tensor_file(Path(path))
        if not isinstance(checkpoint, dict):
            raise DataError(f"{path} is not the state of a run")
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_progress(path: Path, callback: str) -> tuple[tuple[int, int], bool]:
    """How far a run has come.

    Args:
        path: the state; it may be missing.
        callback: name of the callback that keeps `resume` and `finished`.

    Returns:
        (epoch, batches done in it) to resume from, and whether the run is finished.

    Raises:
        DataError: it is damaged, or of another kind.
    """
    if not path.exists():
        return (0, 0), False
    try:
        saved = read_values(path)
        kept = next(value for key, value in saved["callbacks"].items() if key.startswith(callback))
        (epoch, done), finished = kept["resume"], kept["finished"]
        if not (type(epoch) is int and type(done) is int and type(finished) is bool and epoch >= 0 and done >= 0):
            raise ValueError("its progress is not in epochs and batches")
    except DataError as error:
        raise DataError(f"{error}: remove it to begin the run again") from None
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise DataError(f"{path} cannot be read ({error!r}): remove it to begin the run again") from None
    return (epoch, done), finished
