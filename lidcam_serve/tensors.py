"""The Open Inference Protocol (KServe V2) without its transports: models as tensors in and tensors out.

Each artifact is two models. NAME is the artifact's graph, with its inputs and outputs. NAME_pictures takes the files of
pictures (input `picture`, BYTES) and returns what a `Localizer` returns.
Source: https://kserve.github.io/website, "Open Inference Protocol (V2)", with Triton's binary tensor extension.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.backends.base import Stop
from lidcam_rt.crf.stop import stoppable
from lidcam_rt.defaults import views
from lidcam_rt.pipeline import OUTPUTS
from lidcam_rt.prepared import Outputs, Prepared
from lidcam_rt.results import Localization
from lidcam_rt.segmentation import SEGMENT_OUTPUTS, Segmenter
from lidcam_serve.asks import refinement
from lidcam_serve.batching import Job
from lidcam_serve.errors import BadRequest, Unprocessable
from lidcam_serve.models import Model, Models
from lidcam_serve.options import PICTURES

__all__ = [
    "InferRequest",
    "Tensor",
    "as_array",
    "by_name",
    "check_output",
    "describe_model",
    "infer_job",
    "split_name",
]

DTYPES: dict[str, str] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}
#: Parameters of a request; tritonclient may send the first three for any model.
_PARAMETERS = ("binary_data_output", "priority", "timeout", "refine", "top_k")
#: What Triton can do for an output and this server cannot: clients would take an answer without it for one with it.
_NOT_DONE = ("classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_MAX_ROWS = 64
_MAX_AREA = 16  # times the size that the artifact was exported for


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor with a name.

    Attributes:
        name: of an input or output.
        data: an array; for BYTES an object array of bytes.
    """

    name: str
    data: npt.NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of its type."""
        return "BYTES" if self.data.dtype == object else _NAMES[self.data.dtype]


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A request, over whichever transport it came.

    Attributes:
        inputs: by name.
        outputs: names of those wanted; empty: all, except masks and maps of a model of pictures.
        parameters: `refine` and `top_k` of a model of pictures.
    """

    inputs: Mapping[str, Tensor]
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


def by_name(tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """Inputs by name.

    Raises:
        BadRequest: a name comes twice.
    """
    out: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name in out:
            raise BadRequest(f"input {tensor.name[:64]!r} is given twice")
        out[tensor.name] = tensor
    return out


def check_output(name: str, parameters: Iterable[str]) -> str:
    """The name of a requested output.

    Raises:
        BadRequest: it is requested in a form that is not supported.
    """
    for key in parameters:
        if key in _NOT_DONE:
            raise BadRequest(f"output {name[:64]!r}: {key} is not supported; leave it out")
    return name


def as_array(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> npt.NDArray[Any]:
    """A tensor from its raw bytes (little endian; BYTES: each element after its length as uint32).

    Raises:
        BadRequest: type, shape and bytes do not match.
    """
    count = element_count(name, shape)
    if datatype == "BYTES":
        return _elements(name, shape, count, memoryview(data))
    if datatype not in DTYPES:
        raise BadRequest(f"input {name}: unknown datatype {datatype[:16]!r}")
    dtype = np.dtype(DTYPES[datatype])
    if len(data) != count * dtype.itemsize:
        raise BadRequest(f"input {name}: {datatype} {list(shape)} has {count * dtype.itemsize} bytes, got {len(data)}")
    return np.frombuffer(data, dtype).reshape(tuple(shape))


def element_count(name: str, shape: Sequence[int]) -> int:
    """The number of elements of a shape.

    Raises:
        BadRequest: it is not a shape.
    """
    if len(shape) > 8 or any(isinstance(s, bool) or not isinstance(s, int) or not 0 <= s < 1 << 31 for s in shape):
        raise BadRequest(f"input {name}: a shape must be up to 8 whole numbers")
    return math.prod(shape)


def _elements(name: str, shape: Sequence[int], count: int, data: memoryview) -> npt.NDArray[Any]:
    if count > _MAX_ROWS:
        raise BadRequest(f"input {name}: at most {_MAX_ROWS} elements of BYTES")
    out, at = np.empty(count, object), 0
    for i in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + length > len(data):
            raise BadRequest(f"input {name}: its BYTES end before element {i} does")
        out[i] = bytes(data[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(data):
        raise BadRequest(f"input {name}: {len(data) - at} bytes are left over after its {count} elements")
    return out.reshape(tuple(shape))


def raw_bytes(array: npt.NDArray[Any]) -> bytes:
    """What `as_array` reads."""
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(len(entry).to_bytes(4, "little") + entry for entry in array.ravel())


def split_name(models: Models, name: str) -> tuple[str, bool]:
    """Name of the artifact, and whether its model of pictures is meant."""
    names = {model.spec.name for model in models.all()}
    if name not in names and name.endswith(PICTURES):
        return name.removesuffix(PICTURES), True
    return name, False


def describe_model(model: Model, pictures: bool, versions: Sequence[str]) -> dict[str, Any]:
    """The metadata of a model in the protocol's form."""
    spec, k = model.manifest.input, model.manifest.top_k
    engine = model.pipeline.backend.name.split()[0]
    if pictures:
        inputs = [("picture", "BYTES", [-1])]
        if model.segments:
            outputs = [("label_map", "UINT8", [-1, -1, -1])]
        else:
            outputs = [
                ("class_id", "INT64", [-1, -1]), ("class_name", "BYTES", [-1, -1]), ("score", "FP32", [-1, -1]),
                ("box", "INT64", [-1, -1, 4]), ("threshold", "FP32", [-1, -1]), ("mask", "UINT8", [-1, -1, -1, -1]),
                ("map", "UINT8", [-1, -1, -1, -1]),
            ]  # fmt: skip
            if model.manifest.labels_input:
                inputs.append(("labels", "INT64", [-1, -1]))
    else:
        size = [-1, -1] if spec.dynamic_size else [spec.height, spec.width]
        image = [-1, *size, 3] if spec.layout == "NHWC" else [-1, 3, *size]
        inputs = [("image", "UINT8" if spec.dtype == "uint8" else "FP32", image)]
        if model.manifest.labels_input:
            inputs.append(("labels", "INT64", [-1, k]))
        outputs = []
        for name in model.outputs:
            dtype, shape = model.pipeline.check.outputs[name]
            free = spec.dynamic_size and name in ("map8", "mask", "label_map")
            sides = [*shape[:-2], None, None] if free else shape
            outputs.append((name, _NAMES[np.dtype(dtype)], [-1, *(-1 if side is None else side for side in sides)]))

    def listed(entries: Sequence[tuple[str, str, list[int]]]) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in entries]

    return {
        "name": model.spec.name + (PICTURES if pictures else ""),
        "versions": list(versions),
        "platform": f"{engine}_lidcam",
        "inputs": listed(inputs),
        "outputs": listed(outputs),
    }


def infer_job(model: Model, pictures: bool, request: InferRequest, *, refine: str | None, deadline: float) -> Job:
    """The job of an inference request; its result is a list of tensors.

    Raises:
        BadRequest: an input or output is not the model's, or has another type or shape.
        Unprocessable: a parameter is refused.
        InputError: a label is out of range.
    """
    for name in request.parameters:
        if name not in _PARAMETERS:
            raise BadRequest(f"unknown parameter {name[:64]!r}: the parameters are {', '.join(_PARAMETERS)}")
    if len(set(request.outputs)) < len(request.outputs):
        raise BadRequest("an output is requested twice")
    deadline = min(deadline, _timeout(request.parameters.get("timeout")))
    known = {entry["name"]: entry for entry in describe_model(model, pictures, ())["inputs"]}
    for name, tensor in request.inputs.items():
        if name not in known:
            raise BadRequest(f"unknown input {name[:64]!r}: the inputs are {', '.join(known)}")
        expected = known[name]
        sides = zip(expected["shape"], tensor.data.shape, strict=False)
        if (
            tensor.datatype != expected["datatype"]
            or tensor.data.ndim != len(expected["shape"])
            or any(want not in (-1, have) for want, have in sides)
        ):
            raise BadRequest(
                f"input {name}: expected {expected['datatype']} {expected['shape']}, got {tensor.datatype} "
                f"{list(tensor.data.shape)}"
            )
    main = "picture" if pictures else "image"
    if main not in request.inputs:
        raise BadRequest(f"input {main} is missing")
    rows = request.inputs[main].data.shape[0]
    if not 1 <= rows <= _MAX_ROWS:
        raise BadRequest(f"input {main}: 1 to {_MAX_ROWS} rows, got {rows}")
    labels = request.inputs["labels"].data if "labels" in request.inputs else None
    if labels is not None and len(labels) != rows:
        raise BadRequest(f"input labels: {rows} rows are needed, got {len(labels)}")
    if pictures:
        return _pictures_job(model, request, labels, refine, deadline)
    if request.parameters.keys() & {"refine", "top_k"}:
        raise Unprocessable(f"refine and top_k are parameters of {model.spec.name}{PICTURES}")
    return _graph_job(model, request, labels, deadline)


def _timeout(microseconds: Any) -> float:
    """The `time.monotonic()` from which on a client with a timeout no longer waits."""
    if microseconds is None:
        return math.inf
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or microseconds < 1:
        raise BadRequest("timeout must be a whole number of microseconds")
    return time.monotonic() + min(microseconds, 1 << 60) / 1e6


def _graph_job(model: Model, request: InferRequest, labels: npt.NDArray[Any] | None, deadline: float) -> Job:
    image, spec = request.inputs["image"].data, model.manifest.input
    height, width = image.shape[1:3] if spec.layout == "NHWC" else image.shape[2:]
    stride = model.manifest.segmentation.multiple if model.manifest.segmentation else model.manifest.cam.stride  # type: ignore[union-attr]
    if min(height, width) < stride or height * width > _MAX_AREA * spec.height * spec.width:
        raise BadRequest(f"input image: {height} x {width} is too small or too large for this model")
    names = tuple(request.outputs) or model.outputs
    for name in names:
        if name not in model.outputs:
            raise BadRequest(f"unknown output {name[:64]!r}: the outputs are {', '.join(model.outputs)}")
    k = model.manifest.top_k
    wanted = [(-1,) * k] * len(image) if labels is None else [_label_row(model, row) for row in labels]
    prepared = tuple(Prepared(None, (width, height), None, row, False) for row in image)

    def prepare() -> tuple[Prepared, ...]:
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise Unprocessable("input image: not all of its values are finite")
        return prepared

    def finish(_: Sequence[Prepared], outputs: Outputs, row: int) -> list[Tensor]:
        return [Tensor(name, outputs[name][row : row + len(prepared)]) for name in names]

    return Job(prepare, wanted, names, finish, deadline)


def _label_row(model: Model, row: npt.NDArray[Any]) -> tuple[int, ...]:
    ids = tuple(int(value) for value in row)
    if chosen := [value for value in ids if value != -1]:
        model.pipeline.wanted(chosen)
    return ids


def _pictures_job(
    model: Model, request: InferRequest, labels: npt.NDArray[Any] | None, refine: str | None, deadline: float
) -> Job:
    known = [entry["name"] for entry in describe_model(model, True, ())["outputs"]]
    names = list(request.outputs) or [name for name in known if name not in ("mask", "map")]
    for name in names:
        if name not in known:
            raise BadRequest(f"unknown output {name[:64]!r}: the outputs are {', '.join(known)}")
    how = refinement(str(request.parameters.get("refine", "")), refine, model.manifest)
    averaged = views(model.manifest, None)
    files = [bytes(entry) for entry in request.inputs["picture"].data]
    top_k = request.parameters.get("top_k", 1)
    if "top_k" in request.parameters and (model.segments or labels is not None):
        raise Unprocessable("top_k is for predicted classes: leave it out with labels and for segmentation networks")
    if labels is None:
        wanted = [(-1,) if model.segments else model.pipeline.wanted(None, top_k)] * len(files)
    else:
        wanted = [model.pipeline.wanted([int(value) for value in row]) for row in labels]
    stop, loaded = Stop(), model.loaded

    def finish(prepared: Sequence[Prepared], outputs: Outputs, row: int) -> list[Tensor]:
        found: list[Any] = []
        for i, entry in enumerate(prepared):
            if isinstance(loaded, Segmenter):
                make: Any = partial(loaded.finish, entry, outputs, row + i, refine=how)
            else:
                make = partial(model.pipeline.finish, entry, outputs, row + i, len(wanted[i]), how)
            found.append(make() if how is None else stoppable(stop, make))
        if isinstance(loaded, Segmenter):
            return [Tensor("label_map", _stacked([entry.labels for entry in found]))]
        return [Tensor(name, _column(name, found)) for name in names]

    def prepare() -> list[Prepared]:
        prepared: list[Prepared] = []
        for data in files:
            prepared.append(model.pipeline.prepare(data, keep_image=False, refine=how, augment=averaged))
            limit = model.pipeline.max_pixels
            if sum(entry.size[0] * entry.size[1] for entry in prepared) > limit:
                raise Unprocessable(f"the pictures of this request have over {limit:,} pixels in total: split it")
        return prepared

    return Job(prepare, wanted, SEGMENT_OUTPUTS if model.segments else OUTPUTS, finish, deadline, stop=stop)


def _column(name: str, found: Sequence[Localization]) -> npt.NDArray[Any]:
    """One output over all pictures; a missing box is four times -1."""
    rows = [(entry, *entry.others) for entry in found]
    if name in ("mask", "map"):
        return _stacked([np.stack([getattr(entry, name) for entry in row]) for row in rows]).astype(np.uint8)
    if name == "class_name":
        return np.array([[entry.class_name.encode() for entry in row] for row in rows], object)
    if name == "box":
        return np.array([[entry.box or (-1, -1, -1, -1) for entry in row] for row in rows], np.int64)
    dtype = np.int64 if name == "class_id" else np.float32
    return np.array([[getattr(entry, name) for entry in row] for row in rows], dtype)


def _stacked(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({array.shape for array in arrays}) > 1:
        raise BadRequest("masks or maps of pictures of different sizes fit no common tensor: send one request for each")
    return np.stack(arrays)
