"""Targets: what is measured, and how it is opened."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from lidcam_bench.latency.facts import Fact
from lidcam_rt.errors import InputError, MissingExtraError
from lidcam_rt.loading import load
from lidcam_rt.localizer import Localizer
from lidcam_rt.segmentation import Segmenter
from lidcam_rt.text import plain

__all__ = ["PYTORCH", "Target", "open_target", "same_network"]

#: Engines that are not of the runtime's registry: a checkpoint in PyTorch, the baseline.
PYTORCH = ("pytorch", "torch-compile")

Scope = Literal["end-to-end", "inference"]
PipelineName = Literal["track3", "track1"]


class Target(Fact):
    """One way to run one target.

    Attributes:
        path: an artifact, an engine, or a checkpoint.
        label: its name in reports; by default the file's name.
        engine: of the runtime's registry, `pytorch`, `torch-compile`, or `auto`.
        precision: requested of the engine, or `auto`: the file's.
        device: as for `lidcam_rt.load`.
        threads: per call of the network; 0: one per core, the runtime's choice.
        batch: pictures per call of the network.
        refine: preset of the dense CRF, or None.
        pipeline: `track3` or `track1`.
    """

    path: Path
    label: str = ""
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    batch: int = 1
    refine: str | None = None
    pipeline: PipelineName = "track3"

    @property
    def name(self) -> str:
        """The target's name, on one line and in printable characters."""
        return plain(self.label or self.path.name).replace("\n", "\\n")

    @property
    def key(self) -> str:
        """What was requested, in words: the same in another run of the same command."""
        parts = [self.name]
        parts += [part for part in (self.engine, self.precision, self.device) if part != "auto"]
        parts += [f"{self.threads} {'thread' if self.threads == 1 else 'threads'}"] if self.threads else []
        parts += [f"batch {self.batch}"] if self.batch != 1 else []
        parts += [f"CRF {self.refine}"] if self.refine else []
        parts += ["Track 1"] if self.pipeline == "track1" else []
        return ", ".join(parts)

    @property
    def is_checkpoint(self) -> bool:
        """Whether PyTorch runs it."""
        return _runner(self.path) is not None


def _runner(path: Path) -> EntryPoint | None:
    """The entry point of the group `lidcam.runners` that opens such a path."""
    kind = "checkpoint" if path.is_dir() else path.suffix.lower().lstrip(".")
    return next((entry for entry in entry_points(group="lidcam.runners") if entry.name == kind), None)


def same_network(one: Target, other: Target) -> bool:
    """Whether two targets return the same maps: the same file, run by the same engine in the same precision."""
    return all(getattr(one, name) == getattr(other, name) for name in ("path", "engine", "precision", "device"))


def open_target(target: Target) -> Localizer | Segmenter:
    """Open a target: a classifier, or a segmentation network.

    Raises:
        InputError: engine, precision or threads do not fit the file.
        LidcamError: the opener failed.
    """
    runner = _runner(target.path)
    if runner is None:
        if target.engine in PYTORCH:
            raise InputError(
                f"{target.path.name}: {target.engine} runs checkpoints; give the artifact's checkpoint folder as a "
                "target too"
            )
        return load(
            target.path,
            backend=target.engine,
            device=target.device,
            threads=target.threads,
            precision=target.precision,
        )
    if target.engine not in (*PYTORCH, "auto"):
        raise InputError(
            f"{target.path.name}: a checkpoint runs on {' or '.join(PYTORCH)}, but {target.engine} was requested: "
            "export it"
        )
    if target.precision not in ("auto", "fp32"):
        raise InputError(f"{target.path.name}: checkpoints run in fp32, but {target.precision} was requested")
    try:
        opener: Callable[..., Any] = runner.load()
    except ImportError as error:
        raise MissingExtraError(
            f"running {target.path.name} in PyTorch", "export", (error.name or str(error),)
        ) from None
    options = {"compiled": target.engine == "torch-compile", "kernels": True, "threads": target.threads}
    known = inspect.signature(opener).parameters
    if target.engine == "torch-compile" and "compiled" not in known:
        raise InputError(f"{target.path.name}: {runner.value} does not know torch.compile; use the engine pytorch")
    opened = opener(target.path, **{name: value for name, value in options.items() if name in known})
    if not isinstance(opened, Localizer):
        raise InputError(f"{target.path.name}: {runner.value} returns no Localizer whose steps could be timed")
    return opened
