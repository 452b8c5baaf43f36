// PaS as a plugin of TensorRT (IPluginV3, version 1, namespace lidcam), for engines built in C++ or by trtexec:
//   trtexec --onnx=model.onnx --staticPlugins=liblidcam_tensorrt.so
// The node's attributes plugin_namespace and plugin_version make TensorRT's parser find it. Map and mask are float32
// here, since plugins have no uint8 outputs. Uses no symbol of TensorRT's libraries.
#include <NvInferRuntime.h>

#include <cstring>
#include <exception>
#include <iterator>
#include <string>
#include <string_view>

#include "cuda/launch_pas.h"
#include "pas/options.h"

namespace {

using namespace nvinfer1;
using namespace lidcam::pas;

constexpr char kName[] = "PaS", kVersion[] = "1", kNamespace[] = "lidcam";
ILoggerFinder* logger_finder = nullptr;

void complain(const char* text) {
  ILogger* logger = logger_finder ? logger_finder->findLogger() : nullptr;
  if (logger) logger->log(ILogger::Severity::kERROR, (std::string("PaS: ") + text).c_str());
}

// Fields of the node, and of an engine: the same names and types. Without options, names and types alone.
class Fields {
 public:
  explicit Fields(const PasOptions* options = nullptr) {
    PluginField* field = fields_;
    for (const NumberAttribute& attribute : kNumbers) {
      float& number = numbers_[field - fields_];
      if (options) number = float(options->*attribute.member);
      *field++ = PluginField(attribute.name, options ? &number : nullptr, PluginFieldType::kFLOAT32, 1);
    }
    for (const ChoiceAttribute& attribute : kChoices) {
      const char* text = !options ? nullptr : options->*attribute.member ? attribute.on : attribute.off;
      *field++ = PluginField(attribute.name, text, PluginFieldType::kCHAR, text ? int32_t(std::strlen(text)) : 0);
    }
    collection_ = {kCount, fields_};
  }
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;
  const PluginFieldCollection* get() const { return &collection_; }

 private:
  static constexpr int32_t kCount = int32_t(std::size(kNumbers) + std::size(kChoices));
  float numbers_[std::size(kNumbers)] = {};
  PluginField fields_[kCount];
  PluginFieldCollection collection_{};
};

// What is not given keeps its default. Throws std::invalid_argument for a value that the operator does not have.
PasOptions read(const PluginFieldCollection* given) {
  PasOptions options;
  for (int i = 0; given && i < given->nbFields; ++i) {
    const PluginField& field = given->fields[i];
    if (!field.data || !field.name) continue;
    const std::string_view name = field.name;
    for (const NumberAttribute& attribute : kNumbers) {
      if (name != attribute.name) continue;
      if (field.type == PluginFieldType::kFLOAT32) set(options, attribute, *static_cast<const float*>(field.data));
      if (field.type == PluginFieldType::kFLOAT64) set(options, attribute, *static_cast<const double*>(field.data));
    }
    std::string_view text(static_cast<const char*>(field.data), size_t(field.length < 0 ? 0 : field.length));
    while (!text.empty() && text.back() == '\0') text.remove_suffix(1);
    for (const ChoiceAttribute& attribute : kChoices)
      if (name == attribute.name) set(options, attribute, text);
  }
  return options;
}

class Plugin final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit Plugin(const PasOptions& options) : options_(options), fields_(&options) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override {
    try {
      return new Plugin(options_);
    } catch (const std::exception& error) {
      complain(error.what());
      return nullptr;
    }
  }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 3; }
  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;
  }
  int32_t getOutputDataTypes(DataType* types, int32_t count, const DataType*, int32_t) const noexcept override {
    if (count != 3) return 1;
    for (int i = 0; i < 3; ++i) types[i] = DataType::kFLOAT;
    return 0;
  }
  int32_t getOutputShapes(const DimsExprs* inputs, int32_t count, const DimsExprs*, int32_t, DimsExprs* outputs,
                          int32_t output_count, IExprBuilder&) noexcept override {
    if (count != 2 || output_count != 3 || inputs[0].nbDims != 4 || inputs[1].nbDims < 2) {
      complain("cam must be [N, K, h, w] and the second input image-sized [..., H, W]");
      return 1;
    }
    for (int i = 0; i < 2; ++i) {
      outputs[i] = inputs[0];
      outputs[i].d[2] = inputs[1].d[inputs[1].nbDims - 2];
      outputs[i].d[3] = inputs[1].d[inputs[1].nbDims - 1];
    }
    outputs[2].nbDims = 2;
    outputs[2].d[0] = inputs[0].d[0];
    outputs[2].d[1] = inputs[0].d[1];
    return 0;
  }
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* all, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc& one = all[position].desc;
    if (one.format != TensorFormat::kLINEAR) return false;
    // The second input is never read, only its shape.
    return one.type == DataType::kFLOAT || (position == 1 && one.type == DataType::kHALF);
  }

  int32_t onShapeChange(const PluginTensorDesc*, int32_t, const PluginTensorDesc*, int32_t) noexcept override {
    return 0;
  }
  int32_t enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs, const void* const* in,
                  void* const* out, void*, cudaStream_t stream) noexcept override {
    try {
      const Dims &cam = inputs[0].dims, &map = outputs[0].dims;
      lidcam::cuda::launch_pas_words(stream, static_cast<const float*>(in[0]), int64_t(cam.d[0]) * cam.d[1],
                                     int(cam.d[2]), int(cam.d[3]), int(map.d[2]), int(map.d[3]), options_,
                                     static_cast<float*>(out[0]), static_cast<float*>(out[1]),
                                     static_cast<float*>(out[2]));
      return 0;
    } catch (const std::exception& error) {
      complain(error.what());
      return 1;
    }
  }
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return fields_.get(); }

 private:
  PasOptions options_;
  Fields fields_;
};

class Creator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields, TensorRTPhase) noexcept override {
    try {
      return new Plugin(read(fields));
    } catch (const std::exception& error) {
      complain(error.what());
      return nullptr;
    }
  }
  const PluginFieldCollection* getFieldNames() noexcept override { return fields_.get(); }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  Fields fields_;
};

}  // namespace

#define LIDCAM_EXPORT extern "C" __attribute__((visibility("default")))

// What a plugin registry needs from a library that it loads.
LIDCAM_EXPORT void setLoggerFinder(ILoggerFinder* finder) { logger_finder = finder; }

LIDCAM_EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static Creator creator;
  static IPluginCreatorInterface* const all[] = {&creator};
  count = 1;
  return all;
}
