"""A segmentation network behind the server: label maps over /v1 and /v2, and what it refuses."""

from __future__ import annotations

import base64
import io
import json

import artifacts
import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from servers import png
from test_app import call, hosting, mask_of

import lidcam_rt
from lidcam_rt.artifact import Manifest
from lidcam_rt.errors import InputError
from lidcam_serve.triton.repository import RepositoryOptions, write_repository


def build(path):
    """A network without training: label k + 1 is where colour k of the tiny artifact is, 0 elsewhere; stride 4."""
    raw = artifacts.manifest().model_dump(exclude_none=True)
    raw |= {"task": "segmentation", "schema_version": 2, "top_k": 1, "labels_input": False}
    del raw["cam"]
    manifest = Manifest.model_validate({**raw, "segmentation": {"stride": 4, "multiple": 4}})
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
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", artifacts.OPSET)], ir_version=9)
    helper.set_model_props(made, manifest.to_metadata())
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return build(tmp_path_factory.mktemp("network") / "tiny.onnx")


@pytest.fixture(scope="module")
def service(network):
    with hosting(network) as running:
        yield running


@pytest.fixture(scope="module")
def segmenter(network):
    with lidcam_rt.load(network) as loaded:
        yield loaded


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("refine", ["none", "psa"])
def test_label_maps_are_those_of_the_segmenter(service, segmenter, refine):
    for colour in artifacts.CLASSES:
        expected = segmenter(png(colour), refine=None if refine == "none" else refine)
        assert set(np.unique(expected.labels)) == {0, 1 + artifacts.CLASSES.index(colour)}
        params = {"refine": refine}
        answer = call(service, "POST", "/v1/segment", content=png(colour), params={**params, "mask": 1, "map": 1})
        told = answer.json()
        assert [entry["class_name"] for entry in told["classes"]] == [colour]
        assert np.array_equal(mask_of(told["classes"][0]), expected.labels > 0)
        assert np.array_equal(pixels(base64.b64decode(told["labels_png"])), expected.labels)
        for form, wanted in (("labels", expected.labels), ("overlay", expected.overlay(legend=True))):
            got = call(service, "POST", "/v1/segment", content=png(colour), params={**params, "form": form})
            assert np.array_equal(pixels(got.content), wanted)


def infer(service, name: str, **request):
    answer = call(service, "POST", f"/v2/models/{name}/infer", content=json.dumps(request).encode())
    return answer, {entry["name"]: entry for entry in answer.json().get("outputs", ())}


def test_the_graph_and_its_pictures_over_v2(service, segmenter):
    described = call(service, "GET", "/v2/models/tiny").json()
    assert {entry["name"]: entry["shape"] for entry in described["outputs"]} == {
        "logits": [-1, 5, -1, -1], "label_map": [-1, -1, -1], "scores": [-1, 4],
    }  # fmt: skip
    small = cv2.resize(artifacts.picture("blue"), (64, 64), interpolation=cv2.INTER_AREA)
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 64, 64, 3], "data": small.ravel().tolist()}
    _, outputs = infer(service, "tiny", inputs=[image])
    expected = segmenter.backend.run(small[None], None, ["logits", "label_map", "scores"])
    for name, value in expected.items():
        assert outputs[name]["shape"] == list(value.shape) and np.array_equal(outputs[name]["data"], value.ravel())
    files = [base64.b64encode(png(colour)).decode() for colour in ("red", "yellow")]
    picture = {"name": "picture", "datatype": "BYTES", "shape": [2], "data": files}
    _, outputs = infer(service, "tiny_pictures", inputs=[picture])
    maps = np.stack([segmenter(png(colour)).labels for colour in ("red", "yellow")])
    assert outputs["label_map"]["shape"] == list(maps.shape)
    assert np.array_equal(outputs["label_map"]["data"], maps.ravel())


def test_what_a_segmentation_network_does_not_do_is_said(service, network, tmp_path):
    answer = call(service, "POST", "/v1/localize", content=png())
    assert answer.status_code == 422 and "POST /v1/segment" in answer.json()["error"]
    answer = call(service, "POST", "/v1/segment", content=png(), params={"labels": "red"})
    assert answer.status_code == 422 and "takes no labels" in answer.json()["error"]
    picture = {"name": "picture", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png()).decode()]}
    answer, _ = infer(service, "tiny_pictures", inputs=[picture], parameters={"top_k": 2})
    assert answer.status_code == 422 and "segmentation network" in answer.json()["error"]
    with pytest.raises(InputError, match=r"is a segmentation network.*`lidcam serve`"):
        write_repository(network, tmp_path / "r", RepositoryOptions())
