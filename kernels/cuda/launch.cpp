#include "cuda/launch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
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

constexpr int kMaxWords = 1 << 20;  // a launch for each 960

struct Crf {
  crf::cuda::Args args{};
  std::vector<int> words;
  size_t bytes = 0;
};

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
  term.alpha = 1.0f / (1.0f + std::pow(2.0f, -float(term.dimension)));
  term.before = given.before, term.after = given.after;
  return term;
}

void set_compat(const CrfTerm& given, int labels, crf::cuda::Term* term, std::vector<int>* words) {
  const size_t size = given.compat.size(), n = size_t(labels);
  if (size != 1 && size != n && size != n * n)
    throw std::invalid_argument("compat is a number, a vector or a matrix over the labels");
  for (float v : given.compat)
    if (!std::isfinite(v)) throw std::invalid_argument("compat must be finite");
  term->compat = size == 1 ? crf::cuda::kNumber : size == n ? crf::cuda::kVector : crf::cuda::kMatrix;
  term->weight = given.compat[0];
  term->array = int(words->size());
  if (size == 1) return;
  if (size > size_t(kMaxWords) - words->size())
    throw std::invalid_argument(
        "compat holds more than 2^20 numbers, too many on CUDA: give vectors, or use lidcam_rt.crf.DenseCRF");
  for (float v : given.compat) std::memcpy(&words->emplace_back(), &v, sizeof v);
}

// Returns the largest number of labels that an image has.
int set_lists(const CrfOptions& options, int64_t count, Crf* crf) {
  crf::cuda::Args& args = crf->args;
  args.lists = -1;
  if (options.labels.empty()) return args.labels;
  if (options.labels.size() != 1 && int64_t(options.labels.size()) != count)
    throw std::invalid_argument("give one list of labels, or one for each image");
  size_t most = 0;
  for (const std::vector<int>& list : options.labels) {
    if (list.size() < 2) throw std::invalid_argument("a dense CRF has at least 2 labels present in each image");
    for (size_t i = 0; i < list.size(); ++i)
      if (list[i] < 0 || list[i] >= args.labels || (i && list[i] <= list[i - 1]))
        throw std::invalid_argument("labels present must be distinct, ascending and of those that there are");
    most = std::max(most, list.size());
  }
  if ((most + 1) * options.labels.size() > size_t(kMaxWords) - crf->words.size())
    throw std::invalid_argument("the lists of labels hold more than 2^20 numbers: give fewer images at once");
  args.lists = int(crf->words.size());
  args.list = options.labels.size() > 1 ? int(most) + 1 : 0;
  for (const std::vector<int>& list : options.labels) {
    crf->words.push_back(int(list.size()));
    crf->words.insert(crf->words.end(), list.begin(), list.end());
    crf->words.resize(crf->words.size() + most - list.size());
  }
  return int(most);
}

Crf plan_crf(int64_t count, int labels, int height, int width, const CrfOptions& options) {
  check_size(count, {height, width});
  const int64_t pixels = int64_t(height) * width;
  if (labels < 2) throw std::invalid_argument("a dense CRF has at least 2 labels");
  if (options.terms.empty() || options.terms.size() > crf::cuda::kMaxTerms)
    throw std::invalid_argument("a dense CRF on CUDA has 1 to 4 pairwise terms: use lidcam_rt.crf.DenseCRF for more");
  if (pixels > (int64_t(1) << 26)) throw std::invalid_argument("a dense CRF on CUDA has at most 2^26 pixels");
  if (options.capacity < 0) throw std::invalid_argument("capacity must not be negative");
  if (options.iterations < 0) throw std::invalid_argument("iterations must not be negative");
  if (!(options.tolerance >= 0)) throw std::invalid_argument("tolerance must not be negative");
  if (count * int64_t(options.terms.size()) > 65535)
    throw std::invalid_argument("too many images: at most 65535 lattices a call");
  Crf crf;
  crf::cuda::Args& args = crf.args;
  args.labels = labels, args.height = height, args.width = width;
  args.terms = int(options.terms.size()), args.iterations = options.iterations, args.tolerance = options.tolerance;
  // Every pixel has at most six vertices of its own; one simplex more for the pixels that round up to four.
  const int64_t most = crf::cuda::kCorners * (pixels + 1);
  const int64_t wanted = options.capacity ? options.capacity : 2 * pixels + 64;
  args.capacity = int(std::min(most, wanted));
  args.slots = 64;
  while (args.slots < 2 * int64_t(args.capacity)) args.slots *= 2;
  args.numbers = 1;
  for (int t = 0; t < args.terms; ++t) {
    args.term[t] = crf_term(options.terms[t], height, width);
    set_compat(options.terms[t], labels, &args.term[t], &crf.words);
    args.numbers = args.numbers && args.term[t].compat == crf::cuda::kNumber;
  }
  const int present = set_lists(options, count, &crf);
  // Of lists with two labels and more: the longest decides.
  args.channels = crf::cuda::channels(present, args.numbers);
  const size_t lattices = size_t(crf::cuda::place(pixels, args.capacity, args.slots, args.channels).bytes);
  args.words = int64_t(size_t(count) * args.terms * lattices);
  crf.bytes = size_t(args.words) + (crf.words.size() + 3) / 4 * 16;
  if (options.tolerance > 0) {
    args.kept = int64_t(crf.bytes);
    crf.bytes += size_t(count) * args.channels * size_t(pixels) * sizeof(float);
  }
  return crf;
}

}  // namespace

size_t crf_workspace(int64_t count, int labels, int height, int width, const CrfOptions& options) {
  return plan_crf(count, labels, height, width, options).bytes;
}

void launch_crf(Stream stream, const uint8_t* image, const float* unary, int64_t count, int labels, int height,
                int width, const CrfOptions& options, float* q, int32_t* status, void* workspace) {
  Crf crf = plan_crf(count, labels, height, width, options);
  crf::cuda::Args& args = crf.args;
  if (count == 0) return;
  const Scope scope(stream, unary);
  const Device& device = scope.device();
  const Memory memory(workspace, crf.bytes, stream);
  void* place = memory.data();

  Launch how;
  how.block = crf::cuda::kThreads;
  how.stream = stream;
  const auto over = [&](int64_t n) { how.grid = unsigned((n + how.block - 1) / how.block); };
  // As arguments, which a launch copies: a copy from host memory would have to wait, and a graph would read it later.
  crf::cuda::Words words{};
  for (size_t first = 0; first < crf.words.size(); first += words.count) {
    words.count = int(std::min(crf.words.size() - first, std::size(words.value)));
    std::copy_n(crf.words.begin() + first, words.count, words.value);
    int* to = reinterpret_cast<int*>(static_cast<unsigned char*>(place) + args.words) + first;
    void* sent[] = {&words, &to};
    over(words.count);
    launch(function(Image::crf, "lidcam_crf_words"), how, sent);
  }
  how.rows = unsigned(count * args.terms);
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
