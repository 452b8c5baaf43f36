"""The messages against those of Triton's client, which were generated from the protocol's own .proto."""

from __future__ import annotations

import pytest

from lidcam_serve.messages import MESSAGES, SERVICE

theirs = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")


def fields(descriptor):
    return {
        field.number: (field.name, field.type, field.is_repeated, field.message_type and field.message_type.name)
        for field in descriptor.fields
    }


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in ("ModelIndex", "TensorMetadata")])
def test_each_message_has_the_protocols_fields(name):
    nested = {
        "InferInputTensor": theirs.ModelInferRequest.InferInputTensor,
        "InferRequestedOutputTensor": theirs.ModelInferRequest.InferRequestedOutputTensor,
        "InferOutputTensor": theirs.ModelInferResponse.InferOutputTensor,
    }
    expected = fields((nested.get(name) or getattr(theirs, name)).DESCRIPTOR)
    ours = fields(MESSAGES[name].DESCRIPTOR)
    assert {number: expected[number] for number in ours} == ours
    assert set(expected) - set(ours) <= {7}, "a field of the protocol is missing"  # logs and the like


def test_the_service_has_their_name():
    assert theirs.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE


def test_a_request_of_theirs_is_read_and_an_answer_of_ours_too():
    request = theirs.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"ab"])
    request.parameters["refine"].string_param = "psa"
    request.inputs.add(name="image", datatype="UINT8", shape=[2])
    read = MESSAGES["ModelInferRequest"].FromString(request.SerializeToString())
    assert read.parameters["refine"].string_param == "psa" and list(read.inputs[0].shape) == [2]
    assert read.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)
