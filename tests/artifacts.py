"""A tiny artifact whose answers are known by construction; needs `onnx`, not torch.

Its network looks for colours: channel k of the features is large where a pixel has colour k (red, green,
blue, yellow), so that the class is the colour that covers most, and the map is where that colour is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lidcam_rt.artifact import CamSpec, InputSpec, Manifest, SourceSpec
from lidcam_rt.pas import PasOptions

CLASSES = ("red", "green", "blue", "yellow")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
OPSET = 18
STRIDE = 4


def manifest(
    *,
    dtype: str = "uint8",
    size: tuple[int, int] = (64, 64),
    top_k: int = 1,
    resize: str = "stretch",
    labels: bool = True,
    task: str = "localization",
    theta: float = 0.35,
) -> Manifest:
    return Manifest(
        task=task,
        input=InputSpec(
            dtype=dtype,
            layout="NHWC" if dtype == "uint8" else "NCHW",
            height=size[0],
            width=size[1],
            dynamic_size=True,
            mean=(127.5,) * 3,
            std=(127.5,) * 3,
            resize=resize,
        ),
        class_names=CLASSES,
        top_k=top_k,
        labels_input=labels,
        cam=CamSpec(nwc=True, pooling="gap", stride=STRIDE),
        pas=PasOptions(percentile=100.0, theta=theta, interpolation="linear"),
        source=SourceSpec(name="tests"),
        package_version="0.1.0",
        opset=OPSET,
    )


def build(path: Path, pas_node: bool = False, **options) -> Path:
    """Write the artifact to `path`; the options are those of `manifest`.

    With `pas_node` PaS is the node with its function body, as an export writes it, instead of operators of the graph.
    """
    spec = manifest(**options)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(op: str, inputs: list[str], output: str, **attributes) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    f32, i64 = np.float32, np.int64
    if spec.input.dtype == "uint8":
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
        node("Cast", ["image"], "float", to=TensorProto.FLOAT)
        node("Sub", ["float", constant("mean", f32([127.5]))], "centred")
        node("Div", ["centred", "mean"], "scaled")
        x = node("Transpose", ["scaled"], "nchw", perm=[0, 3, 1, 2])
    else:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])
        x = "image"
    colours = f32([(1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, -1)]).reshape(4, 3, 1, 1)
    node("Conv", [x, constant("colours", colours), constant("bias", f32([-2, -2, -2, -2]))], "match")
    node("Relu", ["match"], "active")
    node("AveragePool", ["active"], "F", kernel_shape=[STRIDE, STRIDE], strides=[STRIDE, STRIDE])
    node("ReduceMean", ["F", constant("hw", i64([2, 3]))], "pooled", keepdims=0)
    weights = f32(np.eye(4) * 20 - 0.1)
    node("Gemm", ["pooled", constant("w", weights)], "logits", transB=1)
    node("TopK", ["logits", constant("k", i64([spec.top_k]))], "")
    nodes[-1].output[:] = ["best", "ranked"]
    if spec.labels_input:
        node("Less", ["labels", constant("zero", i64(0))], "free")
        ids = node("Where", ["free", "ranked", "labels"], "class_ids")
    else:
        ids = node("Identity", ["ranked"], "class_ids")
    node("Sigmoid" if spec.task == "multilabel" else "Softmax", ["logits"], "probability")
    node("GatherElements", ["probability", ids], "scores", axis=1)
    node("Gather", [constant("w_map", np.maximum(weights, 0)), ids], "rows")  # [N, K, C]
    node("Shape", ["F"], "F_shape")
    node("Slice", ["F_shape", constant("s0", i64([2])), constant("s4", i64([4]))], "hw_shape")
    node("Slice", ["F_shape", constant("s_0", i64([0])), constant("s_2", i64([2]))], "nc_shape")
    node("Concat", ["nc_shape", constant("m1", i64([-1]))], "flat_shape", axis=0)
    node("Reshape", ["F", "flat_shape"], "F_flat")
    node("MatMul", ["rows", "F_flat"], "cam_flat")
    node("Shape", ["class_ids"], "nk_shape")
    node("Concat", ["nk_shape", "hw_shape"], "cam_shape", axis=0)
    node("Reshape", ["cam_flat", "cam_shape"], "cam")
    # PaS in standard operators, percentile 100 (the maximum), mode threshold, of the resized map.
    node("Mul", ["hw_shape", constant("stride", i64([STRIDE]))], "out_hw")
    node("Concat", ["nk_shape", "out_hw"], "out_shape", axis=0)
    node(
        "Resize",
        ["cam", "", "", "out_shape"],
        "big",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    node("ReduceMin", ["big", "hw"], "low")
    node("ReduceMax", ["big", "hw"], "high")
    node("Sub", ["big", "low"], "above")
    node("Sub", ["high", "low"], "range")
    node("Max", ["range", constant("tiny", f32(1e-12))], "safe")
    node("Div", ["above", "safe"], "share")
    node("Mul", ["share", constant("full", f32(255))], "bytes")
    node("Cast", ["bytes"], "map8", to=TensorProto.UINT8)
    node("Cast", ["map8"], "map8f", to=TensorProto.FLOAT)
    node("ReduceMax", ["map8f", "hw"], "top", keepdims=0)
    node("Mul", ["top", constant("theta", f32(spec.pas.theta))], "cut")
    node("Floor", ["cut"], "threshold")
    node("Unsqueeze", ["threshold", "hw"], "threshold4")
    node("Greater", ["map8f", "threshold4"], "inside")
    node("Cast", ["inside"], "mask", to=TensorProto.UINT8)

    if pas_node:
        from lidcam_export.graph.operator import attach
        from lidcam_export.graph.operator import pas_node as make_node

        del nodes[next(i for i, n in enumerate(nodes) if n.output[0] == "big") :]
        nodes.append(make_node(("cam", x), ("map8", "mask", "threshold"), spec.pas))
    info = helper.make_tensor_value_info
    inputs = [image]
    if spec.labels_input:
        inputs.append(info("labels", TensorProto.INT64, ["batch", spec.top_k]))
    maps = ["batch", spec.top_k, "height", "width"]
    outputs = [
        info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)]),
        info("class_ids", TensorProto.INT64, ["batch", spec.top_k]),
        info("scores", TensorProto.FLOAT, ["batch", spec.top_k]),
        info("cam", TensorProto.FLOAT, ["batch", spec.top_k, "map_height", "map_width"]),
        info("map8", TensorProto.UINT8, maps),
        info("mask", TensorProto.UINT8, maps),
        info("threshold", TensorProto.FLOAT, ["batch", spec.top_k]),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    if pas_node:
        attach(model, spec.pas)
    for key, value in spec.to_metadata().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def build_segmentation(path: Path) -> Path:
    """A network without training: label k + 1 is where colour k of the tiny artifact is, 0 elsewhere; stride 4."""
    raw = manifest().model_dump(exclude_none=True)
    raw |= {"task": "segmentation", "schema_version": 2, "top_k": 1, "labels_input": False}
    del raw["cam"]
    spec = Manifest.model_validate({**raw, "segmentation": {"stride": 4, "multiple": 4}})
    colours = np.float32([(0, 0, 0), (1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, -1)]).reshape(5, 3, 1, 1)
    values = {
        "centre": np.float32([127.5]), "colours": colours, "bias": np.float32([0.3, -2, -2, -2, -2]),
        "first": np.int64([1]), "last": np.int64([5]), "axis": np.int64([1]), "sides": np.int64([2, 3]),
        "one": np.float32([1, 1, 4, 4]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        node("Sub", ["float", "centre"], ["centred"]),
        node("Div", ["centred", "centre"], ["scaled"]),
        node("Transpose", ["scaled"], ["x"], perm=[0, 3, 1, 2]),
        node("Conv", ["x", "colours", "bias"], ["match"]),
        node("Relu", ["match"], ["active"]),
        node("AveragePool", ["active"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Resize", ["logits", "", "one"], ["large"], mode="linear"),
        node("ArgMax", ["large"], ["best"], axis=1, keepdims=0),
        node("Cast", ["best"], ["label_map"], to=TensorProto.UINT8),
        node("Softmax", ["logits"], ["probability"], axis=1),
        node("ReduceMax", ["probability", "sides"], ["largest"], keepdims=0),
        node("Slice", ["largest", "first", "last", "axis"], ["scores"]),
    ]
    free = ["batch", "height", "width"]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [*free, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5, "h", "w"]),
         helper.make_tensor_value_info("label_map", TensorProto.UINT8, free),
         helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(made, spec.to_metadata())
    onnx.save(made, path)
    return path


def picture(
    colour: str = "red", box: tuple[int, int, int, int] = (40, 24, 104, 72), size: tuple[int, int] = (160, 96)
) -> np.ndarray:
    """uint8 [H, W, 3]: grey with a filled box (x0, y0, x1, y1) of one colour."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = COLOURS[colour]
    return pixels


def data_set(root: Path, count: int, *, noise: int = 0) -> Path:
    """A folder for `lidcam eval`: pictures of a coloured box (in noise up to `noise`) with its mask, label and box."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("\n".join(CLASSES))
    rows, rng = ["file,label,x0,y0,x1,y1"], np.random.default_rng(0)
    for i in range(count):
        colour, name = CLASSES[i % 4], f"{i:02d}.png"
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        box = (x, y, x + 60, y + 40)
        pixels = picture(colour, box, (130, 110)).astype(int)
        if noise:
            pixels += rng.integers(-noise, noise + 1, pixels.shape)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / "images" / name)
        mask = np.zeros((110, 130), np.uint8)
        mask[box[1] : box[3], box[0] : box[2]] = 255
        Image.fromarray(mask).save(root / "masks" / name)
        rows.append(f"{name},{colour},{','.join(map(str, box))}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root
