#include "cuda/launch.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "components/runs.h"
#include "crf/cuda_args.h"
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

namespace {

void size_crf(crf::cuda::Args* args, int capacity) {
  const int64_t pixels = int64_t(args->height) * args->width;
  if (args->labels < 2) throw std::invalid_argument("a dense CRF has at least 2 labels");
  if (args->terms < 1 || args->terms > crf::cuda::kMaxTerms)
    throw std::invalid_argument("a dense CRF on CUDA has 1 to 4 pairwise terms");
  if (pixels > (int64_t(1) << 26)) throw std::invalid_argument("a dense CRF on CUDA has at most 2^26 pixels");
  if (capacity < 0) throw std::invalid_argument("capacity must not be negative");
  // Every pixel has at most six vertices of its own; one simplex more for the pixels that round up to four.
  const int64_t most = crf::cuda::kCorners * (pixels + 1);
  const int64_t wanted = capacity ? capacity : 2 * pixels + 64;
  args->capacity = int(std::min(most, wanted));
  args->slots = 64;
  while (args->slots < 2 * int64_t(args->capacity)) args->slots *= 2;
}

int64_t crf_bytes(const crf::cuda::Args& args) {
  return args.terms *
         crf::cuda::place(int64_t(args.height) * args.width, args.capacity, args.slots, args.labels).bytes;
}

crf::cuda::Term crf_term(const CrfTerm& given, int height, int width) {
  crf::cuda::Term term{};
  term.dimension = given.bilateral ? 5 : 2;
  const float last[5] = {float(width - 1), float(height - 1), 255, 255, 255};
  const float deviation = float(std::sqrt(2.0 / 3.0) * (term.dimension + 1));
  double reach = 0;  // no coordinate of the lattice is larger
  for (int i = 0; i < term.dimension; ++i) {
    if (!(given.deviation[i] > 0) || !std::isfinite(given.deviation[i]))
      throw std::invalid_argument("the standard deviations of a pairwise term must be above 0");
    term.deviation[i] = given.deviation[i];
    term.scale[i] = float(1.0 / std::sqrt((i + 2.0) * (i + 1.0)) * deviation);
    reach += double(last[i]) / given.deviation[i] * term.scale[i] * (i + 1);
  }
  // Keys hold 12 bits of a coordinate over D + 1 (bilateral) or 20.
  const int bits = given.bilateral ? 12 : 20;
  if (!(reach / (term.dimension + 1) + 4 < double(1 << (bits - 1))))
    throw std::invalid_argument("the standard deviations of a pairwise term are too small for this image on CUDA");
  term.weight = given.weight;
  term.alpha = 1.0f / (1.0f + std::pow(2.0f, -float(term.dimension)));
  return term;
}

}  // namespace

size_t crf_workspace(int64_t count, int labels, int height, int width, int terms, int capacity) {
  check_size(count, {height, width});
  crf::cuda::Args args{};
  args.labels = labels, args.height = height, args.width = width, args.terms = terms;
  size_crf(&args, capacity);
  return size_t(count) * size_t(crf_bytes(args));
}

void launch_crf(Stream stream, const uint8_t* image, const float* unary, int64_t count, int labels, int height,
                int width, const std::vector<CrfTerm>& terms, int iterations, float* q, int32_t* status, int capacity,
                void* workspace) {
  check_size(count, {height, width});
  if (iterations < 0) throw std::invalid_argument("iterations must not be negative");
  if (count * int64_t(terms.size()) > 65535) throw std::invalid_argument("too many images: at most 65535 lattices a call");
  crf::cuda::Args args{};
  args.labels = labels, args.height = height, args.width = width, args.iterations = iterations;
  args.terms = int(std::min<size_t>(terms.size(), crf::cuda::kMaxTerms + 1));
  size_crf(&args, capacity);
  for (int t = 0; t < args.terms; ++t) args.term[t] = crf_term(terms[t], height, width);
  if (count == 0) return;
  const Scope scope(stream, unary);
  const Device& device = scope.device();
  const Memory memory(workspace, size_t(count) * size_t(crf_bytes(args)), stream);
  void* place = memory.data();

  Launch how;
  how.block = crf::cuda::kThreads;
  how.stream = stream;
  how.rows = unsigned(count * args.terms);
  const auto over = [&](int64_t n) { how.grid = unsigned((n + how.block - 1) / how.block); };
  const int64_t pixels = int64_t(height) * width;
  void* tables[] = {&args, &place};
  over(std::max<int64_t>(args.slots, 2 * crf::cuda::kCorners * int64_t(args.capacity)));
  launch(function(Image::crf, "lidcam_crf_clear"), how, tables);
  void* seen[] = {&image, &args, &place};
  over(pixels + 3);
  launch(function(Image::crf, "lidcam_crf_vertices"), how, seen);
  over(std::max<int64_t>(args.slots, pixels));
  launch(function(Image::crf, "lidcam_crf_neighbours"), how, tables);

  unsigned cluster = device.major >= 9 ? 8 : 1;
  while (cluster > 1 && count * cluster > device.processors) cluster /= 2;
  args.shared_bytes = cluster > 1 ? 0 : device.shared_limit;
  how.rows = 1;
  how.cluster = cluster;
  how.grid = unsigned(count) * cluster;
  how.shared = unsigned(args.shared_bytes);
  void* arguments[] = {&unary, &args, &place, &q, &status};
  launch(function(Image::crf, cluster > 1 ? "lidcam_crf_cluster" : "lidcam_crf"), how, arguments);
}

AheadOfTime pas_ahead_of_time(int major) { return {aot_ptx(major >= 9), major >= 9 ? 8 : 1}; }

}  // namespace lidcam::cuda
