#include "cuda/launch_pas.h"

#include <algorithm>

#include "cuda/images.h"
#include "cuda/launching.h"
#include "pas/pas_args.h"

namespace lidcam::cuda {
namespace {

pas::cuda::Args arguments_of(const pas::PasOptions& options, int h, int w, int height, int width) {
  return {h, w, height, width, pas::percentile_milli(options), pas::theta_micro(options), pas::flags(options), 0};
}

int common_divisor(int a, int b) { return b ? common_divisor(b, a % b) : a; }

}  // namespace

void launch_pas(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                const pas::PasOptions& options, uint8_t* map, uint8_t* mask, float* threshold) {
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
                      const pas::PasOptions& options, float* map, float* mask, float* threshold) {
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
  void* arguments[] = {&cam,
                       &like,
                       &args.h,
                       &args.w,
                       &args.height,
                       &args.width,
                       &args.percentile_milli,
                       &args.theta_micro,
                       &args.flags,
                       &args.shared_bytes,
                       &map,
                       &mask,
                       &threshold};
  launch(function(clusters ? Image::pas_words_90 : Image::pas_words_75, "lidcam_pas_aot"), how, arguments);
}

AheadOfTime pas_ahead_of_time(int major) { return {aot_ptx(major >= 9), major >= 9 ? 8 : 1}; }

}  // namespace lidcam::cuda
