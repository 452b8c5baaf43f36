"""Rows: one schema for jobs, Ray and Spark, and how a picture becomes a row."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from lidcam_rt.interop import coco_rle
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import Failure, Localization
from lidcam_rt.text import encode_text
from lidcam_scale.job import Job
from lidcam_scale.storage import is_url, open_url

__all__ = ["SCHEMA", "SPARK_SCHEMA", "failed_row", "localized_rows", "path_of", "text_of"]

#: The columns of a row. Box and size are in pixels of the upright picture, x1 and y1 one past the last pixel.
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("path_bytes", pa.binary()),
        pa.field("class", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("score", pa.float64()),
        pa.field("x0", pa.int32()),
        pa.field("y0", pa.int32()),
        pa.field("x1", pa.int32()),
        pa.field("y1", pa.int32()),
        pa.field("threshold", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mask_rle", pa.string()),
        pa.field("error", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("seconds", pa.float64()),
    ]
)
_SPARK_TYPES = {pa.string(): "string", pa.binary(): "binary", pa.int32(): "int", pa.float64(): "double"}
#: The same for Spark's `mapInPandas`.
SPARK_SCHEMA = ", ".join(f"`{field.name}` {_SPARK_TYPES[field.type]}" for field in SCHEMA)


class _Remote:
    """A picture at a URL, read when the stream decodes it.

    Attributes:
        name: the URL.
        failure: why it could not be read, or None.
    """

    def __init__(self, url: str) -> None:
        self.name = url
        self.failure: str | None = None

    def read(self, size: int = -1) -> bytes:
        """Its bytes, at most `size`."""
        try:
            with open_url(self.name) as file:
                data: bytes = file.read(size)
            return data
        except Exception as error:  # file systems of fsspec raise errors of their own
            reason = "no such file" if isinstance(error, FileNotFoundError) else f"{error or type(error).__name__}"
            self.failure = f"{self.name}: cannot be read ({reason}). Check the address and the permissions"
            raise OSError(self.failure) from None


def text_of(path: str) -> tuple[str, bytes | None]:
    r"""A path for Parquet: as UTF-8 text, and its bytes where it is not UTF-8 (`\xNN` in the text)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raw = encode_text(path)
        return raw.decode("utf-8", "backslashreplace"), raw
    return path, None


def path_of(row: Mapping[str, Any]) -> str:
    """The path of a row for the file system, even where it is not UTF-8."""
    raw = row.get("path_bytes")
    return os.fsdecode(raw) if isinstance(raw, bytes) else str(row["path"])


def failed_row(path: str, error: str) -> dict[str, Any]:
    """The row of a picture that could not be localized."""
    text, raw = text_of(path)
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    return row | {"path": text, "path_bytes": raw, "error": text_of(error)[0]}


def localized_rows(
    localizer: Localizer, pictures: Iterable[tuple[str, Any]], job: Job, *, careful: bool = False
) -> Iterator[dict[str, Any]]:
    """A row per picture, in order.

    Args:
        localizer: from `localizer_of`.
        pictures: pairs of a name and what the localizer takes; None: the name is the path or URL of the picture.
        job: the options.
        careful: one picture at a time, with none read ahead.
    """
    listed: Sequence[tuple[str, Any]] = [
        (name, source if source is not None else _Remote(name) if is_url(name) else name) for name, source in pictures
    ]
    stream = localizer.stream(
        [source for _, source in listed],
        batch_size=1 if careful else job.batch_size,
        keep_image=False,
        refine=job.refine,
        augment=job.augment,
        ahead=0 if careful else 4,
        # Threads beyond the network's are for reading ahead: they wait for disks and object stores.
        workers=1 if careful else max(2, job.threads),
    )
    engine, before = localizer.pipeline.engine, time.perf_counter()
    with closing(stream):
        for (name, source), result in zip(listed, stream, strict=True):
            now = time.perf_counter()
            row = _row(name, source, result, job.mask)
            yield row | {"engine": engine, "seconds": now - before}
            before = now


def _row(name: str, source: Any, result: Localization | Failure, mask: bool) -> dict[str, Any]:
    if isinstance(result, Failure):
        return failed_row(name, getattr(source, "failure", None) or str(result.error))
    x0, y0, x1, y1 = result.box or (None,) * 4
    row = failed_row(name, "")
    return row | {
        "class": text_of(result.class_name)[0],
        "class_id": result.class_id,
        "score": result.score,
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
        "threshold": result.threshold,
        "width": result.size[0],
        "height": result.size[1],
        "mask_rle": coco_rle(result.mask)["counts"] if mask else None,
        "error": None,
    }
