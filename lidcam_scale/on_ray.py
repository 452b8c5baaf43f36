"""Tasks on Ray: one actor per core or GPU, each with one localizer. An actor that dies is replaced."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import BackendError, InputError, MissingExtraError
from lidcam_scale.executors import ATTEMPTS, Died, guarded, result_of

__all__ = ["RayActors", "start_ray"]

_Task = TypeVar("_Task")
#: Object store of a Ray that we start: no picture goes through it.
_STORE_BYTES = 80 << 20
_PATIENCE = 10.0
_STARTS = 3


def start_ray(address: str, *, cores: int | None = None) -> bool:
    """Connect to a cluster, or start Ray on this machine; without effect if this process is already connected.

    Args:
        address: `local`, `auto`, or the address of a cluster.
        cores: of a Ray that is started here.

    Returns:
        Whether it was started or connected here.

    Raises:
        MissingExtraError: ray is not installed.
        BackendError: it cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--ray", "ray", ("ray",)) from None
    if ray.is_initialized():
        return False
    more: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        more |= {"num_cpus": cores or usable_cores(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    else:
        _knock(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    attempts = _STARTS if address == "local" else 1
    for attempt in range(1, attempts + 1):
        try:
            ray.init(address=address, **more)
            break
        except Exception as error:  # ConnectionError, RuntimeError or ValueError
            ray.shutdown()
            # Ray gives its own processes 30 seconds, which can be too short on a busy machine.
            if attempt == attempts or "timed out during startup" not in str(error):
                raise BackendError(
                    f"Ray at {address}: cannot be reached ({error}). Start it with `ray start --head`, or use "
                    "--ray local"
                ) from None
    return True


def _knock(address: str) -> None:
    """Check that somebody answers: otherwise Ray itself waits for minutes, and prints."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise BackendError(
            f"Ray at {address}: cannot be reached ({error}). Start it with `ray start --head`, or use --ray local"
        ) from None


class RayActors:
    """Runs tasks on actors of Ray.

    Args:
        address: `local`, `auto`, or the address of a cluster.
        workers: how many actors; None: as many as the cluster has room for.
        num_gpus: GPUs of each actor; 0: a core for each.
    """

    def __init__(self, address: str = "local", *, workers: int | None = None, num_gpus: float = 0.0) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        self.address, self.workers, self.num_gpus = address, workers, num_gpus

    def run(self, function: Callable[[_Task], Any], tasks: Sequence[_Task]) -> Generator[tuple[int, Any], None, None]:
        """See `Executor.run`."""
        ours = start_ray(self.address, cores=self.workers)
        import ray

        try:
            yield from self._run(function, tasks)
        finally:
            if ours:
                ray.shutdown()

    def _run(self, function: Callable[[_Task], Any], tasks: Sequence[_Task]) -> Generator[tuple[int, Any], None, None]:
        import ray

        actor_class = ray.remote(_Actor).options(num_cpus=0 if self.num_gpus else 1, num_gpus=self.num_gpus)
        waiting, begun = deque(range(len(tasks))), dict.fromkeys(range(len(tasks)), 0)
        actors = [actor_class.remote(function) for _ in range(min(self._room(), len(tasks)))]
        under_way: dict[Any, tuple[Any, int]] = {}

        def give(actor: Any) -> None:
            if waiting:
                place = waiting.popleft()
                begun[place] += 1
                under_way[actor.do.remote(tasks[place])] = actor, place

        try:
            for actor in actors:
                give(actor)
            while under_way:
                (ready,), _ = ray.wait(list(under_way), num_returns=1)
                actor, place = under_way.pop(ready)
                try:
                    result = ray.get(ready)
                except ray.exceptions.ActorDiedError:
                    if begun[place] < ATTEMPTS:
                        waiting.appendleft(place)
                    else:
                        yield place, Died()
                    actors.remove(actor)
                    actor = actor_class.remote(function)
                    actors.append(actor)
                    give(actor)
                    continue
                except ray.exceptions.RayError as error:
                    raise BackendError(f"Ray failed ({error}). Run the same command again: it resumes") from None
                give(actor)
                yield place, result_of(result)
        finally:
            for actor in actors:
                ray.kill(actor)

    def _room(self) -> int:
        import ray

        if self.workers is not None:
            return self.workers
        there = ray.cluster_resources()
        room = there.get("GPU", 0.0) / self.num_gpus if self.num_gpus else there.get("CPU", 0.0)
        if room < 1:
            kind = f"{self.num_gpus:g} GPUs" if self.num_gpus else "a core"
            raise BackendError(f"Ray at {self.address}: no machine has {kind} for an actor. Use a smaller --num-gpus")
        return int(room)


class _Actor:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def do(self, task: Any) -> Any:
        """Run a task."""
        return guarded(self._function, task)
