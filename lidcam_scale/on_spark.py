"""Tasks on Spark: `mapInPandas` over the indices of the tasks, one localizer per Python process of an executor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from lidcam_rt.errors import BackendError, MissingExtraError
from lidcam_scale.executors import Raised, guarded, result_of

__all__ = ["SparkTasks", "start_spark"]

_Task = TypeVar("_Task")


def start_spark(master: str) -> Any:
    """A Spark session: the existing one, or a new one.

    Args:
        master: `local[2]`, `yarn`, `spark://HOST:PORT`.

    Raises:
        MissingExtraError: pyspark or pandas is not installed.
        BackendError: it cannot be started, for example because Java is missing.
    """
    # The executors of local masters must run this Python, not the first one on the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        import pandas  # noqa: F401
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("--spark", "spark", (error.name or "pyspark",)) from None
    builder = SparkSession.builder.appName("lidcam scale").master(master)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1",
    }
    if master.startswith("local"):
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # errors of py4j and of the JVM
        raise BackendError(
            f"Spark at {master}: cannot be started ({_first_line(error)}). It needs Java 17 or newer (JAVA_HOME)"
        ) from None
    session.sparkContext.setLogLevel("ERROR")
    return session


class SparkTasks:
    """Runs tasks on Spark, which itself retries tasks whose Python process dies: `spark.task.maxFailures`.

    Args:
        master: of the session; if this process already has a session, that is used as it is.
    """

    def __init__(self, master: str = "local[*]") -> None:
        self.master = master

    def run(self, function: Callable[[_Task], Any], tasks: Sequence[_Task]) -> Generator[tuple[int, Any], None, None]:
        """See `Executor.run`. Results come when all tasks have ended."""
        if not tasks:  # Spark cannot make a frame without rows
            return
        start_spark(self.master)
        from pyspark.sql import SparkSession

        session = SparkSession.getActiveSession()
        assert session is not None
        context = session.sparkContext
        held = context.broadcast(list(tasks))

        def map_tasks(frames: Iterator[Any]) -> Iterator[Any]:
            import pandas

            for frame in frames:
                for place in frame["place"]:
                    yield pandas.DataFrame([(int(place), _encoded(guarded(function, held.value[int(place)])))])

        places = context.parallelize([(place,) for place in range(len(tasks))], len(tasks))
        frame = session.createDataFrame(places, "place long").mapInPandas(map_tasks, "place long, result string")
        try:
            rows = frame.collect()
        except Exception as error:  # errors of py4j and of the JVM
            raise BackendError(f"Spark failed ({_first_line(error)}). Run the same command again: it resumes") from None
        finally:
            held.destroy()
        for row in rows:
            yield int(row["place"]), result_of(_decoded(row["result"]))


def _encoded(result: Any) -> str:
    return json.dumps({"raised": asdict(result)} if isinstance(result, Raised) else {"result": result})


def _decoded(text: str) -> Any:
    value = json.loads(text)
    return Raised(**value["raised"]) if "raised" in value else value["result"]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
