#include "cuda/launch.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "components/runs.h"
#include "cuda/images.h"
#include "pas/pas_args.h"

namespace lidcam::cuda {
namespace {

constexpr int kMaxSide = 32768;

void check_size(int64_t count, std::initializer_list<int> sides) {
  for (int side : sides)
    if (side < 1 || side > kMaxSide) throw std::invalid_argument("height and width must be 1 to 32768 pixels");
  if (count < 0 || count > 0x7fffffff / 8) throw std::invalid_argument("a batch may hold 0 to 268435455 maps");
}

pas::cuda::Args arguments_of(const pas::Options& options, int h, int w, int height, int width) {
  pas::cuda::Args args{};
  args.h = h, args.w = w, args.height = height, args.width = width;
  args.percentile_milli = int(std::nearbyint(options.percentile * 1000));
  args.theta_micro = int(std::nearbyint(options.theta * 1e6));
  args.flags = (options.normalize ? pas::cuda::kNormalize : 0) | (options.float_precision ? pas::cuda::kFloat : 0) |
               (options.raw ? pas::cuda::kRaw : 0) | (options.linear ? pas::cuda::kLinear : 0);
  return args;
}

int common_divisor(int a, int b) { return b ? common_divisor(b, a % b) : a; }

// Taken from the stream's pool when the caller gives none.
class Memory {
 public:
  Memory(void* given, size_t bytes, Stream stream)
      : data_(given ? given : allocate(bytes, stream)), stream_(stream), mine_(!given) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    try {
      if (mine_) release(data_, stream_);
    } catch (const Error&) {  // the launch itself has already reported what is wrong
    }
  }
  void* data() const { return data_; }

 private:
  void* data_;
  Stream stream_;
  bool mine_;
};

}  // namespace

void launch_pas(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                const pas::Options& options, uint8_t* map, uint8_t* mask, float* threshold) {
  check_size(count, {h, w, height, width});
  if (count == 0) return;
  const Scope scope(stream, cam);
  const Device& device = scope.device();

  pas::cuda::Args args = arguments_of(options, h, w, height, width);
  // What does not fit is made again for every use (weights) or read from global memory (the map).
  const int64_t taps = int64_t(width / common_divisor(w, width)) + height / common_divisor(h, height);
  const int64_t wanted = pas::cuda::kFixedBytes + taps * pas::cuda::kTapBytes + int64_t(h) * w * 4;
  args.shared_bytes = int(std::min<int64_t>(wanted, device.shared_limit));

  // Blocks share a map where the device has clusters, as long as all blocks run at once.
  unsigned cluster = device.major >= 9 ? 8 : 1;
  while (cluster > 1 && (count * cluster > device.processors || unsigned(height) < 4 * cluster)) cluster /= 2;
  Launch how;
  how.grid = unsigned(count) * cluster;
  how.block = pas::cuda::kThreads;
  how.shared = unsigned(args.shared_bytes);
  how.cluster = cluster;
  how.stream = stream;
  void* arguments[] = {&cam, &args, &map, &mask, &threshold};
  launch(function(Image::pas, cluster > 1 ? "lidcam_pas_cluster" : "lidcam_pas"), how, arguments);
}

void launch_pas_words(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                      const pas::Options& options, float* map, float* mask, float* threshold) {
  check_size(count, {h, w, height, width});
  if (count == 0) return;
  const Scope scope(stream, cam);
  pas::cuda::Args args = arguments_of(options, h, w, height, width);
  args.shared_bytes = 49152;
  const bool clusters = scope.device().major >= 9;
  Launch how;
  how.grid = unsigned(count) * (clusters ? 8 : 1);  // the cluster's size is part of the PTX
  how.block = pas::cuda::kThreads;
  how.shared = unsigned(args.shared_bytes);
  how.stream = stream;
  const void* like = nullptr;
  void* arguments[] = {&cam, &like, &args.h, &args.w, &args.height, &args.width, &args.percentile_milli,
                       &args.theta_micro, &args.flags, &args.shared_bytes, &map, &mask, &threshold};
  launch(function(clusters ? Image::pas_words_90 : Image::pas_words_75, "lidcam_pas_aot"), how, arguments);
}

size_t boxes_workspace(int64_t count, int height, int width) {
  check_size(count, {height, width});
  return size_t(count) * size_t(components::cuda::resized_run_bytes(height, width));
}

void launch_boxes(Stream stream, const uint8_t* mask, int64_t count, int height, int width, bool by_pixels,
                  int32_t* boxes, void* workspace) {
  check_size(count, {height, width});
  if (count == 0) return;
  const Scope scope(stream, mask);
  const Memory memory(workspace, boxes_workspace(count, height, width), stream);
  const Launch how{unsigned(count), components::cuda::kThreads, components::cuda::kSharedBytes, 1, stream};
  int pixels = by_pixels, shared = components::cuda::kSharedBytes;
  long long stride = components::cuda::resized_run_bytes(height, width);
  void* place = memory.data();
  void* arguments[] = {&mask, &height, &width, &pixels, &shared, &place, &stride, &boxes};
  launch(function(Image::components, "lidcam_boxes"), how, arguments);
}

void launch_boxes_at_size(Stream stream, const uint8_t* map, const float* level, int64_t count, int map_height,
                          int map_width, int height, int width, bool by_pixels, int32_t* boxes, void* workspace) {
  check_size(count, {map_height, map_width, height, width});
  if (count == 0) return;
  const Scope scope(stream, map);
  const Memory memory(workspace, boxes_workspace(count, height, width), stream);
  const Launch how{unsigned(count), components::cuda::kThreads, components::cuda::kSharedBytes, 1, stream};
  int pixels = by_pixels, shared = components::cuda::kSharedBytes;
  long long stride = components::cuda::resized_run_bytes(height, width);
  void* place = memory.data();
  void* arguments[] = {&map,   &level,  &map_height, &map_width, &height, &width,
                       &pixels, &shared, &place,      &stride,    &boxes};
  launch(function(Image::components, "lidcam_boxes_at_size"), how, arguments);
}

AheadOfTime pas_ahead_of_time(int major) { return {aot_ptx(major >= 9), major >= 9 ? 8 : 1}; }

}  // namespace lidcam::cuda
