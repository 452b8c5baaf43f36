"""What is left of ONNX Runtime's messages: both ends, and what CUDA said, whatever is between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lidcam_rt.backends.onnxruntime import reason_of
from lidcam_rt.text import cut

SIGNATURE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, onnxruntime::"
    "common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, int) "
    "[with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, void, onnxruntime::"
    "common::Status> = void] "
)
PLACE = " ; GPU=0 ; hostname=n{} ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_graph.cc ; line=97 ; "
SAYS = "CUDA failure 901: operation failed due to a previous error during capture"


@pytest.mark.parametrize("head", ["", "[ONNXRuntimeError] : 1 : FAIL : ", "Error in execution: "])
@pytest.mark.parametrize("host", ["", "ode (7) ", " a) b"])
def test_cuda_errors_keep_what_cuda_said_and_the_call(head, host):
    text = head + SIGNATURE + SAYS + PLACE.format(host) + "expr=cudaStreamEndCapture(stream_, &graph); \n"
    wanted = SAYS + " (cudaStreamEndCapture(stream_, &graph))"
    assert reason_of(RuntimeError(text)) == (head + wanted).removeprefix("[ONNXRuntimeError] : 1 : ")


def test_messages_without_cuda_are_as_they_were():
    text = (
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Add node. Name:'a' "
        "Status Message: /onnxruntime_src/onnxruntime/core/framework/op.cc:4 virtual void f(const int&) const sizes"
    )
    assert reason_of(RuntimeError(text)).endswith("Status Message: const sizes")
    assert reason_of(RuntimeError("")) == "RuntimeError" and reason_of(RuntimeError("a\nb")) == "a"


def test_of_a_long_one_both_ends_are_kept():
    reason = reason_of(RuntimeError("first " + "x" * 5000 + " last"))
    assert reason.startswith("first ") and reason.endswith(" last") and len(reason) <= 400


@given(st.text(), st.integers(9, 60))
def test_cut_keeps_short_texts_and_the_ends_of_long_ones(text, length):
    got = cut(text, length)
    assert got == text if len(text) <= length else len(got) <= length
    if len(text) > length:
        first, last = got.split(" ... ")[0], got.split(" ... ")[-1]
        assert text.startswith(first) and text.endswith(last)
