"""A segmentation network behind the server: label maps over /v1 and /v2, and what it refuses."""

from __future__ import annotations

import base64
import io
import json

import artifacts
import cv2
import numpy as np
import pytest
from PIL import Image
from servers import png
from test_app import call, hosting, mask_of

import lidcam_rt
from lidcam_rt.errors import InputError
from lidcam_serve.triton.repository import RepositoryOptions, write_repository


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return artifacts.build_segmentation(tmp_path_factory.mktemp("network") / "tiny.onnx")


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
