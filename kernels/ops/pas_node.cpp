#include "ops/pas_node.h"

#include <algorithm>
#include <cstdio>
#include <new>
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

OrtStatus* read_choice(const OrtApi& api, const OrtKernelInfo* info, const char* name, const char* no, const char* yes,
                       bool* chosen) {
  char text[32] = {};
  size_t size = sizeof text;
  char message[160];
  std::snprintf(message, sizeof message, "lidcam::PaS: attribute %s must be a string, '%s' or '%s'", name, no, yes);
  if (OrtStatus* status = api.KernelInfoGetAttribute_string(info, name, text, &size)) {
    api.ReleaseStatus(status);
    return refuse(api, message);
  }
  const std::string_view value(text, size - 1);  // size counts the final zero byte
  *chosen = value == yes;
  return *chosen || value == no ? nullptr : refuse(api, message);
}

OrtStatus* read_number(const OrtApi& api, const OrtKernelInfo* info, const char* name, float most, double* value) {
  float number = 0;
  OrtStatus* status = api.KernelInfoGetAttribute_float(info, name, &number);
  if (!status && number >= 0 && number <= most) {  // false for NaN
    *value = number;
    return nullptr;
  }
  if (status) api.ReleaseStatus(status);
  char message[160];
  std::snprintf(message, sizeof message, "lidcam::PaS: attribute %s must be a float from 0 to %g", name, double(most));
  return refuse(api, message);
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

OrtStatus* read_attributes(const OrtApi& api, const OrtKernelInfo* info, pas::Options* options) {
  size_t inputs = 0, outputs = 0;
  if (OrtStatus* status = api.KernelInfo_GetInputCount(info, &inputs)) return status;
  if (OrtStatus* status = api.KernelInfo_GetOutputCount(info, &outputs)) return status;
  if (inputs != 2 || outputs != 3) return refuse(api, "lidcam::PaS takes cam and like and gives map, mask and threshold");
  OrtStatus* status = read_number(api, info, "percentile", 100.0f, &options->percentile);
  if (!status) status = read_number(api, info, "theta", 1.0f, &options->theta);
  if (!status) status = read_choice(api, info, "mode", "threshold", "normalize", &options->normalize);
  if (!status) status = read_choice(api, info, "precision", "uint8", "float", &options->float_precision);
  if (!status) status = read_choice(api, info, "where", "resized", "raw", &options->raw);
  if (!status) status = read_choice(api, info, "interpolation", "cubic", "linear", &options->linear);
  return status;
}

OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) noexcept {
  pas::Options options;
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
