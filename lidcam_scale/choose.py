"""The executor that a command line requests."""

from __future__ import annotations

from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import InputError
from lidcam_scale.executors import Executor, InProcess

__all__ = ["executor_of"]


def executor_of(
    *,
    processes: int | None = None,
    ray: str | None = None,
    spark: str | None = None,
    workers: int | None = None,
    num_gpus: float = 0.0,
) -> Executor:
    """The executor; by default a process per core.

    Args:
        processes: how many on this machine; 0: this process alone.
        ray: address of a Ray cluster, or `local`.
        spark: master of Spark.
        workers: actors of Ray; None: as many as the cluster has room for.
        num_gpus: GPUs of each actor.

    Raises:
        InputError: two of them were requested, or an option without its executor.
        MissingExtraError: ray or pyspark is not installed.
    """
    asked = [
        name for name, value in (("--processes", processes), ("--ray", ray), ("--spark", spark)) if value is not None
    ]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)}: choose one of them")
    if ray is None and (workers is not None or num_gpus):
        raise InputError("--workers and --num-gpus are for --ray: leave them out")
    if ray is not None:
        from lidcam_scale.on_ray import RayActors

        return RayActors(ray, workers=workers, num_gpus=num_gpus)
    if spark is not None:
        from lidcam_scale.on_spark import SparkTasks

        return SparkTasks(spark)
    if processes == 0:
        return InProcess()
    from lidcam_scale.processes import MAX_PROCESSES, Processes

    return Processes(min(usable_cores(), MAX_PROCESSES) if processes is None else processes)
