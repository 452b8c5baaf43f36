"""What a report says in words about the data, the classes and the conventions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.evaluation.options import NO_CLASS, EvalOptions
from lidcam_rt.artifact import Manifest
from lidcam_rt.crf import Refine

__all__ = ["FEW", "notes", "some"]

#: Pictures below which a bootstrap interval is called too uncertain: its ends are then a few pictures' own scores.
FEW = 30


def notes(
    manifest: Manifest,
    data: ImageSet,
    classes: tuple[int, ...] | None,
    options: EvalOptions,
    *,
    failures: int,
    without_object: int,
) -> Iterator[str]:
    """What readers of the numbers must know.

    Args:
        manifest: of the artifact.
        data: the data set.
        classes: of `class_map`.
        options: of the run.
        failures: number of pictures that could not be read.
        without_object: number of pictures whose mask has no object.
    """
    records = data.records[: options.limit]
    if manifest.source.random_weights:
        yield "The artifact has random weights: its numbers are meaningless."
    elif manifest.source.weights is None:
        yield "The artifact names no weights file: its weights may be random and the numbers meaningless."
    if classes is None:
        yield (
            "The model's classes are not those of the data: maps are those of whatever class the model predicts, "
            "and nothing about classification is counted."
        )
    elif NO_CLASS in classes:
        lacking = [n for n, i in zip(data.class_names, classes, strict=True) if i == NO_CLASS]
        yield (
            f"{len(lacking)} of the data's {len(classes)} classes are missing from the model "
            f"({some(tuple(lacking))}): their pictures are left out where classification or true classes are scored."
        )
    if failures:
        yield f"{failures} pictures could not be read and are excluded from every number."
    if options.replicates and len(records) - failures < FEW:
        yield (
            f"The intervals are over {len(records) - failures} pictures, which is too few: below {FEW} a bootstrap "
            "interval says little and is mostly too narrow."
        )
    yield from _of_truth(records, options, without_object)
    if any(len(record.labels) > 1 for record in records):
        yield (
            "Some pictures have several classes: the truth for maps and boxes is all their objects together; for "
            "the ground-truth class it is the first class's own objects where the masks tell them apart."
        )
    refine = Refine.of(options.refine)
    if refine is not None:
        yield (
            f"Maps, masks and boxes are those after a dense CRF ({refine.preset or 'own options'}, at "
            f"{refine.size} size): a map is the foreground's probability, and its own threshold is 127."
        )
    if "track1" in options.metrics and options.segment.refine is not None:
        yield "Label maps are refined at original size by a dense CRF of all their classes."
    yield (
        "Peaks and best thresholds are chosen on the very pictures that are scored. Boxes and maps are compared at "
        "original size, 8 bits per map pixel."
    )


def _of_truth(records: Sequence[Record], options: EvalOptions, without_object: int) -> Iterator[str]:
    """What the ground truth lacks, and what stands in for it."""
    total = len(records)
    masks, boxes, labels = (
        sum(bool(getattr(record, name)) for record in records) for name in ("mask", "boxes", "labels")
    )
    if not masks and {"track3", "track1"} & set(options.metrics):
        yield "No picture has a mask: nothing measured in pixels is counted."
    elif 0 < masks < total:
        yield f"{total - masks} of {total} pictures have no mask and are left out of everything measured in pixels."
    if without_object:
        yield f"{without_object} masks show no object: every pixel that a map marks there counts as wrong."
    if 0 < labels < total:
        yield f"{total - labels} of {total} pictures have no label and are left out where classification is scored."
    if "wsol" in options.metrics and masks:
        if not boxes:
            yield "The data has no boxes: the box around each mask is the truth for the box measures."
        elif any(record.mask is not None and not record.boxes for record in records):
            yield "Some pictures have no boxes: for these the box around the mask is the truth for the box measures."


def some(names: tuple[str, ...]) -> str:
    """The first three names, and how many there are."""
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} ... ({len(names)})" if len(names) > 3 else shown
