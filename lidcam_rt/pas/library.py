"""Where the operator library for ONNX Runtime is."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path

__all__ = ["ops_library"]

_NAME = {"darwin": "liblidcam_ops.dylib", "win32": "lidcam_ops.dll"}.get(sys.platform, "liblidcam_ops.so")


def ops_library() -> Path | None:
    """Path of the operator library, for `SessionOptions.register_custom_ops_library`.

    `lidcam_rt.load` registers it automatically. The environment variable LIDCAM_OPS=off makes every artifact run PaS in
    its standard operators instead, to compare the two.

    Returns:
        The file, or None where it was not built (ONNX Runtime's headers were missing) or is switched off.
    """
    if os.environ.get("LIDCAM_OPS", "").lower() in ("off", "0"):
        return None
    return _find()


@functools.cache
def _find() -> Path | None:
    spec = importlib.util.find_spec("lidcam_rt._kernels")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(_NAME)
    return path if path.is_file() else None
