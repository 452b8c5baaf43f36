"""The options of a request to `/v1`, and the job that answers it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt import defaults
from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.base import Stop
from lidcam_rt.crf import Refine
from lidcam_rt.crf.stop import stoppable
from lidcam_rt.errors import InputError
from lidcam_rt.interop import coco_rle
from lidcam_rt.localizer import Localizer
from lidcam_rt.pipeline import OUTPUTS
from lidcam_rt.prepared import Outputs, Prepared
from lidcam_rt.results import Localization
from lidcam_rt.segmentation import SEGMENT_OUTPUTS, Segmenter
from lidcam_rt.segmenter import CamSegmenter, Segmentation, SegmentOptions
from lidcam_serve.batching import Job
from lidcam_serve.errors import Unprocessable, without_advice
from lidcam_serve.models import Model

__all__ = ["Answer", "Ask", "class_ids", "localize_job", "segment_job"]

_LOCALIZE_FORMS = ("json", "overlay", "mask", "map")
_SEGMENT_FORMS = ("json", "overlay", "labels")


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer."""

    body: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Options of a request; all come as text, in the query or as form fields.

    Attributes:
        model: name; empty: the server's first.
        version: empty: the newest.
        labels: classes to localize, by name or number, separated by commas; empty: the predicted ones.
        top_k: how many predicted classes to localize.
        refine: preset of the dense CRF; `none`: no CRF; empty: the server's setting.
        mask: whether to include the mask, as COCO run lengths.
        map: whether to include the map, as a PNG in base64, with the histogram that PaS takes its percentile from.
        form: `json`, `overlay`, `mask`, `map`, `labels`; empty: by the header Accept.
    """

    model: str = ""
    version: str = ""
    labels: str = ""
    top_k: int = 1
    refine: str = ""
    mask: bool = False
    map: bool = False
    form: str = ""

    @classmethod
    def of(cls, given: Iterable[tuple[str, str]]) -> Ask:
        """From names and texts.

        Raises:
            Unprocessable: a name is unknown or comes twice, or a value has the wrong type.
        """
        known = {entry.name: entry.type for entry in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in given:
            if name in values:
                raise Unprocessable(f"{name} is given twice{': separate them by commas' if name == 'labels' else ''}")
            if name not in known:
                raise Unprocessable(f"unknown option {name[:64]!r}: the options are {', '.join(known)}")
            if len(text) > 4096:
                raise Unprocessable(f"{name} is too long")
            values[name] = _value(name, text, str(known[name]))
        return cls(**values)


def _value(name: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("1", "0", "true", "false", ""):
            raise Unprocessable(f"{name} must be 1 or 0, got {text[:64]!r}")
        return text.lower() in ("1", "true")
    if kind == "int":
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise Unprocessable(f"{name} must be a whole number, got {text[:64]!r}")
        return int(text)
    return text


def class_ids(text: str, names: Sequence[str]) -> tuple[int, ...] | None:
    """Classes by name or number, separated by commas; None for an empty text.

    Raises:
        Unprocessable: a class is neither.
    """
    if not text:
        return None
    if text in names:  # a name with a comma in it
        return (names.index(text),)
    ids = []
    for part in (part.strip() for part in text.split(",")):
        if part in names:
            ids.append(names.index(part))
        elif part.isascii() and part.isdigit() and len(part) <= 9:
            ids.append(int(part))
        else:
            raise Unprocessable(f"the model has no class {part[:64]!r}")
    return tuple(ids)


def refinement(ask: str, default: str | None, manifest: Manifest | None = None) -> Refine | None:
    """The CRF of a request: the one it names, else the server's, else that of the artifact's manifest, if given.

    Raises:
        Unprocessable: no such preset.
    """
    name = ask or default or None
    try:
        return Refine.of(name) if manifest is None else defaults.refinement(manifest, name)
    except InputError as error:
        raise Unprocessable(without_advice(str(error))) from None


def _form(ask: Ask, accept: str, forms: Sequence[str]) -> str:
    preferred = _quality(accept, "image/png") > _quality(accept, "application/json")
    form = ask.form or ("overlay" if preferred else "json")
    if form not in forms:
        raise Unprocessable(f"form must be one of {', '.join(forms)}, got {form[:64]!r}")
    return form


def _quality(accept: str, kind: str) -> float:
    """How much a client wants a media type, 0 to 1, by its header Accept (RFC 9110, section 12.5.1)."""
    ranges = ("*/*", kind.partition("/")[0] + "/*", kind)
    best = (-1, 0.0)  # the most specific range counts, and its quality
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        if name not in ranges:
            continue
        given = [text[2:] for text in parameters if text.startswith("q=")]
        try:
            quality = min(1.0, max(0.0, float(given[0]))) if given else 1.0
        except ValueError:
            quality = 0.0
        best = max(best, (ranges.index(name), quality))
    return best[1]


def localize_job(
    model: Model, ask: Ask, data: bytes, *, accept: str, refine: str | None, deadline: float, head: dict[str, Any]
) -> Job:
    """The job of a request for a localization.

    Args:
        model: what localizes.
        ask: the request's options.
        data: the picture's file.
        accept: the header of that name.
        refine: the server's CRF.
        deadline: `time.monotonic()` when nobody waits any more.
        head: the first entries of a JSON answer.

    Raises:
        Unprocessable: an option does not fit the model.
        InputError: labels or top_k are out of range.
    """
    if model.segments:
        raise Unprocessable(f"{model.spec.name} is a segmentation network: use POST /v1/segment")
    form = _form(ask, accept, _LOCALIZE_FORMS)
    how = refinement(ask.refine, refine, model.manifest)
    wanted = model.pipeline.wanted(class_ids(ask.labels, model.manifest.class_names), ask.top_k)
    stop = Stop()

    def finish(prepared: Sequence[Prepared], outputs: Outputs, row: int) -> Answer:
        make = partial(model.pipeline.finish, prepared[0], outputs, row, len(wanted), how)
        result = make() if how is None else stoppable(stop, make)
        if form == "overlay":
            return Answer(_png(result.overlay()), "image/png")
        if form == "mask":
            return Answer(_png(result.mask.astype(np.uint8) * np.uint8(255)), "image/png")
        if form == "map":
            return Answer(_png(result.map), "image/png")
        return Answer(_json({**head, **_localization(result, ask, outputs["map8"][row])}), "application/json")

    views = defaults.views(model.manifest, None)
    prepare = partial(model.pipeline.prepare, keep_image=form == "overlay", refine=how, augment=views)
    return Job(lambda: (prepare(data),), (wanted,), OUTPUTS, finish, deadline, stop=stop)


def _localization(result: Localization, ask: Ask, maps: npt.NDArray[np.uint8]) -> dict[str, Any]:
    out = result.to_dict()
    del out["image"]
    entries = [out, *out.get("others", ())]
    for rank, (entry, found) in enumerate(zip(entries, (result, *result.others), strict=True)):
        entry |= _pixels(found, ask, maps[rank])
        if found.unrefined is not None:
            before = found.unrefined
            entry["unrefined"] = {
                "box": list(before.box) if before.box else None,
                "mask_pixels": int(np.count_nonzero(before.mask)),
                "threshold": before.threshold,
                **_pixels(before, ask, maps[rank]),
            }
    return out


def _pixels(found: Localization, ask: Ask, map8: npt.NDArray[np.uint8]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if ask.mask:
        out["mask"] = coco_rle(found.mask)
    if ask.map:
        out["map"] = {"png": base64.b64encode(_png(found.map)).decode("ascii")}
        if found.crf is None:
            out["map"]["histogram"] = np.bincount(map8.ravel(), minlength=256).tolist()
    return out


def segment_job(
    model: Model, ask: Ask, data: bytes, *, accept: str, refine: str | None, deadline: float, head: dict[str, Any]
) -> Job:
    """The job of a request for a label map; arguments and errors as for `localize_job`."""
    form = _form(ask, accept, _SEGMENT_FORMS)
    if ask.top_k != 1:
        raise Unprocessable("top_k is an option of /v1/localize: a label map has whichever classes are present")
    how = refinement(ask.refine, refine)
    labels = class_ids(ask.labels, model.manifest.class_names)
    pipeline, loaded, stop = model.pipeline, model.loaded, Stop()
    keep = form == "overlay"
    if isinstance(loaded, Segmenter):
        if labels is not None:
            raise Unprocessable(f"{model.spec.name} is a segmentation network: it takes no labels")
        wanted: tuple[int, ...] = (-1,)
        segmenter = None
    else:
        limit = model.manifest.top_k
        wanted = pipeline.wanted(None, limit) if labels is None else pipeline.wanted(labels[:limit])
        if labels is not None:
            for class_id in labels[limit:]:
                pipeline.wanted(class_id)
        segmenter = CamSegmenter(loaded, SegmentOptions(refine=how))

    def finish(prepared: Sequence[Prepared], outputs: Outputs, row: int) -> Answer:
        def make() -> Segmentation:
            entry = prepared[0]
            if segmenter is None:
                assert isinstance(loaded, Segmenter)
                return loaded.finish(entry, outputs, row, refine=how)
            assert isinstance(loaded, Localizer) and entry.picture is not None
            return segmenter.complete(entry.picture, pipeline.finish(entry, outputs, row, len(wanted)), labels=labels)

        result = make() if how is None else stoppable(stop, make)
        if form == "overlay":
            return Answer(_png(result.overlay(legend=True)), "image/png")
        if form == "labels":
            return Answer(_png(result.labels), "image/png")
        out = result.to_dict()
        del out["image"]
        if ask.mask:
            for entry in out["classes"]:
                entry["mask"] = coco_rle(result.labels == entry["label"])
        if ask.map:
            out["labels_png"] = base64.b64encode(_png(result.labels)).decode("ascii")
        return Answer(_json({**head, **out}), "application/json")

    prepare = partial(pipeline.prepare, keep_image=keep or segmenter is not None, refine=how)
    names = SEGMENT_OUTPUTS if segmenter is None else OUTPUTS
    return Job(lambda: (prepare(data),), (wanted,), names, finish, deadline, stop=stop)


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    from lidcam_rt.drawing import encode

    return encode(picture, ".png")


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
