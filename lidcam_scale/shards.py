"""Shards: a part of the list, its Parquet file, and the function that makes one from the other."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lidcam_scale.job import Job, localizer_of
from lidcam_scale.rows import SCHEMA, failed_row, localized_rows, text_of
from lidcam_scale.storage import open_store

__all__ = [
    "Shard",
    "check_part",
    "default_size",
    "localize_alone",
    "localize_shard",
    "lost_row",
    "part_name",
    "write_part",
]

_SHOWN = 5
_LARGEST, _FEWEST = 1000, 64


@dataclass(frozen=True, slots=True)
class Shard:
    """Pictures that become one part.

    Attributes:
        number: its place, from 0.
        run: id of the run.
        job: what is done.
        output: URL of the store.
        pictures: paths or URLs.
    """

    number: int
    run: str
    job: Job
    output: str
    pictures: tuple[str, ...]


def default_size(count: int) -> int:
    """Pictures per shard: 1000, or fewer if that would make under 64 shards."""
    return max(1, min(_LARGEST, -(-count // _FEWEST)))


def part_name(number: int, run: str) -> str:
    """The file of a shard; it names the run, so that parts of two runs cannot be taken for each other."""
    return f"part-{number:06}-{run[:8]}.parquet"


def localize_shard(shard: Shard) -> dict[str, Any]:
    """Localize the pictures of a shard and write its part; returns what `write_part` returns."""
    pictures = [(name, None) for name in shard.pictures]
    rows = list(localized_rows(localizer_of(shard.job), pictures, shard.job))
    return write_part(shard, rows)


def localize_alone(task: tuple[Job, str]) -> dict[str, Any]:
    """The row of one picture, after its shard killed a process."""
    job, name = task
    (row,) = localized_rows(localizer_of(job), [(name, None)], job, careful=True)
    return row


def write_part(shard: Shard, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the part of a shard.

    Returns:
        Its facts as JSON values: `name`, `rows`, `failed`, `bytes`, and some of the `errors`.

    Raises:
        OutputError: it cannot be written.
    """
    about = {"run": shard.run, "shard": shard.number}
    table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata({"lidcam": json.dumps(about)}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    data, name = buffer.getvalue(), part_name(shard.number, shard.run)
    open_store(shard.output).write(name, data)
    return _facts(name, table, len(data))


def check_part(shard: Shard, data: bytes) -> dict[str, Any] | None:
    """The facts of a part that was written before; None if it is incomplete or not this shard's."""
    try:
        # Page checksums detect even a flipped bit. No threads of Arrow's: if the process ends right after they were
        # started, they end it with SIGABRT (pyarrow 26, once in a hundred).
        with pq.ParquetFile(io.BytesIO(data), pre_buffer=False, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
    except Exception:  # of a damaged file pyarrow raises nearly anything
        return None
    try:
        about = json.loads((table.schema.metadata or {}).get(b"lidcam", b"null"))
    except ValueError:
        return None
    if about != {"run": shard.run, "shard": shard.number} or not table.schema.equals(SCHEMA):
        return None
    paths = [text_of(name) for name in shard.pictures]
    if list(zip(table["path"].to_pylist(), table["path_bytes"].to_pylist(), strict=True)) != paths:
        return None
    return _facts(part_name(shard.number, shard.run), table, len(data))


def lost_row(name: str) -> dict[str, Any]:
    """The row of a picture whose localization kills the process."""
    return failed_row(name, f"{name}: the process that localized it died, twice. Leave the picture out")


def _facts(name: str, table: pa.Table, size: int) -> dict[str, Any]:
    errors = [text for text in table["error"].to_pylist() if text is not None]
    return {"name": name, "rows": len(table), "failed": len(errors), "bytes": size, "errors": errors[:_SHOWN]}
