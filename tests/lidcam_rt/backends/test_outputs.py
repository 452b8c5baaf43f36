"""A graph that does not keep what its manifest promises, or never ends: an error that names the output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import artifacts
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lidcam_rt
from lidcam_rt.errors import ArtifactError, BackendError, InputError

FLOAT, DOUBLE, INT64, UINT8, BOOL = (getattr(TensorProto, n) for n in ("FLOAT", "DOUBLE", "INT64", "UINT8", "BOOL"))


def changed(path, output, *nodes, kind=None, shape=(), constants=None):
    """The tiny artifact with one output replaced: `nodes` compute OUT from IN."""
    model = onnx.load(artifacts.build(path, top_k=2))
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["IN" if name == output else name for name in node.output]
        node.input[:] = ["IN" if name == output else name for name in node.input]
    for op, inputs, out, attributes in nodes:
        graph.node.append(helper.make_node(op, inputs, [output if out == "OUT" else out], **attributes))
    for name, value in (constants or {}).items():
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    entry = next(entry for entry in graph.output if entry.name == output)
    del entry.type.tensor_type.shape.dim[:]
    entry.type.tensor_type.ClearField("shape")  # found out by running only
    if kind is not None:
        entry.type.tensor_type.elem_type = kind
        if shape:
            entry.CopyFrom(helper.make_tensor_value_info(output, kind, shape))
    path.write_bytes(model.SerializeToString())
    return path


def plus(value, dtype=np.float32):
    return ("Add", ["IN", "c"], "OUT", {}), {"c": dtype(value)}


NAN, F32 = float("nan"), np.float32
CASES = {
    "logits NaN": ("logits", *plus(NAN), BackendError, "NaN or infinite values in the output logits"),
    "logits infinite": ("logits", *plus(float("inf")), BackendError, "output logits"),
    "threshold NaN": ("threshold", *plus(NAN), BackendError, "output threshold"),
    "cam NaN": ("cam", *plus(NAN), BackendError, "output cam"),
    "scores 3": ("scores", *plus(3.0), ArtifactError, "output scores holds .* not 0 to 1"),
    "ids negative": ("class_ids", *plus(-4, np.int64), ArtifactError, "class_ids holds -4 to -[1-4], .* 0 to 3"),
    "ids too large": ("class_ids", *plus(3, np.int64), ArtifactError, r"class_ids holds \d to [4-6], .* 0 to 3"),
    "mask 255": ("mask", ("Mul", ["IN", "c"], "OUT", {}), {"c": np.uint8(255)}, ArtifactError, "mask holds 255"),
    "logits of 3 classes": (
        "logits", ("Slice", ["IN", "a", "b", "x"], "OUT", {}), {"a": [0], "b": [3], "x": [1]}, ArtifactError,
        r"logits is float32 \[\w+, 3\], the manifest says float32 \[batch, 4\]",
    ),
    "one map of two": (
        "map8", ("Slice", ["IN", "a", "b", "x"], "OUT", {}), {"a": [0], "b": [1], "x": [1]}, ArtifactError,
        r"map8 is uint8 \[\w+, 1, 64, 64\], the manifest says uint8 \[batch, 2, 64, 64\]",
    ),
    "a smaller map": (
        "map8", ("Slice", ["IN", "a", "b", "x"], "OUT", {}), {"a": [0], "b": [32], "x": [3]}, ArtifactError,
        r"map8 is uint8 \[\w+, 2, 64, 32\]",
    ),
    "another rank": (
        "threshold", ("Unsqueeze", ["IN", "x"], "OUT", {}), {"x": [0]}, ArtifactError,
        r"threshold is float32 \[\w+, \w+, 2\]"),
    "no rows": (
        "logits", ("Slice", ["IN", "a", "b", "x"], "OUT", {}), {"a": [0], "b": [0], "x": [0]}, ArtifactError,
        r"logits is float32 \[0, 4\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_are_held_against_the_manifest(tmp_path, case):
    output, node, constants, error, says = CASES[case]
    path = changed(tmp_path / "m.onnx", output, node, constants=constants)
    for use in (
        lambda localizer: localizer(artifacts.picture()),
        lambda localizer: localizer.batch([artifacts.picture()]),
        lambda localizer: list(localizer.stream([artifacts.picture()] * 2)),
    ):
        with pytest.raises(error, match=says) as caught:
            use(lidcam_rt.load(path))  # ONNX Runtime finds out some shapes when it loads
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("output", "kind", "says"),
    [
        ("logits", DOUBLE, "logits is float64 .*the manifest says float32"),
        ("class_ids", FLOAT, "class_ids is float32 .*the manifest says int64"),
        ("map8", FLOAT, "map8 is float32"),
        ("threshold", INT64, "threshold is int64"),
        ("mask", BOOL, "mask is bool"),
    ],
)
def test_another_type_is_refused_when_it_is_loaded(tmp_path, output, kind, says):
    path = changed(tmp_path / "m.onnx", output, ("Cast", ["IN"], "OUT", {"to": kind}), kind=kind)
    with pytest.raises(ArtifactError, match=f"{re.escape(str(path))}: its graph does not fit its manifest.*{says}"):
        lidcam_rt.load(path)


def test_a_wrong_declared_shape_is_refused_when_it_is_loaded(tmp_path):
    node = ("Concat", ["IN", "IN"], "OUT", {"axis": 1})
    path = changed(tmp_path / "m.onnx", "threshold", node, kind=FLOAT, shape=["batch", 4])
    with pytest.raises(ArtifactError, match=r"threshold is float32 \[batch, 4\].*float32 \[batch, 2\]"):
        lidcam_rt.load(path)


def test_later_runs_are_checked_too(tmp_path):
    """NaN where the picture is black: the first call is right, the second is not."""
    nodes = [
        ("ReduceMax", ["image"], "most", {"keepdims": 0}),
        ("Cast", ["most"], "bright", {"to": FLOAT}),
        ("Div", ["t_zero", "bright"], "bad", {}),  # 0 / 0
        ("Add", ["IN", "bad"], "OUT", {}),
    ]
    path = changed(tmp_path / "m.onnx", "threshold", *nodes, constants={"t_zero": F32(0)})
    model = onnx.load(path)
    at = next(i for i, node in enumerate(model.graph.node) if node.op_type == "ReduceMax" and node.output[0] == "most")
    model.graph.node[at].input[0] = "as_int"
    model.graph.node.insert(at, helper.make_node("Cast", ["image"], ["as_int"], to=TensorProto.INT32))
    path.write_bytes(model.SerializeToString())
    with lidcam_rt.load(path) as localizer:
        assert localizer(artifacts.picture("red")).class_name == "red"
        with pytest.raises(BackendError, match="output threshold"):
            localizer(np.zeros((20, 20, 3), np.uint8))
        assert localizer(artifacts.picture("red")).class_name == "red"


def test_labels_that_the_graph_ignores(tmp_path):
    path = changed(tmp_path / "m.onnx", "class_ids", ("Identity", ["ranked"], "OUT", {}))
    with lidcam_rt.load(path) as localizer:
        assert localizer(artifacts.picture("red")).class_name == "red"
        with pytest.raises(ArtifactError, match="class_ids is not what the input labels asked for"):
            localizer(artifacts.picture("red"), labels=[2])


def endless(path):
    """The tiny artifact, whose logits wait for a loop that does not end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Mul", ["x", "x"], ["y"])],
        "body",
        [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go", BOOL, []),
         helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("go_on", BOOL, []), helper.make_tensor_value_info("y", FLOAT, [1])],
    )  # fmt: skip
    nodes = [
        ("Shape", ["image"], "t_sides", {}),
        ("Gather", ["t_sides", "t_zero"], "t_rows", {}),
        ("GreaterOrEqual", ["t_rows", "t_zero"], "yes", {}),
        ("Loop", ["", "yes", "t_one"], "never", {"body": body}),
        ("Add", ["IN", "never"], "OUT", {}),
    ]
    return changed(path, "logits", *nodes, constants={"t_zero": np.int64(0), "t_one": F32([1])})


def test_a_deadline_ends_a_graph_that_does_not(tmp_path):
    path = endless(tmp_path / "m.onnx")
    with lidcam_rt.load(path, deadline=0.3) as localizer:
        says = "first run took more than 0.3 s on onnxruntime"
        for use in (lambda: localizer(artifacts.picture()), lambda: list(localizer.stream([artifacts.picture()]))):
            with pytest.raises(BackendError, match=says):
                use()
        caught = []

        def elsewhere():
            try:
                localizer(artifacts.picture())
            except BackendError as error:
                caught.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(300)
        assert "first run took more" in caught[0]


def test_a_deadline_that_is_kept_changes_nothing(model, localizer):
    with lidcam_rt.load(model, deadline=600) as limited:
        assert limited(artifacts.picture("red")).box == localizer(artifacts.picture("red")).box


@pytest.mark.parametrize("deadline", [0, -1, "1", NAN, False])
def test_wrong_deadlines(model, deadline):
    with pytest.raises(InputError, match="deadline must be a number of seconds above 0"):
        lidcam_rt.load(model, deadline=deadline)


@pytest.mark.slow
def test_the_command_has_a_deadline(tmp_path):
    from PIL import Image

    Image.fromarray(artifacts.picture()).save(tmp_path / "a.png")
    code = "from lidcam_cli.main import main; main()"
    command = ["localize", endless(tmp_path / "m.onnx"), tmp_path / "a.png", "-o", tmp_path / "o", "--deadline", "0.3"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 5 and "took more than 0.3 s" in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("use", ["localizer(picture)", "list(localizer.stream([picture] * 3))"])
def test_ctrl_c_ends_a_graph_that_does_not(tmp_path, use):
    """The signal is sent once the process computes."""
    program = (
        "import sys, threading, numpy as np, lidcam_rt\n"
        f"localizer = lidcam_rt.load({str(endless(tmp_path / 'm.onnx'))!r})\n"
        "picture = np.zeros((20, 30, 3), np.uint8)\n"
        f"lidcam_rt.load({str(artifacts.build(tmp_path / 'short.onnx'))!r})(picture)\n"  # all is imported
        "try:\n"
        "    print('calling', flush=True)\n"
        f"    {use}\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, **pipes)
    try:
        assert process.stdout.readline() == "calling\n"
        wait_until_it_computes(process.pid)
        os.kill(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=300)
        assert out == "interrupted\n" and process.returncode == 0, errors
    finally:
        process.kill()


def wait_until_it_computes(pid):
    """Until a thread of the process has used half a second of processor time since now: it is inside the loop."""
    def used():
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115, PTH123
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    start = used()
    while used() < start + 0.5:
        time.sleep(0.01)
