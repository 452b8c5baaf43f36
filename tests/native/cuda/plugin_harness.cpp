// Does with the plugin library what TensorRT does with it, on host memory: makes a plugin, asks for its outputs, runs
// it, stores and restores it. Usage: plugin_harness LIBRARY INPUT OUTPUT PERCENTILE THETA MODE PRECISION WHERE
// INTERPOLATION INPUT: int32 n, k, h, w, height, width, then float32 cam. OUTPUT: float32 map, mask, threshold.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

using namespace nvinfer1;

#define REQUIRE(condition)                                       \
  if (!(condition)) {                                            \
    std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
    std::exit(1);                                                \
  }

namespace {

struct Log : ILogger {
  void log(Severity, const char* text) noexcept override { std::fprintf(stderr, "log: %s\n", text); }
} logger;
struct Finder : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
} finder;

PluginTensorDesc described(std::initializer_list<int64_t> dims, DataType type = DataType::kFLOAT) {
  PluginTensorDesc d{};
  d.dims.nbDims = 0;
  for (int64_t side : dims) d.dims.d[d.dims.nbDims++] = side;
  d.type = type;
  d.format = TensorFormat::kLINEAR;
  return d;
}

}  // namespace

int main(int count, char** words) {
  REQUIRE(count == 10);
  void* library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) std::fprintf(stderr, "%s\n", dlerror());
  REQUIRE(library);
  const auto set_finder = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
  const auto get_creators =
      reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
  REQUIRE(set_finder && get_creators);
  set_finder(&finder);
  int32_t creators = 0;
  IPluginCreatorInterface* const* all = get_creators(creators);
  REQUIRE(creators == 1 && std::strcmp(all[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
  auto* creator = static_cast<IPluginCreatorV3One*>(all[0]);
  REQUIRE(!std::strcmp(creator->getPluginName(), "PaS") && !std::strcmp(creator->getPluginVersion(), "1") &&
          !std::strcmp(creator->getPluginNamespace(), "lidcam") && creator->getFieldNames()->nbFields == 6);

  const float percentile = float(std::atof(words[4])), theta = float(std::atof(words[5]));
  PluginField fields[6] = {{"percentile", &percentile, PluginFieldType::kFLOAT32, 1},
                           {"theta", &theta, PluginFieldType::kFLOAT32, 1}};
  const char* names[] = {"mode", "precision", "where", "interpolation"};
  for (int i = 0; i < 4; ++i)
    fields[2 + i] = PluginField(names[i], words[6 + i], PluginFieldType::kCHAR, int32_t(std::strlen(words[6 + i])));
  const PluginFieldCollection collection{6, fields};
  IPluginV3* built = creator->createPlugin("PaS", &collection, TensorRTPhase::kBUILD);
  if (!built) return 3;  // an attribute was refused

  auto* build = static_cast<IPluginV3OneBuild*>(built->getCapabilityInterface(PluginCapabilityType::kBUILD));
  REQUIRE(build->getNbOutputs() == 3);
  DataType types[3] = {};
  const DataType given[2] = {DataType::kFLOAT, DataType::kFLOAT};
  REQUIRE(build->getOutputDataTypes(types, 3, given, 2) == 0);
  for (DataType type : types) REQUIRE(type == DataType::kFLOAT);
  const IDimensionExpr* sides[8];
  for (uintptr_t i = 0; i < 8; ++i) sides[i] = reinterpret_cast<const IDimensionExpr*>(i + 1);
  DimsExprs in[2] = {}, out[3] = {};
  for (int i = 0; i < 8; ++i) in[i / 4].d[i % 4] = sides[i];
  in[0].nbDims = in[1].nbDims = 4;
  alignas(16) static char nothing[sizeof(IExprBuilder)];
  REQUIRE(build->getOutputShapes(in, 2, nullptr, 0, out, 3, *reinterpret_cast<IExprBuilder*>(nothing)) == 0);
  for (int i = 0; i < 2; ++i)
    REQUIRE(out[i].nbDims == 4 && out[i].d[0] == sides[0] && out[i].d[1] == sides[1] && out[i].d[2] == sides[6] &&
            out[i].d[3] == sides[7]);
  REQUIRE(out[2].nbDims == 2 && out[2].d[0] == sides[0] && out[2].d[1] == sides[1]);
  in[0].nbDims = 3;
  REQUIRE(build->getOutputShapes(in, 2, nullptr, 0, out, 3, *reinterpret_cast<IExprBuilder*>(nothing)) != 0);
  DynamicPluginTensorDesc ends[5] = {};
  for (auto& end : ends) end.desc = described({1, 1, 1, 1});
  for (int i = 0; i < 5; ++i) {
    REQUIRE(build->supportsFormatCombination(i, ends, 2, 3));
    ends[i].desc.type = DataType::kHALF;
    REQUIRE(build->supportsFormatCombination(i, ends, 2, 3) == (i == 1));
    ends[i].desc = described({1, 1, 1, 1});
    ends[i].desc.format = TensorFormat::kCHW32;
    REQUIRE(!build->supportsFormatCombination(i, ends, 2, 3));
    ends[i].desc.format = TensorFormat::kLINEAR;
  }

  // Store it, and restore it as an engine that is loaded does.
  auto* stored = static_cast<IPluginV3OneRuntime*>(built->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  IPluginV3* loaded = creator->createPlugin("PaS", stored->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
  REQUIRE(loaded);
  delete built;
  auto* first = static_cast<IPluginV3OneRuntime*>(loaded->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  IPluginV3* attached = first->attachToContext(nullptr);
  REQUIRE(attached && attached != loaded);
  delete loaded;
  auto* runtime = static_cast<IPluginV3OneRuntime*>(attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));

  int32_t size[6];
  std::ifstream file(words[2], std::ios::binary);
  REQUIRE(file.read(reinterpret_cast<char*>(size), sizeof size));
  const int64_t n = size[0], k = size[1], maps = n * k, pixels = int64_t(size[4]) * size[5];
  std::vector<float> cam(maps * size[2] * size[3]), map(maps * pixels, -7), mask(maps * pixels, -7), cut(maps, -7);
  REQUIRE(file.read(reinterpret_cast<char*>(cam.data()), std::streamsize(cam.size() * 4)));
  const PluginTensorDesc inputs[2] = {described({n, k, size[2], size[3]}), described({n, 3, size[4], size[5]})};
  const PluginTensorDesc outputs[3] = {described({n, k, size[4], size[5]}), described({n, k, size[4], size[5]}),
                                       described({n, k})};
  REQUIRE(runtime->onShapeChange(inputs, 2, outputs, 3) == 0);
  const void* from[2] = {cam.data(), nullptr};
  void* to[3] = {map.data(), mask.data(), cut.data()};
  if (runtime->enqueue(inputs, outputs, from, to, nullptr, reinterpret_cast<cudaStream_t>(uintptr_t(64))) != 0)
    return 4;
  std::ofstream result(words[3], std::ios::binary);
  for (const auto* values : {&map, &mask, &cut})
    result.write(reinterpret_cast<const char*>(values->data()), std::streamsize(values->size() * 4));
  delete attached;
  return result ? 0 : 1;
}
