"""Jobs on a Spark of this machine: equal rows, a killed driver, `localize_batches`. They need Java and pyspark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import scale_tasks
from scale_tables import plain_run, rows_of
from test_kills import finished, start, until_parts

from lidcam_rt.errors import OutputError
from lidcam_scale import SPARK_SCHEMA, Job, localize_batches, path_of, scale
from lidcam_scale.listing import list_pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java"),
]


@pytest.fixture(scope="module")
def tasks():
    pytest.importorskip("pyspark", reason="extra spark is not installed")
    from lidcam_scale.on_spark import SparkTasks, start_spark

    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    session = start_spark("local[2]")
    yield SparkTasks("local[2]")
    session.stop()


def test_tasks_on_spark(tasks):
    assert sorted(tasks.run(scale_tasks.double, list(range(5)))) == [(i, 2 * i) for i in range(5)]
    assert list(tasks.run(scale_tasks.double, [])) == []
    with pytest.raises(OutputError, match="No space left"):
        list(tasks.run(scale_tasks.full, ["part"]))
    with pytest.raises(RuntimeError, match="planted"):
        list(tasks.run(scale_tasks.fails, [0]))


def test_rows_are_those_of_a_plain_run(tasks, model, photos, tmp_path):
    pictures = list_pictures([str(photos)])
    scale(Job(str(model)), pictures, tmp_path, executor=tasks, shard_size=6)
    assert rows_of(tmp_path) == plain_run(model, pictures)


def test_in_a_job_of_ones_own(tasks, model, photos):
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    paths = [path for path in list_pictures([str(photos)]) if path.isascii()]
    frame = session.createDataFrame([(path,) for path in paths], "path string").repartition(2)
    rows = [row.asDict() for row in frame.mapInPandas(localize_batches(str(model)), SPARK_SCHEMA).collect()]
    got = sorted(({k: v for k, v in row.items() if k != "seconds"} for row in rows), key=path_of)
    assert got == plain_run(model, paths)


@pytest.mark.hostile
def test_killed_half_way_and_resumed(tasks, model, many, tmp_path):
    out = tmp_path / "out"
    command = start(model, many, out, "--spark", "local[2]", "--shard-size", "8")
    until_parts(command, out, 15)
    command.kill()
    command.wait()
    assert not (out / "_SUCCESS").exists() and finished(out) < 63
    pictures = list_pictures([str(many)])
    summary = scale(Job(str(model)), pictures, out, executor=tasks, shard_size=8)
    assert 0 < summary.resumed < summary.pictures == 501
    assert rows_of(out) == plain_run(model, pictures)
