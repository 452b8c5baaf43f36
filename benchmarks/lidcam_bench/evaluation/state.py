"""The sums of an evaluation under way, saved between batches, so that a kill at any moment costs little work."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_cli.runs import RunFolder
from lidcam_rt.errors import OutputError

__all__ = ["SavedSums"]

_STATE = "state.npz"
#: Share of the time that saving may take.
_SHARE = 0.05

Arrays = dict[str, npt.NDArray[Any]]


class SavedSums:
    """`state.npz` of a run: the sums over its first pictures, and how many these are.

    Args:
        run: the open folder. Records of pictures that are not in the sums are dropped: these pictures are done
            again.

    Attributes:
        done: pictures in the sums that were saved last.
        arrays: these sums; empty for a new run.

    Raises:
        OutputError: the file is damaged.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self.done, self.arrays = 0, Arrays()
        self._saved_at, self._cost = time.monotonic(), 0.0
        path = run.folder / _STATE
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as file:
                    self.arrays = {name: file[name] for name in file.files}
                self.done = int(self.arrays.pop("done"))
                if self.done < 0:
                    raise ValueError(f"{self.done} pictures")
            except Exception as error:  # a damaged archive raises nearly anything
                raise OutputError(f"{path} is damaged ({error}): remove {run.folder} to start again") from None
        run.keep(self.done)

    @property
    def save_is_due(self) -> bool:
        """Whether a save now would leave at least 95% of the time to the work."""
        return time.monotonic() - self._saved_at >= self._cost / _SHARE

    def save(self, done: int, arrays: Arrays) -> None:
        """Write the sums over the first `done` pictures, whose records were added before.

        Raises:
            OutputError: it cannot be written; the state before is still there.
        """
        start = time.monotonic()
        buffer = io.BytesIO()
        np.savez(buffer, **{"done": np.int64(done), **arrays})  # type: ignore[arg-type]
        self._run.write(_STATE, buffer.getvalue())
        self.done = done
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start
