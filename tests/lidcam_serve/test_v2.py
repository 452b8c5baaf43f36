"""Bodies of the Open Inference Protocol: what is written is read, and what is damaged is refused."""

from __future__ import annotations

import json

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidcam_serve.errors import BadRequest
from lidcam_serve.tensors import DTYPES, Tensor, as_array, raw_bytes
from lidcam_serve.v2 import decode, encode, json_length

http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

tensors = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        arrays.arrays(
            np.dtype(DTYPES[name]), arrays.array_shapes(max_dims=4, max_side=4), elements={"allow_nan": False}
        )
        if "FP" in name
        else arrays.arrays(np.dtype(DTYPES[name]), arrays.array_shapes(max_dims=4, max_side=4)),
    )
)


@given(tensors)
def test_raw_tensors_come_back(made):
    datatype, array = made
    again = as_array("x", datatype, array.shape, raw_bytes(array))
    assert again.dtype == array.dtype and np.array_equal(again, array)
    assert Tensor("x", array).datatype == datatype


@settings(max_examples=40)
@given(tensors, st.booleans())
def test_tritonclients_requests_are_read(made, binary):
    datatype, array = made
    if datatype == "FP16" and not binary:
        return  # tritonclient sends those raw only
    entry = http.InferInput("x", list(array.shape), datatype)
    entry.set_data_from_numpy(array, binary_data=binary)
    body, length = http.InferenceServerClient.generate_request_body([entry])
    request, _ = decode(bytes(body), json_length(bytes(body), None if length is None else str(length)))
    assert np.array_equal(request.inputs["x"].data, array)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_bytes_come_back(values):
    array = np.array([*values, None], object)[:-1]
    assert list(as_array("x", "BYTES", [len(values)], raw_bytes(array))) == values


@given(tensors, st.booleans())
def test_answers_are_read_by_tritonclient(made, binary):
    _, array = made
    head = {"outputs": [{"name": "x", "parameters": {"binary_data": binary}}], "id": "a"}
    body, length = encode("m", "1", [Tensor("x", array)], head)
    if array.dtype == np.float16 and not binary:
        return
    result = http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert np.array_equal(result.as_numpy("x"), array) and result.get_response()["id"] == "a"


def valid() -> dict:
    return {
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [2], "data": [1, 2], "parameters": {}}],
        "outputs": [{"name": "y"}],
        "parameters": {"binary_data_output": True},
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_damaged_requests_are_refused_and_never_break(data):
    request = valid()
    node, key = data.draw(
        st.sampled_from(
            [(request, name) for name in request]
            + [(request["inputs"][0], name) for name in request["inputs"][0]]
            + [
                (request["outputs"][0], "name"),
                (request["inputs"], 0),
                (request["inputs"][0]["parameters"], "binary_data_size"),
            ]
        )
    )
    node[key] = data.draw(json_values)
    body = json.dumps(request).encode()
    length = data.draw(st.none() | st.text(max_size=4) | st.integers(-5, len(body) + 5).map(str))
    try:
        decode(body, json_length(body, length))
    except BadRequest as error:
        assert str(error)


@given(st.binary(max_size=60), st.lists(st.integers(-3, 70), max_size=3), st.sampled_from([*DTYPES, "BYTES", "X"]))
def test_any_bytes_are_an_array_or_refused(data, shape, datatype):
    try:
        array = as_array("x", datatype, shape, data)
    except BadRequest:
        return
    assert list(array.shape) == shape
