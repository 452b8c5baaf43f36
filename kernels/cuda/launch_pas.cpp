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

}  // namespace

void launch_pas(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                const pas::PasOptions& options, uint8_t* map, uint8_t* mask, float* threshold) {
  check_size(count, {h, w, height, width});
  if (count == 0) return;
  const Scope scope(stream, cam);
  const Device& device = scope.device();

  pas::cuda::Args args = arguments_of(options, h, w, height, width);
  pas::cuda::Plan plan;  // as many weights as are used
  make_plan(args, &plan);
  Launch how;
  how.block = pas::cuda::kThreads;
  how.stream = stream;
  const bool aligned = (reinterpret_cast<uintptr_t>(map) | reinterpret_cast<uintptr_t>(mask)) % 4 == 0;
  const char* kernel = nullptr;
  // For `blocks` blocks per map: the kernel that keeps the bytes where the options and the shared memory allow it.
  const auto share = [&](unsigned blocks) {
    const int64_t with_bytes = pas::cuda::shared_with_bytes(args, int(blocks));
    const bool bytes = aligned && takes_bytes(args) && with_bytes <= device.shared_limit;
    if (blocks > 1)
      kernel = bytes ? "lidcam_pas_bytes_cluster" : "lidcam_pas_cluster";
    else
      kernel = bytes ? "lidcam_pas_bytes" : "lidcam_pas";
    args.shared_bytes =
        int(bytes ? with_bytes : std::min<int64_t>(pas::cuda::shared_bytes(args, int(blocks)), device.shared_limit));
    how.cluster = blocks;
    how.shared = unsigned(args.shared_bytes);
  };
  // Blocks share a map where the device has clusters, as long as all of them run at once.
  unsigned blocks = device.major >= 9 ? 8 : 1;
  while (blocks > 1 && unsigned(height) < 4 * blocks) blocks /= 2;
  for (; blocks > 1; blocks /= 2) {
    share(blocks);
    how.grid = blocks;
    if (count <= max_clusters(function(Image::pas, kernel), how, device)) break;
  }
  if (blocks == 1) share(1);
  how.grid = unsigned(count) * how.cluster;
  void* arguments[] = {&cam, &args, &plan, &map, &mask, &threshold};
  launch(function(Image::pas, kernel), how, arguments);
}

void launch_pas_words(Stream stream, const float* cam, int64_t count, int h, int w, int height, int width,
                      const pas::PasOptions& options, float* map, float* mask, float* threshold) {
  check_size(count, {h, w, height, width});
  if (count == 0) return;
  const Scope scope(stream, cam);
  pas::cuda::Args args = arguments_of(options, h, w, height, width);
  args.shared_bytes = 49152;
  Launch how;
  how.block = pas::cuda::kThreads;
  how.shared = unsigned(args.shared_bytes);
  how.stream = stream;
  void* kernel = nullptr;
  unsigned blocks = 1;
  if (scope.device().major >= 9) {  // the cluster's size is part of the PTX, and small slices of a device hold none
    Launch cluster = how;
    cluster.grid = cluster.cluster = 8;
    kernel = function(Image::pas_words_90, "lidcam_pas_aot");
    if (max_clusters(kernel, cluster, scope.device()) > 0) blocks = 8;
  }
  if (blocks == 1) kernel = function(Image::pas_words_75, "lidcam_pas_aot");
  how.grid = unsigned(count) * blocks;
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
  launch(kernel, how, arguments);
}

AheadOfTime pas_ahead_of_time(int major) { return {aot_ptx(major >= 9), major >= 9 ? 8 : 1}; }

}  // namespace lidcam::cuda
