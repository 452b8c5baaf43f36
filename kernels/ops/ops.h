// The operators of the library, as ONNX Runtime's C interface needs them. Every operator has one schema (pas_node.h);
// what differs is where it runs.
#pragma once
#include <onnxruntime_c_api.h>

namespace lidcam::ops {

// ONNX Runtime 1.17 and later have this version of the interface: the library loads in all of them.
constexpr uint32_t kApiVersion = 17;

// PaS on the CPU; always there, because a graph's node needs the schema.
const OrtCustomOp* pas_cpu();
// PaS on a CUDA device; registered where a driver is installed.
const OrtCustomOp* pas_cuda();

}  // namespace lidcam::ops
