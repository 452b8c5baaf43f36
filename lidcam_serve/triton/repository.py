"""Writes a model repository for Triton Inference Server from an artifact."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidcam_rt.artifact import Manifest
from lidcam_rt.backends.outputs import OutputCheck
from lidcam_rt.errors import InputError, OutputError
from lidcam_rt.files import replacing
from lidcam_rt.image import MAX_PIXELS
from lidcam_rt.loading import load
from lidcam_serve.options import model_name
from lidcam_serve.triton import texts

__all__ = ["RepositoryOptions", "write_repository"]

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int64": "TYPE_INT64"}
_PICTURES = (
    ("class_id", "TYPE_INT64", (-1,)), ("class_name", "TYPE_STRING", (-1,)), ("score", "TYPE_FP32", (-1,)),
    ("box", "TYPE_INT64", (-1, 4)), ("threshold", "TYPE_FP32", (-1,)), ("mask", "TYPE_UINT8", (-1, -1, -1)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """What the repository configures.

    Attributes:
        name: name of the model; empty: the file's name.
        gpu: whether Triton runs the network on a GPU.
        max_batch: rows of a batch.
        max_delay: seconds that Triton may wait for a batch to fill.
        queue: requests that may wait.
        deadline: seconds that a request may wait.
        engine: a TensorRT engine, built from the same artifact, that Triton runs instead of it.
        ops_library: path of the operator library on Triton's machine; None: PaS runs in standard operators.
        refine: preset of the dense CRF in the model of pictures.
        max_pixels: pictures with more pixels are refused.
    """

    name: str = ""
    gpu: bool = False
    max_batch: int = 8
    max_delay: float = 0.002
    queue: int = 32
    deadline: float = 10.0
    engine: Path | None = None
    ops_library: str | None = None
    refine: str | None = None
    max_pixels: int = MAX_PIXELS


def write_repository(model: Path, output: Path, options: RepositoryOptions) -> list[Path]:
    """Write the repository; all of it or nothing.

    Args:
        model: an artifact of task localization or multilabel.
        output: a folder that does not exist yet, or is empty.
        options: what the repository configures.

    Returns:
        Its files.

    Raises:
        ArtifactError: the artifact cannot be used.
        InputError: it is a segmentation network, or the engine is not one of this artifact that Triton can run.
        OutputError: the folder already has files, or cannot be written.
    """
    from lidcam_rt.crf import Refine
    from lidcam_rt.segmentation import Segmenter

    Refine.of(options.refine)
    name = model_name(options.name, model)
    with load(model, device="cpu") as loaded:
        if isinstance(loaded, Segmenter):
            raise InputError(
                f"{model} is a segmentation network, and the repository's models localize: serve it with `lidcam serve`"
            )
        manifest = loaded.manifest
        declared = [str(entry["name"]) for entry in loaded.backend.outputs]
    if options.engine is not None:
        manifest, declared = _check_engine(options.engine, model, options.max_batch)
    outputs = {key: value for key, value in OutputCheck(manifest).outputs.items() if key in declared}
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output}: already exists. Choose another folder, or remove it")
    with replacing(output) as made:
        _write(made, model, name, manifest, outputs, options)
    return sorted(path for path in output.rglob("*") if path.is_file())


def _check_engine(engine: Path, model: Path, max_batch: int) -> tuple[Manifest, list[str]]:
    """The manifest of an engine, whose size may differ from its artifact's, and the names of its outputs.

    Raises:
        InputError: it was built from another artifact, Triton does not run it, or its batches are smaller.
    """
    from lidcam_rt.backends.engine_file import read_sidecar
    from lidcam_rt.files import file_sha256

    spec = read_sidecar(engine)
    if spec.artifact_sha256 != file_sha256(model):
        raise InputError(f"{engine} was built from another artifact than {model}: build it again from this one")
    if spec.flavour != "tensorrt":
        raise InputError(f"{engine} is for TensorRT for RTX, which Triton does not run: build it with TensorRT")
    largest = min(shapes.max[0] for shapes in spec.profile.values())
    if largest < max_batch:
        raise InputError(
            f"{engine} was built for batches of up to {largest}: use --max-batch {largest}, or build it for more"
        )
    return spec.read_manifest(engine), [entry.name for entry in spec.outputs]


def _dns(name: str) -> str:
    """A name that Kubernetes accepts for a service (RFC 1035): lower case, a letter first, at most 55 characters."""
    text = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    text = text if text[:1].isalpha() else f"m-{text}"
    return text[:55].rstrip("-")


def _write(
    made: Path, model: Path, name: str, manifest: Manifest, outputs: dict[str, Any], options: RepositoryOptions
) -> None:
    network, pictures = made / name, made / f"{name}_pictures"
    for folder in (network, pictures):
        (folder / "1").mkdir(parents=True)
    if options.engine is not None:
        shutil.copyfile(options.engine, network / "1" / "model.plan")
    else:
        shutil.copyfile(model, network / "1" / "model.onnx")
    (network / "config.pbtxt").write_text(_network_config(name, manifest, outputs, options), encoding="utf-8")
    (pictures / "config.pbtxt").write_text(_pictures_config(name, manifest), encoding="utf-8")
    (pictures / "1" / "model.py").write_text(texts.MODEL_PY, encoding="utf-8")
    told = {
        "network": name, "refine": options.refine, "max_pixels": options.max_pixels, "metadata": manifest.to_metadata(),
    }  # fmt: skip
    (pictures / "1" / "lidcam.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    values = {"@NAME@": name, "@DNS@": _dns(name), "@GPU@": ""}
    for file, text in (
        ("README.md", texts.README),
        ("kserve.yaml", texts.KSERVE),
        ("kubernetes.yaml", texts.KUBERNETES),
    ):
        lines = [line for line in text.splitlines(keepends=True) if options.gpu or "@GPU@" not in line]
        content = "".join(lines)
        for key, value in values.items():
            content = content.replace(key, value)
        (made / file).write_text(content, encoding="utf-8")


def _tensor(name: str, kind: str, sides: Sequence[int | None]) -> str:
    dims = ", ".join("-1" if side is None else str(side) for side in sides)
    return f'  {{ name: "{name}" data_type: {kind} dims: [ {dims} ] }}'


def _network_config(name: str, manifest: Manifest, outputs: dict[str, Any], options: RepositoryOptions) -> str:
    spec, k = manifest.input, manifest.top_k
    size = [spec.height, spec.width]
    inputs = [("image", _TYPES[spec.dtype], [*size, 3] if spec.layout == "NHWC" else [3, *size])]
    if manifest.labels_input:
        inputs.append(("labels", "TYPE_INT64", [k]))
    warm = [
        f'    inputs {{ key: "{entry}" value {{ data_type: {kind} dims: [ {", ".join(map(str, sides))} ] '
        "zero_data: true } }"
        for entry, kind, sides in inputs
    ]
    plan = options.engine is not None
    lines = [
        f'name: "{name}"',
        'platform: "tensorrt_plan"' if plan else 'backend: "onnxruntime"',
        f'default_model_filename: "{"model.plan" if plan else "model.onnx"}"',
        f"max_batch_size: {options.max_batch}",
        "input [", ",\n".join(_tensor(*entry) for entry in inputs), "]",
        "output [",
        ",\n".join(_tensor(entry, _TYPES[kind], sides) for entry, (kind, sides) in outputs.items()),
        "]",
        "dynamic_batching {",
        f"  max_queue_delay_microseconds: {round(options.max_delay * 1e6)}",
        "  default_queue_policy {",
        "    timeout_action: REJECT",
        f"    default_timeout_microseconds: {round(options.deadline * 1e6)}",
        f"    max_queue_size: {options.queue}",
        "  }",
        "}",
        f"instance_group [ {{ count: 1 kind: {'KIND_GPU' if options.gpu or plan else 'KIND_CPU'} }} ]",
    ]  # fmt: skip
    for batch in sorted({1, options.max_batch}):
        lines += ["model_warmup {", f'  name: "batch of {batch}"', f"  batch_size: {batch}"]
        lines += [line[2:] for line in warm]
        lines += ["}"]
    if options.ops_library is not None and not plan:
        if not options.ops_library.startswith("/") or any(c in options.ops_library for c in '"\\\n'):
            raise InputError(
                f"the operator library must be an absolute path on Triton's machine: {options.ops_library}"
            )
        lines.append(f'model_operations {{ op_library_filename: [ "{options.ops_library}" ] }}')
    return "\n".join(lines) + "\n"


def _pictures_config(name: str, manifest: Manifest) -> str:
    inputs = [("picture", "TYPE_STRING", [1])]
    optional = ""
    if manifest.labels_input:
        optional = ',\n  { name: "labels" data_type: TYPE_INT64 dims: [ -1 ] optional: true }'
    lines = [
        f'name: "{name}_pictures"',
        'backend: "python"',
        "max_batch_size: 0",
        "input [", ",\n".join(_tensor(*entry) for entry in inputs) + optional, "]",
        "output [", ",\n".join(_tensor(*entry) for entry in _PICTURES), "]",
        "instance_group [ { count: 4 kind: KIND_CPU } ]",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
