"""`lidcam doctor --speed`: the engines that run an artifact here, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_cli.folders import find_pictures
from lidcam_rt.artifact import Manifest
from lidcam_rt.backends import BACKENDS, choose, manifest_of
from lidcam_rt.backends.base import engine_text
from lidcam_rt.errors import LidcamError
from lidcam_rt.loaded import Loaded
from lidcam_rt.loading import load
from lidcam_rt.prepared import Outputs, Prepared

__all__ = ["Candidate", "compare_engines"]

_PICTURES = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine, measured.

    Attributes:
        model: name of the file.
        backend: name of the engine, for `--backend`.
        precision: for `--precision`; `auto` where that is what the file has.
        engine: engine, version, device and precision; empty where it does not run.
        ms: median of a call for one picture, milliseconds.
        spread_ms: 10th and 90th percentile.
        same: share of pictures with the reference's class, or, for a segmentation network, of pixels with its label;
            the reference is the first candidate with the same task and classes that runs, perhaps this one. None if
            the label maps have different sizes.
        iou: mean IoU with the reference's masks at the network's size, or over the labels of its label maps; None if
            their sizes differ.
        auto: whether `backend="auto"` chooses it.
        why_not: why it does not run, or an empty text.
    """

    model: str
    backend: str
    precision: str
    engine: str = ""
    ms: float | None = None
    spread_ms: tuple[float, float] | None = None
    same: float | None = None
    iou: float | None = None
    auto: bool = False
    why_not: str = ""


def compare_engines(
    models: Sequence[Path], *, images: Path | None = None, device: str = "auto", threads: int = 0, seconds: float = 20
) -> list[Candidate]:
    """Run every installed engine on the same pictures, interleaved, so that other load affects all alike.

    Args:
        models: artifacts or engines; the first of those with the same task and classes is the reference.
        images: folder of pictures; None: synthetic ones, whose classes mean nothing.
        device: as for `lidcam_rt.load`.
        threads: of a call.
        seconds: how long to measure, all candidates together.

    Raises:
        LidcamError: a file or folder cannot be read.
    """
    candidates = [candidate for path in models for candidate in _candidates(path, device)]
    opened: list[tuple[int, Loaded, list[Prepared]]] = []
    with ExitStack() as stack:
        for number, (path, entry) in enumerate(candidates):
            try:
                loaded = stack.enter_context(
                    load(path, backend=entry.backend, precision=entry.precision, device=device, threads=threads)
                )
                prepared = _prepared(loaded, images)
                for picture in prepared[:2]:
                    loaded.pipeline.run([picture], outputs=_outputs(loaded))
            except LidcamError as error:
                candidates[number] = path, replace(entry, why_not=str(error))
                continue
            opened.append((number, loaded, prepared))
        times: dict[int, list[float]] = {number: [] for number, *_ in opened}
        outputs: dict[int, list[Outputs]] = {number: [] for number, *_ in opened}
        end, turn = time.perf_counter() + seconds, 0
        while turn < _PICTURES or time.perf_counter() < end:
            for number, loaded, prepared in opened:
                picture = prepared[turn % len(prepared)]
                start = time.perf_counter()
                got = loaded.pipeline.run([picture], outputs=_outputs(loaded))
                times[number].append(1e3 * (time.perf_counter() - start))
                if turn < len(prepared):
                    outputs[number].append(got)
            turn += 1
        for number, loaded, _ in opened:
            path, entry = candidates[number]
            sorted_times = sorted(times[number])
            reference = next(n for n, other, _ in opened if _kind(other) == _kind(loaded))
            agreement = _agreement_of_labels if loaded.manifest.task == "segmentation" else _agreement
            same, iou = agreement(outputs[reference], outputs[number])
            candidates[number] = path, replace(
                entry,
                engine=engine_text(loaded.backend),
                ms=statistics.median(sorted_times),
                spread_ms=(sorted_times[len(sorted_times) // 10], sorted_times[-1 - len(sorted_times) // 10]),
                same=same,
                iou=iou,
            )
    return [entry for _, entry in candidates]


def _candidates(path: Path, device: str) -> Iterator[tuple[Path, Candidate]]:
    """Every engine that loads such a file, in the file's precision and in others that can be requested."""
    manifest: Manifest = manifest_of(path)
    chosen = choose(path, device=device, arithmetic=manifest.arithmetic)
    for engine in BACKENDS:
        if engine.suffix != chosen.suffix:
            continue
        lower = ("auto", "bf16") if "bf16" in engine.precisions and manifest.arithmetic == "fp32" else ("auto",)
        for precision in lower:
            auto = engine is chosen and precision == "auto"
            yield path, Candidate(path.name, engine.name, precision, auto=auto)


def _outputs(loaded: Loaded) -> tuple[str, ...]:
    """The outputs of the graph that are compared."""
    return ("label_map",) if loaded.manifest.task == "segmentation" else ("class_ids", "map8", "threshold")


def _kind(loaded: Loaded) -> tuple[bool, Sequence[str]]:
    """What two networks must have in common for their results to be compared."""
    return loaded.manifest.task == "segmentation", tuple(loaded.class_names)


def _prepared(loaded: Loaded, images: Path | None) -> list[Prepared]:
    if images is not None:
        paths = find_pictures(images).paths
        sources: list[Any] = [paths[i * len(paths) // _PICTURES] for i in range(_PICTURES)]
    else:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (_PICTURES, 8, 8, 3), dtype=np.uint8)
        sources = [np.kron(picture, np.ones((48, 48, 1), np.uint8)) for picture in coarse]
    return [loaded.pipeline.prepare(source, keep_image=False) for source in sources]


def _agreement(reference: Sequence[Outputs], outputs: Sequence[Outputs]) -> tuple[float, float | None]:
    same = [bool(a["class_ids"][0, 0] == b["class_ids"][0, 0]) for a, b in zip(reference, outputs, strict=True)]
    ious = [_iou(_mask(a), _mask(b)) for a, b in zip(reference, outputs, strict=True)]
    known = [iou for iou in ious if iou is not None]
    return sum(same) / len(same), sum(known) / len(known) if len(known) == len(ious) else None


def _agreement_of_labels(
    reference: Sequence[Outputs], outputs: Sequence[Outputs]
) -> tuple[float | None, float | None]:
    pairs = [(a["label_map"][0], b["label_map"][0]) for a, b in zip(reference, outputs, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return None, None
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    ious = [_iou(one == label, other == label) for label in np.union1d(one, other)]
    known = [iou for iou in ious if iou is not None]
    return float((one == other).mean()), sum(known) / len(known)


def _mask(outputs: Outputs) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = outputs["map8"][0, 0] > outputs["threshold"][0, 0]
    return mask


def _iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float | None:
    if a.shape != b.shape:
        return None
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
