#include "ops/pas_node.h"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#include "ops/ops.h"

namespace lidcam::ops {
namespace {

constexpr int64_t kMaxSide = 32768;
constexpr size_t kMaxRank = 8;

struct Shape {
  size_t rank = 0;
  int64_t dims[kMaxRank] = {};
};

OrtStatus* refuse(const OrtApi& api, const char* text) { return api.CreateStatus(ORT_INVALID_ARGUMENT, text); }

OrtStatus* refuse_attribute(const OrtApi& api, const std::string& requirement) {
  return refuse(api, ("lidcam::PaS: attribute " + requirement).c_str());
}

OrtStatus* read(const OrtApi& api, const OrtKernelInfo* info, const pas::NumberAttribute& attribute,
                pas::PasOptions* options) {
  float value = 0;
  if (OrtStatus* status = api.KernelInfoGetAttribute_float(info, attribute.name, &value)) {
    api.ReleaseStatus(status);
    return refuse_attribute(api, pas::requirement(attribute) + " (a float)");
  }
  try {
    pas::set(*options, attribute, value);
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return refuse_attribute(api, error.what());
  }
}

OrtStatus* read(const OrtApi& api, const OrtKernelInfo* info, const pas::ChoiceAttribute& attribute,
                pas::PasOptions* options) {
  char text[32] = {};
  size_t size = sizeof text;
  if (OrtStatus* status = api.KernelInfoGetAttribute_string(info, attribute.name, text, &size)) {
    api.ReleaseStatus(status);
    return refuse_attribute(api, pas::requirement(attribute) + " (a string)");
  }
  try {
    pas::set(*options, attribute, std::string_view(text, size - 1));  // size counts the final zero byte
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return refuse_attribute(api, error.what());
  }
}

OrtStatus* read_shape(const OrtApi& api, const OrtValue* value, Shape* shape) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (OrtStatus* status = api.GetTensorTypeAndShape(value, &info)) return status;
  OrtStatus* status = api.GetDimensionsCount(info, &shape->rank);
  if (!status) status = api.GetDimensions(info, shape->dims, std::min(shape->rank, kMaxRank));
  api.ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

OrtStatus* output(const OrtApi& api, OrtKernelContext* context, size_t index, const int64_t* dims, size_t rank,
                  void** data) {
  OrtValue* value = nullptr;
  if (OrtStatus* status = api.KernelContext_GetOutput(context, index, dims, rank, &value)) return status;
  if (!value) return refuse(api, "lidcam::PaS: all three outputs must be named");
  return api.GetTensorMutableData(value, data);
}

OrtStatus* read_attributes(const OrtApi& api, const OrtKernelInfo* info, pas::PasOptions* options) {
  size_t inputs = 0, outputs = 0;
  if (OrtStatus* status = api.KernelInfo_GetInputCount(info, &inputs)) return status;
  if (OrtStatus* status = api.KernelInfo_GetOutputCount(info, &outputs)) return status;
  if (inputs != 2 || outputs != 3)
    return refuse(api, "lidcam::PaS takes cam and like and gives map, mask and threshold");
  for (const pas::NumberAttribute& attribute : pas::kNumbers)
    if (OrtStatus* status = read(api, info, attribute, options)) return status;
  for (const pas::ChoiceAttribute& attribute : pas::kChoices)
    if (OrtStatus* status = read(api, info, attribute, options)) return status;
  return nullptr;
}

OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) noexcept {
  pas::PasOptions options;
  if (OrtStatus* status = read_attributes(*api, info, &options)) return status;
  *kernel = new (std::nothrow) PasKernel{api, options};
  return *kernel ? nullptr : api->CreateStatus(ORT_FAIL, "lidcam::PaS: out of memory");
}

}  // namespace

void fill_schema(OrtCustomOp& op) {
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return "PaS"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 2; };
  // `like` gives the size of the outputs only: any type.
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 3; };
  op.GetOutputType = [](const OrtCustomOp*, size_t index) {
    return index == 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = create;
  op.KernelDestroy = [](void* kernel) { delete static_cast<PasKernel*>(kernel); };
}

OrtStatus* open_call(const OrtApi& api, OrtKernelContext* context, PasCall* call) {
  const OrtValue *cam = nullptr, *like = nullptr;
  if (OrtStatus* status = api.KernelContext_GetInput(context, 0, &cam)) return status;
  if (OrtStatus* status = api.KernelContext_GetInput(context, 1, &like)) return status;
  if (!cam || !like) return refuse(api, "lidcam::PaS: both inputs must be given");
  Shape from, to;
  if (OrtStatus* status = read_shape(api, cam, &from)) return status;
  if (OrtStatus* status = read_shape(api, like, &to)) return status;
  if (from.rank != 4 || to.rank < 2 || to.rank > kMaxRank)
    return refuse(api, "lidcam::PaS: cam must be [N, K, h, w] and like [..., H, W] of at most 8 dimensions");
  const int64_t sides[4] = {from.dims[2], from.dims[3], to.dims[to.rank - 2], to.dims[to.rank - 1]};
  for (int64_t side : sides)
    if (side < 1 || side > kMaxSide)
      return refuse(api, "lidcam::PaS: height and width of cam and like must be 1 to 32768 pixels");
  call->n = from.dims[0], call->k = from.dims[1];
  call->h = int(sides[0]), call->w = int(sides[1]), call->height = int(sides[2]), call->width = int(sides[3]);

  void* data = nullptr;
  // The C interface has no reading accessor of const data in this version.
  if (OrtStatus* status = api.GetTensorMutableData(const_cast<OrtValue*>(cam), &data)) return status;
  call->cam = static_cast<const float*>(data);
  const int64_t maps[4] = {call->n, call->k, sides[2], sides[3]};
  if (OrtStatus* status = output(api, context, 0, maps, 4, &data)) return status;
  call->map = static_cast<uint8_t*>(data);
  if (OrtStatus* status = output(api, context, 1, maps, 4, &data)) return status;
  call->mask = static_cast<uint8_t*>(data);
  if (OrtStatus* status = output(api, context, 2, maps, 2, &data)) return status;
  call->threshold = static_cast<float*>(data);
  return nullptr;
}

}  // namespace lidcam::ops
