"""Export: build the artifact under a temporary name, compare it with PyTorch, then give it its name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from pydantic import ValidationError

from lidcam_export.graph.localization import LocalizationGraph, build_model
from lidcam_export.graph.operator import OPSET
from lidcam_export.sources.source import load_source
from lidcam_rt.artifact import CamSpec, InputSpec, Manifest
from lidcam_rt.errors import ExportError, InputError
from lidcam_rt.files import file_sha256, replacing, write_atomically
from lidcam_rt.image import network_input
from lidcam_rt.pas import PasOptions, pas_reference
from lidcam_rt.version import __version__

__all__ = ["Agreement", "ExportOptions", "export_artifact", "sample_pictures"]


@dataclass(frozen=True)
class ExportOptions:
    """What an artifact is made with; None takes the source's own value.

    Attributes:
        size: (height, width) of the input in pixels.
        stride: pixels per cell of the map: removes strides of the last stage.
        pooling: `gap` or `tap`.
        tap_threshold: for tap, share of a channel's maximum.
        nwc: clamp negative weights for the map.
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
        mode: of PaS, `threshold` or `normalize`.
        pas_precision: of PaS, `uint8` or `float`.
        pas_where: of PaS, `resized` or `raw`.
        pas_interpolation: of PaS, how the map is resized: `cubic` or `linear`.
        top_k: maps per picture.
        class_names: one per class.
        input_dtype: `uint8` (normalisation in the graph) or `float32`.
        labels_input: give the graph an input for ground-truth classes.
        weights_license: recorded in the manifest.
        dynamic_size: leave height and width free where the network allows.
    """

    size: tuple[int, int] | None = None
    stride: int | None = None
    pooling: str | None = None
    tap_threshold: float | None = None
    nwc: bool | None = None
    percentile: float | None = None
    theta: float | None = None
    mode: str = "threshold"
    pas_precision: str = "uint8"
    pas_where: str = "resized"
    pas_interpolation: str = "cubic"
    top_k: int = 1
    class_names: tuple[str, ...] | None = None
    input_dtype: str = "uint8"
    labels_input: bool = True
    weights_license: str | None = None
    dynamic_size: bool = True


@dataclass(frozen=True)
class Agreement:
    """How far the file in ONNX Runtime is from PyTorch, on `pictures` pictures.

    Attributes:
        pictures: how many, and whether they are photos.
        logits: largest absolute difference over the largest absolute logit.
        cam: the same of the activation maps.
        map: largest difference of a byte of the localization map.
        mask_flipped: share of mask pixels that differ.
        top1: share of pictures with the same class.
    """

    pictures: str
    logits: float
    cam: float
    map: int
    mask_flipped: float
    top1: float


def sample_pictures() -> tuple[list[np.ndarray], str]:
    """Pictures that comparisons run on, uint8 [H, W, 3], and what they are."""
    try:
        from skimage import data

        return [data.astronaut(), data.chelsea(), data.coffee()], "3 photos of scikit-image"
    except ImportError:
        rng = np.random.default_rng(0)
        coarse = [rng.integers(0, 256, (7, 7, 3), dtype=np.uint8) for _ in range(3)]
        smooth = [cv2.resize(p, (320, 240), interpolation=cv2.INTER_CUBIC) for p in coarse]
        return smooth, "3 made pictures (scikit-image is not installed)"


def _compare(path: Path, graph: LocalizationGraph, manifest: Manifest) -> Agreement:
    """The worst of: all pictures at the declared size; where that is free, one at another size, its class given."""
    pictures, kind = sample_pictures()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = [_difference(session, graph, manifest, manifest.input, pictures, None)]
    if manifest.input.dynamic_size:
        spec = manifest.input
        size = {"height": spec.height + spec.height // 4 + 1, "width": spec.width + spec.width // 3 + 3}
        given = 0 if manifest.labels_input else None
        found.append(_difference(session, graph, manifest, spec.model_copy(update=size), pictures[:1], given))
    worst = [max(column) for column in zip(*(entry[:-1] for entry in found), strict=True)]
    return Agreement(kind, worst[0], worst[1], int(worst[2]), worst[3], min(entry[-1] for entry in found))


def _difference(
    session: ort.InferenceSession,
    graph: LocalizationGraph,
    manifest: Manifest,
    spec: InputSpec,
    pictures: list[np.ndarray],
    label: int | None,
) -> tuple[float, float, float, float, float]:
    images = np.stack([network_input(picture, spec) for picture in pictures])
    feeds: dict[str, Any] = {"image": images}
    if manifest.labels_input:
        feeds["labels"] = np.full((len(images), manifest.top_k), -1 if label is None else label, np.int64)
    logits, ids, cam, map8, mask = session.run(["logits", "class_ids", "cam", "map8", "mask"], feeds)
    with torch.no_grad():
        expected = graph(*(torch.from_numpy(value) for value in feeds.values()))
    want_logits, want_ids, want_cam = (expected[i].numpy() for i in (0, 1, 3))
    want = pas_reference(want_cam, map8.shape[2:], manifest.pas)

    def relative(got: np.ndarray, reference: np.ndarray) -> float:
        return float(np.abs(got - reference).max() / max(float(np.abs(reference).max()), 1e-12))

    return (
        relative(logits, want_logits),
        relative(cam, want_cam),
        float(np.abs(map8.astype(int) - want.map).max()),
        float((mask.astype(bool) != want.mask).mean()),
        float((ids[:, 0] == want_ids[:, 0]).mean()),
    )


def _manifest(source: Any, options: ExportOptions) -> Manifest:
    known = source.defaults
    size = options.size or known["size"]
    height, width = (size, size) if isinstance(size, int) else size
    pooling = options.pooling or known.get("pooling", "gap")
    tap = options.tap_threshold if options.tap_threshold is not None else known.get("tap_threshold")
    names = options.class_names or source.class_names
    if len(names) != len(source.weight):
        raise ExportError(
            f"{len(names)} class names for a classifier of {len(source.weight)} classes: give one each"
        )
    if options.tap_threshold is not None and pooling != "tap":
        raise ExportError("a TAP threshold was given, but pooling is gap: add --pooling tap")

    def pick(given: Any, name: str, default: Any) -> Any:
        return given if given is not None else known.get(name, default)

    with torch.no_grad():
        cells = source.features(torch.zeros(1, 3, 128, 128)).shape[-1]
    try:
        return Manifest(
            task=known.get("task", "localization"),
            input=InputSpec(
                dtype=options.input_dtype,
                layout="NHWC" if options.input_dtype == "uint8" else "NCHW",
                height=height,
                width=width,
                dynamic_size=options.dynamic_size,
                mean=known["mean"],
                std=known["std"],
                interpolation=known["interpolation"],
            ),
            class_names=names,
            top_k=options.top_k,
            labels_input=options.labels_input,
            cam=CamSpec(
                nwc=pick(options.nwc, "nwc", True),
                pooling=pooling,
                tap_threshold=(0.05 if tap is None else tap) if pooling == "tap" else None,
                stride=128 // cells,
            ),
            pas=PasOptions(
                percentile=pick(options.percentile, "percentile", 98.0),
                theta=pick(options.theta, "theta", 0.35),
                mode=options.mode,
                precision=options.pas_precision,
                where=options.pas_where,
                interpolation=options.pas_interpolation,
            ),
            source=source.spec,
            weights_license=pick(options.weights_license, "weights_license", None),
            package_version=__version__,
            opset=OPSET,
        )
    except InputError as error:
        raise ExportError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        given = f", got {first['input']!r}" if name else ""
        raise ExportError(f"{name or 'options'}: {first['msg'][:1].lower()}{first['msg'][1:]}{given}") from None


def export_artifact(
    source_text: str, output: Path, options: ExportOptions | None = None, *, weights: Path | None = None
) -> tuple[Manifest, Agreement]:
    """Export a classifier as an artifact.

    Args:
        source_text: a checkpoint folder, or one of the forms that `load_source` knows.
        output: the .onnx file; `output.export.json` beside it gets the figures of the comparison and the file's
            SHA-256.
        options: what to make it with.
        weights: state dict for sources that bring none.

    Raises:
        ExportError: the source cannot be exported, or the file does not agree with PyTorch.
        OutputError: the file cannot be written.
    """
    options = options or ExportOptions()
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: the artifact's name must end in .onnx")
    source = load_source(source_text, weights=weights, stride=options.stride)
    source.module.eval()
    manifest = _manifest(source, options)
    model, manifest, graph = _build(source, manifest)
    with replacing(output) as temporary:
        onnx.save(model, str(temporary))
        agreement = _compare(temporary, graph, manifest)
        if (
            agreement.top1 < 1
            or agreement.logits > 1e-3
            or agreement.cam > 1e-3
            or agreement.mask_flipped > 1e-3
        ):
            raise ExportError(
                f"the exported graph does not agree with PyTorch, nothing was written: {agreement}"
            )
        figures = {
            "artifact_sha256": file_sha256(temporary),
            "agreement": asdict(agreement),
            "versions": {"lidcam_rt": __version__, "torch": torch.__version__, "onnxruntime": ort.__version__},
        }
        write_atomically(
            output.with_name(output.name + ".export.json"), json.dumps(figures, indent=1).encode() + b"\n"
        )
    return manifest, agreement


def _build(source: Any, manifest: Manifest) -> tuple[onnx.ModelProto, Manifest, LocalizationGraph]:
    """Build with free height and width where the network allows, else with fixed ones."""
    graph = LocalizationGraph(source, manifest).eval()
    if manifest.input.dynamic_size:
        try:
            return build_model(graph, dynamic_size=True), manifest, graph
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            manifest = manifest.model_copy(
                update={"input": manifest.input.model_copy(update={"dynamic_size": False})}
            )
            graph.manifest = manifest
            print(f"note: height and width stay fixed, the network does not trace with free ones ({reason})")
    try:
        return build_model(graph, dynamic_size=False), manifest, graph
    except Exception as error:
        raise ExportError(
            f"{manifest.source.name}: torch.onnx cannot trace it: {str(error)[:500]}"
        ) from error
