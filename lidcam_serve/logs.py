"""Logs: one JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from typing import Any

__all__ = ["JsonLines", "configure", "request_id"]

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class JsonLines(logging.Formatter):
    """A record as one line of JSON, which includes the fields of `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        out: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return json.dumps(out, default=str)


def configure(*, quiet: bool) -> None:
    """Log as JSON, including what libraries log; with `quiet` errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR if quiet else logging.WARNING)
    for name, level in (
        ("lidcam_serve", logging.INFO),
        ("lidcam_rt", logging.WARNING),
        ("uvicorn.error", logging.ERROR),
        ("python_multipart", logging.ERROR),  # it warns of each damaged form, which its sender is told
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(max(level, logging.ERROR) if quiet else level)


def request_id(given: str | None) -> str:
    """The id that a client gave, if it is a plain one; else a new one."""
    return given if given and _ID.fullmatch(given) else secrets.token_hex(8)
