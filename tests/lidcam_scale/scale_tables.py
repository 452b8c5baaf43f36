"""Reading what a job has written, and what it must be equal to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import lidcam_rt
from lidcam_rt.interop import coco_rle
from lidcam_scale import path_of
from lidcam_scale.rows import SCHEMA


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows but `seconds`, as any reader of a folder of Parquet finds them."""
    table = pq.read_table(folder)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert all(row.pop("seconds") >= 0 for row in rows if row["engine"])
    return sorted(({k: v for k, v in row.items() if k != "seconds"} for row in rows), key=lambda row: path_of(row))


def plain_run(model: Path, paths: list[str]) -> list[dict[str, Any]]:
    """The same rows from `Localizer.stream`."""
    rows = []
    with lidcam_rt.load(model, device="cpu") as localizer:
        for path, result in zip(paths, localizer.stream(paths, keep_image=False), strict=True):
            raw = path.encode("utf-8", "surrogateescape")
            try:
                text, raw_column = raw.decode(), None
            except UnicodeDecodeError:
                text, raw_column = raw.decode("utf-8", "backslashreplace"), raw
            row = dict.fromkeys(SCHEMA.names) | {"path": text, "path_bytes": raw_column}
            del row["seconds"]
            row["engine"] = localizer.pipeline.engine
            if isinstance(result, lidcam_rt.Failure):
                row["error"] = str(result.error)
            else:
                x0, y0, x1, y1 = result.box or (None,) * 4
                row |= {
                    "class": result.class_name, "class_id": result.class_id, "score": result.score,
                    "x0": x0, "y0": y0, "x1": x1, "y1": y1, "threshold": result.threshold,
                    "width": result.size[0], "height": result.size[1], "mask_rle": coco_rle(result.mask)["counts"],
                }  # fmt: skip
            rows.append(row)
    return sorted(rows, key=lambda row: path_of(row))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
