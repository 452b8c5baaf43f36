"""The profile of ONNX Runtime: operations counted against torch's definition, and what belongs to CAM and PaS."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from lidcam_bench.latency.node_profile import (
    NodeRun,
    count_operations,
    counting_options,
    parse_profile,
    profile_nodes,
    split_nodes,
)
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]


def weights(name, *shape):
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def saved(path, nodes, outputs, constants, shape, functions=()):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("image", TensorProto.FLOAT, shape)],
        [info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9, functions=list(functions))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("node", "constants", "shape", "operations"),
    [
        (helper.make_node("Conv", ["image", "w"], ["y"], pads=[1] * 4), [("w", 8, 4, 3, 3)], [2, 4, 9, 7],
         2 * 2 * 8 * 9 * 7 * 4 * 9),
        (helper.make_node("Conv", ["image", "w"], ["y"], group=4, strides=[2, 2]), [("w", 4, 1, 3, 3)], [1, 4, 9, 7],
         2 * 4 * 4 * 3 * 9),
        (helper.make_node("ConvTranspose", ["image", "w"], ["y"], strides=[2, 2]), [("w", 4, 5, 2, 2)], [1, 4, 3, 3],
         2 * 4 * 9 * 5 * 4),
        (helper.make_node("MatMul", ["image", "w"], ["y"]), [("w", 6, 5)], [3, 2, 6], 2 * 3 * 2 * 5 * 6),
        (helper.make_node("Gemm", ["image", "w"], ["y"], transB=1), [("w", 5, 6)], [3, 6], 2 * 3 * 5 * 6),
        (helper.make_node("Gemm", ["image", "w"], ["y"], transA=1), [("w", 3, 5)], [3, 6], 2 * 6 * 5 * 3),
        (helper.make_node("Relu", ["image"], ["y"]), [], [3, 6], 0),
    ],
)  # fmt: skip
def test_operations(tmp_path, node, constants, shape, operations):
    path = saved(tmp_path / "m.onnx", [node], ["y"], [weights(*entry) for entry in constants], shape)
    runs = profile_nodes(path, [{"image": np.ones(shape, np.float32)}], options=counting_options())
    assert count_operations(runs) == operations


def test_quantised_convolution():
    """As the profile gives it: scales and zero points are scalars among the inputs."""
    inputs = ((1, 4, 5, 5), (), (), (8, 4, 3, 3), (), (), (), (), (8,))
    assert count_operations([NodeRun("q", "QLinearConv", "CPU", 1, inputs, ((1, 8, 5, 5),))]) == 2 * 8 * 25 * 36


def localizer_like(path, *, names=True):
    """A network, its logits, a CAM and a function that stands for PaS."""
    body = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Sqrt", ["s"], ["y"]),
    ]
    function = helper.make_function("acme", "PaS", ["x"], ["y"], body, OPSET[:1])
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["f"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["f"], ["F"], name="relu"),
        helper.make_node("GlobalAveragePool", ["F"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["logits"], name="flat"),
        helper.make_node("ReduceMax", ["F"], ["cam"], name="cam", keepdims=1),
        helper.make_node("PaS", ["cam"], ["map8"], name="PaS", domain="acme"),
    ]
    if not names:
        for node in nodes:
            node.ClearField("name")
    return saved(path, nodes, ["logits", "map8"], [weights("w", 8, 3, 3, 3)], [1, 3, 64, 64], [function])


def test_the_split_knows_the_nodes_of_cam_and_of_the_function_body(tmp_path):
    path = localizer_like(tmp_path / "m.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    feed = {"image": np.ones((1, 3, 64, 64), np.float32)}
    runs = profile_nodes(path, [feed] * 3, options=options)
    rest = {run.kind for run in runs if run.kind in ("ReduceMax", "Sigmoid", "Sqrt")}
    assert len(rest) == 3  # the body was written out
    fixed = [NodeRun(r.name, r.kind, r.provider, 3 if r.kind in rest else 1, r.inputs, r.outputs) for r in runs]
    found = split_nodes(path, fixed, 2, "ONNX Runtime")
    of_rest = sum(run.ns for run in fixed if run.kind in rest)
    assert found.shares_percent["CAM + PaS"] == pytest.approx(100 * of_rest / sum(run.ns for run in fixed))
    assert sum(found.shares_percent.values()) == pytest.approx(100)
    assert found.source == "ONNX Runtime, 2 calls" and len(found.slowest) <= 8


def test_copies_are_a_part_of_their_own(tmp_path):
    path = localizer_like(tmp_path / "m.onnx")
    runs = [NodeRun("Memcpy_token_1", "MemcpyToHost", "CUDA", 1, (), ()), NodeRun("conv", "Conv", "CUDA", 3, (), ())]
    assert split_nodes(path, runs, 1, "p").shares_percent == {"copies": 25, "network": 75}


def test_reasons_why_there_is_no_split(tmp_path):
    path = localizer_like(tmp_path / "m.onnx", names=False)
    run = NodeRun("Conv_1", "Conv", "CPU", 1, (), ())
    assert "no names" in split_nodes(path, [run], 1, "p").reason
    assert split_nodes(localizer_like(tmp_path / "n.onnx"), [], 0, "p").reason == "the profile is empty"


def test_the_first_call_is_left_out_and_other_events_too():
    node = {"cat": "Node", "dur": 4, "name": "a_kernel_time",
            "args": {"op_name": "Add", "provider": "CPU", "input_type_shape": [{"float": [2, 3]}],
                     "output_type_shape": [{"float": [2, 3]}]}}  # fmt: skip
    events = [node, {**node, "cat": "Session"}, {**node, "name": "a_fence_before"}]
    assert parse_profile(json.dumps(events).encode()) == [NodeRun("a", "Add", "CPU", 4000, ((2, 3),), ((2, 3),))]
