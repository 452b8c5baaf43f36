"""A job from its list to its last part: what is already done is kept, what is damaged is done again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from lidcam_cli.runs import differences
from lidcam_rt.errors import ArtifactError, BackendError, InputError, OutputError
from lidcam_rt.files import file_sha256
from lidcam_rt.version import __version__
from lidcam_scale.executors import Died, Executor, InProcess
from lidcam_scale.job import Job
from lidcam_scale.listing import digest_of, in_order
from lidcam_scale.shards import (
    Shard,
    check_part,
    default_size,
    localize_alone,
    localize_shard,
    lost_row,
    part_name,
    write_part,
)
from lidcam_scale.storage import Store, is_url, open_store, read_url

__all__ = ["Summary", "scale"]

_RUN, _DONE = "_run.json", "_SUCCESS"
_FORMAT = 1
#: If the first this many pictures all kill their process, the pictures are not the cause.
_HOPELESS = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """What a job has written.

    Attributes:
        output: path or URL.
        pictures: number of rows.
        failed: number of rows with an error.
        resumed: number of rows that were there before.
        errors: some of the errors.
    """

    output: str
    pictures: int
    failed: int
    resumed: int
    errors: tuple[str, ...]


def scale(
    job: Job,
    pictures: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    shard_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Localize pictures and write one row for each into Parquet parts; repeat the call to do what is left.

    Args:
        job: the artifact and its options.
        pictures: paths and URLs that every worker can read. Their order does not matter; each counts once.
        output: local folder, or URL that fsspec knows. Every worker must be able to reach it.
        executor: where the work is done; None: in this process.
        shard_size: pictures per part; None: 1000, or fewer if that would make under 64 parts.
        progress: called with (done, all).

    Raises:
        InputError: an option, the list or a protocol is wrong.
        ArtifactError: the model cannot be read, or a worker sees another one.
        BackendError: the engine failed, or the workers cannot be reached.
        OutputError: a part cannot be written, the output holds another run, or is in use.
    """
    job.check()
    if shard_size is not None and shard_size < 1:
        raise InputError(f"shard_size must be at least 1, got {shard_size}")
    if not is_url(job.model):
        job = replace(job, model=os.path.abspath(job.model))  # noqa: PTH100
    job = replace(job, sha256=_digest(job.model))
    names = in_order(pictures)
    size = shard_size or default_size(len(names))
    identity = {
        "run": "scale",
        "format": _FORMAT,
        "version": __version__,
        **job.identity(),
        "pictures": len(names),
        "list_sha256": digest_of(names),
        "shard_size": size,
    }
    run = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    store = open_store(os.fspath(output))
    shards = [
        Shard(number, run, job, store.url, tuple(names[start : start + size]))
        for number, start in enumerate(range(0, len(names), size))
    ]
    with store.hold():
        _check_identity(store, identity)
        work = _Work(store, shards, len(names), progress)
        work.find_done()
        work.do(executor or InProcess())
        return work.finish(identity)


class _Work:
    """The shards of a run and the facts of their parts."""

    def __init__(
        self, store: Store, shards: list[Shard], pictures: int, progress: Callable[[int, int], None] | None
    ) -> None:
        self._store, self._shards, self._pictures, self._progress = store, shards, pictures, progress
        self._facts: dict[int, dict[str, Any]] = {}
        self._rows = self._resumed = 0

    def _add(self, number: int, facts: dict[str, Any]) -> None:
        self._facts[number] = facts
        self._rows += facts["rows"]
        if self._progress:
            self._progress(self._rows, self._pictures)

    def find_done(self) -> None:
        """Read the parts that are there."""
        there = self._store.names()
        for shard in self._shards:
            name = part_name(shard.number, shard.run)
            if name in there:
                try:
                    facts = check_part(shard, self._store.read(name))
                except OSError:
                    facts = None
                if facts is not None:
                    self._add(shard.number, facts)
        self._resumed = self._rows

    def do(self, executor: Executor) -> None:
        """Do the shards that are left; pictures that kill their process get a row that says so."""
        todo = [shard for shard in self._shards if shard.number not in self._facts]
        if not todo:
            return
        self._store.remove(_DONE)
        lost: list[Shard] = []
        with closing(executor.run(localize_shard, todo)) as results:
            for place, facts in results:
                if isinstance(facts, Died):
                    lost.append(todo[place])
                else:
                    self._add(todo[place].number, facts)
        if not lost:
            return
        rows = _one_by_one(executor, [(shard.job, name) for shard in lost for name in shard.pictures])
        for shard in lost:
            self._add(shard.number, write_part(shard, [rows[name] for name in shard.pictures]))

    def finish(self, identity: dict[str, Any]) -> Summary:
        """Check that all parts are there, and record them in `_SUCCESS`."""
        parts = [self._facts[shard.number] for shard in self._shards]
        there = self._store.names()
        absent = [entry["name"] for entry in parts if there.get(entry["name"]) != entry["bytes"]]
        if absent:
            raise OutputError(
                f"{self._store.url}: {len(absent)} of {len(parts)} parts are missing, such as {absent[0]}, though "
                "workers wrote them: not all see the same place, or another job writes into it. Use a folder or object "
                "store that all machines share"
            )
        failed = sum(entry["failed"] for entry in parts)
        errors = tuple(error for entry in parts for error in entry["errors"])
        listed = [{k: v for k, v in entry.items() if k != "errors"} for entry in parts]
        manifest = {"identity": identity, "rows": self._pictures, "failed": failed, "parts": listed}
        data = json.dumps(manifest, indent=1).encode() + b"\n"
        if _DONE not in there or self._store.read(_DONE) != data:
            self._store.write(_DONE, data)
        return Summary(self._store.url, self._pictures, failed, self._resumed, errors)


def _one_by_one(executor: Executor, alone: list[tuple[Job, str]]) -> dict[str, dict[str, Any]]:
    """The rows of pictures, some of which kill their process.

    Raises:
        BackendError: processes die whatever the picture.
    """
    rows: dict[str, dict[str, Any]] = {}
    died = 0
    with closing(executor.run(localize_alone, alone)) as results:
        for place, row in results:
            name = alone[place][1]
            died += isinstance(row, Died)
            rows[name] = lost_row(name) if isinstance(row, Died) else row
            if died == len(rows) == _HOPELESS:
                raise BackendError(
                    f"processes die on every picture, {name} being the last: too little memory, or an engine "
                    "that does not run there. Try `lidcam localize` on one of the machines"
                )
    return rows


def _digest(model: str) -> str:
    try:
        return hashlib.sha256(read_url(model)).hexdigest() if is_url(model) else file_sha256(model)
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{model}: cannot be read ({reason}). Make it with `lidcam export`") from None


def _check_identity(store: Store, identity: dict[str, Any]) -> None:
    there = store.names()
    if _RUN not in there:
        if _DONE in there or any(name.startswith("part-") for name in there):
            raise OutputError(f"{store.url}: already holds other results. Choose another place")
        others = sorted(name for name in there if not name.startswith((".", "_")))
        if others:  # readers of Parquet read a folder as a whole
            raise OutputError(f"{store.url}: holds other files ({others[0]}). Choose another place, or an empty one")
        store.write(_RUN, json.dumps(identity, indent=1).encode() + b"\n")
    try:  # read back: on an object store another job may have been faster
        before = json.loads(store.read(_RUN))
    except (OSError, ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise OutputError(f"{store.url}/{_RUN}: does not describe a run. Choose another place, or remove this one")
    if changes := differences(before, identity):
        raise OutputError(
            f"{store.url}: holds another run: {'; '.join(changes)}. Use the same model, pictures and options, or "
            "choose another place"
        )
