"""Jobs on a Ray of this machine: equal rows, killed actors, a killed driver, `LocalizerActor`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scale_tasks
from scale_tables import plain_run, rows_of
from test_kills import finished, start, until_parts

from lidcam_rt.errors import BackendError, InputError, OutputError
from lidcam_scale import Job, LocalizerActor, scale
from lidcam_scale.executors import Died
from lidcam_scale.listing import list_pictures
from lidcam_scale.rows import SCHEMA

HERE = str(Path(__file__).parent)


def test_the_actor_takes_batches_of_every_form(model, photos):
    """It needs no Ray: Ray Data calls it with batches."""
    pandas = pytest.importorskip("pandas", reason="extra spark is not installed")
    paths = list_pictures([str(photos)])[2:8]
    contents = [Path(path).read_bytes() for path in paths]
    actor = LocalizerActor(str(model))
    wanted = plain_run(model, paths)
    for batch in (
        {"path": np.array(paths, object)},
        pa.table({"path": paths, "bytes": contents, "other": [0] * 6}),
        pandas.DataFrame({"path": paths, "bytes": contents}),
    ):
        table = actor(batch)
        assert table.schema.equals(SCHEMA)
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in table.to_pylist()]
        for row, plain in zip(rows, wanted, strict=True):
            assert row == plain or (row["error"] and plain["error"])  # of bytes the error names no file
    with pytest.raises(InputError, match="needs the column path"):
        actor({"image": paths})
    with pytest.raises(InputError, match="no CRF preset"):
        LocalizerActor(str(model), refine="nothing")


@pytest.fixture(scope="module")
def actors():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="extra ray is not installed")
    from lidcam_scale.on_ray import RayActors, start_ray

    os.environ["PYTHONPATH"] = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])
    assert start_ray("local", cores=2)
    yield RayActors("local", workers=2)
    ray.shutdown()


@pytest.mark.slow
def test_tasks_on_ray(actors, tmp_path):
    assert sorted(actors.run(scale_tasks.double, list(range(7)))) == [(i, 2 * i) for i in range(7)]
    assert list(actors.run(scale_tasks.double, [])) == []
    with pytest.raises(OutputError, match="No space left"):
        list(actors.run(scale_tasks.full, ["part"]))
    with pytest.raises(RuntimeError, match="planted"):
        list(actors.run(scale_tasks.fails, [0]))
    todo = [(number, str(tmp_path)) for number in (1, -1, 2, -2, 3)]
    assert dict(actors.run(scale_tasks.die_at, todo)) == {0: 1, 1: "second time", 2: 2, 3: Died(), 4: 3}


@pytest.mark.slow
def test_rows_are_those_of_a_plain_run(actors, model, photos, tmp_path):
    pictures = list_pictures([str(photos)])
    scale(Job(str(model)), pictures, tmp_path, executor=actors, shard_size=6)
    assert rows_of(tmp_path) == plain_run(model, pictures)


@pytest.mark.slow
def test_more_than_the_cluster_has(actors):
    from lidcam_scale.on_ray import RayActors

    with pytest.raises(BackendError, match="no machine has 1 GPUs"):
        list(RayActors("local", num_gpus=1).run(scale_tasks.double, [1]))
    with pytest.raises(InputError, match="workers must be"):
        RayActors("local", workers=0)


@pytest.mark.slow
@pytest.mark.hostile
def test_killed_half_way_and_resumed_elsewhere(actors, model, many, tmp_path):
    """The driver of 500 pictures is killed; Ray ends with it. Processes do the rest, and then there is nothing left."""
    out = tmp_path / "out"
    command = start(model, many, out, "--ray", "local", "--workers", "2", "--shard-size", "8")
    until_parts(command, out, 20)
    command.kill()
    command.wait()
    assert not (out / "_SUCCESS").exists() and finished(out) < 63
    pictures = list_pictures([str(many)])
    summary = scale(Job(str(model)), pictures, out, executor=actors, shard_size=8)
    assert 0 < summary.resumed < summary.pictures == 501
    assert rows_of(out) == plain_run(model, pictures)
    assert start(model, many, out, "--processes", "1", "--shard-size", "8").wait() == 8


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_is(monkeypatch, address):
    pytest.importorskip("ray", reason="extra ray is not installed")
    from lidcam_scale.on_ray import _knock, start_ray

    with pytest.raises(BackendError, match=r"127\.0\.0\.1:1: cannot be reached .*refused"):
        _knock(address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(BackendError, match="cannot be reached"):
        start_ray("auto")


@pytest.mark.parametrize("failures", [2, 9])
def test_a_ray_that_starts_too_slowly_is_started_again(monkeypatch, failures):
    ray = pytest.importorskip("ray", reason="extra ray is not installed")
    from lidcam_scale.on_ray import start_ray

    calls = []

    def init(**options):
        calls.append(options["address"])
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if failures == 2:
        assert start_ray("local") and len(calls) == 3
        return
    with pytest.raises(BackendError, match="timed out during startup"):
        start_ray("local")
    assert len(calls) == 3
