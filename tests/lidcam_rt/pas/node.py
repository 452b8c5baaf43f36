"""Models of one PaS node without a function body; needs `onnx` and numpy only, so that any environment runs it.

As a script, `python node.py LIBRARY` throws wrong nodes at the operator library: it prints one line per case and ends
with status 0 only if each was refused by an ONNX Runtime error and each right one gave an answer.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

RIGHT = {
    "percentile": 98.0, "theta": 0.35, "mode": "threshold", "precision": "uint8", "where": "resized",
    "interpolation": "cubic",
}  # fmt: skip
OUTPUTS = ("map", "mask", "threshold")


def node_model(
    attributes=RIGHT, cam=TensorProto.FLOAT, like=TensorProto.FLOAT, inputs=("cam", "like"), outputs=OUTPUTS
) -> bytes:
    """A graph of one node; shapes are left open, so that wrong ones are found when it runs."""
    node = helper.make_node("PaS", list(inputs), list(outputs), domain="lidcam", **attributes)
    types = {"cam": cam, "like": like, "third": TensorProto.FLOAT}
    out_types = {"map": TensorProto.UINT8, "mask": TensorProto.UINT8, "threshold": TensorProto.FLOAT}
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, types[name], None) for name in inputs if name],
        [helper.make_tensor_value_info(n, out_types.get(n, TensorProto.FLOAT), None) for n in outputs if n],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("lidcam", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


def session_of(model, library=None, threads=1):
    """An ONNX Runtime session on the CPU, with the operator library where one is given."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _cases():
    """Name, model arguments, feed, whether it is right."""
    cam = np.random.default_rng(0).random((2, 1, 4, 5)).astype(np.float32)
    like = np.zeros((2, 3, 8, 9), np.float32)
    yield "right", {}, (cam, like), True
    for name, shape in (("no picture", (0, 1, 4, 5)), ("no class", (2, 0, 4, 5))):
        yield name, {}, (np.zeros(shape, np.float32), like), True
    for shape in ((8, 9), (1, 8, 9), (1,) * 6 + (8, 9)):
        yield f"like {shape}", {}, (cam, np.zeros(shape, np.float32)), True
    for kind, dtype in (("UINT8", np.uint8), ("INT64", np.int64), ("BOOL", np.bool_)):
        yield f"like {kind}", {"like": getattr(TensorProto, kind)}, (cam, like.astype(dtype)), True
    shapes = [(), (4,), (4, 5), (1, 4, 5), (2, 1, 1, 4, 5), (2, 1, 0, 5), (2, 1, 4, 0), (1,) * 9, (2, 1, 32769, 1)]
    for shape in shapes:
        yield f"cam {shape}", {}, (np.zeros(shape, np.float32), like), False
    for shape in [(), (4,), (0, 9), (8, 0), (1,) * 7 + (8, 9), (1,) * 20, (40000, 1), (0, 3, 8, 0)]:
        yield f"like {shape}", {}, (cam, np.zeros(shape, np.float32)), False
    for kind, dtype in (
        ("DOUBLE", np.float64), ("FLOAT16", np.float16), ("INT32", np.int32), ("UINT8", np.uint8), ("STRING", object)
    ):  # fmt: skip
        yield f"cam {kind}", {"cam": getattr(TensorProto, kind)}, (cam.astype(dtype), like), False
    for name in RIGHT:
        yield f"without {name}", {"attributes": {k: v for k, v in RIGHT.items() if k != name}}, (cam, like), False
        wrong = [3, [1, 2], [0.5], ["threshold", "cubic"], "x" * 5000, "", "cubic\0", onnx.TensorProto()]
        wrong += [-1.0, 1e9, float("nan"), float("inf"), -float("inf")]
        for value in wrong:
            yield f"{name}={str(value)[:20]}", {"attributes": RIGHT | {name: value}}, (cam, like), False
    yield "one input", {"inputs": ("cam",)}, (cam, None), False
    yield "empty like", {"inputs": ("cam", "")}, (cam, None), False
    yield "three inputs", {"inputs": ("cam", "like", "third")}, (cam, like), False
    for outputs in (("map",), ("map", "mask"), ("", "mask", "threshold"), ("map", "", "threshold"), (*OUTPUTS, "more")):
        yield f"outputs {outputs}", {"outputs": outputs}, (cam, like), outputs == OUTPUTS
    rng = np.random.default_rng(1)
    for i in range(150):
        from_shape = tuple(rng.integers(0, 5, rng.integers(0, 7)))
        to_shape = tuple(rng.integers(0, 7, rng.integers(0, 11)))
        right = len(from_shape) == 4 and min(from_shape[2:]) > 0 and 2 <= len(to_shape) <= 8 and min(to_shape[-2:]) > 0
        feed = rng.standard_normal(from_shape).astype(np.float32), np.zeros(to_shape, np.float32)
        yield f"shapes {i} {from_shape} {to_shape}", {}, feed, right


def _attempt(library, options, feed):
    import onnxruntime as ort

    try:
        names = options.get("inputs", ("cam", "like"))
        session = session_of(node_model(**options), library)
        values = {"cam": feed[0], "like": feed[1], "third": feed[0]}
        result = session.run(None, {name: values[name] for name in names if name})
    except Exception as error:
        module = type(error).__module__
        known = module.startswith(ort.capi.onnxruntime_pybind11_state.__name__) or "ONNXRuntime" in str(error)
        return f"refused: {' '.join(str(error).split())[:150]}" if known else f"strange error: {error!r}"
    return f"answered: {[value.shape for value in result]}"


def main(library):
    """Run all cases; the number of wrong ones is the status."""
    wrong = count = 0
    for name, options, feed, right in _cases():
        answer = _attempt(library, options, feed)
        count += 1
        if not answer.startswith("answered" if right else "refused"):
            wrong += 1
            print(f"WRONG {name}: {answer}")
        else:
            print(f"{name}: {answer}")
    print(f"{count} cases, {wrong} wrong")
    return min(wrong, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
