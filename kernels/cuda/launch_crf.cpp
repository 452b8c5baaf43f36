#include "cuda/launch_crf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <stdexcept>

#include "crf/cuda_steps.h"
#include "cuda/launching.h"

namespace lidcam::cuda {
namespace {

constexpr int kThreadsPerProcessor = 2048;
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
  size_t longest = 0;
  for (const std::vector<int>& list : options.labels) {
    if (list.size() < 2) throw std::invalid_argument("a dense CRF has at least 2 labels present in each image");
    for (size_t i = 0; i < list.size(); ++i)
      if (list[i] < 0 || list[i] >= args.labels || (i && list[i] <= list[i - 1]))
        throw std::invalid_argument("labels present must be distinct, ascending and of those that there are");
    longest = std::max(longest, list.size());
  }
  if ((longest + 1) * options.labels.size() > size_t(kMaxWords) - crf->words.size())
    throw std::invalid_argument("the lists of labels hold more than 2^20 numbers: give fewer images at once");
  args.lists = int(crf->words.size());
  args.list = options.labels.size() > 1 ? int(longest) + 1 : 0;
  for (const std::vector<int>& list : options.labels) {
    crf->words.push_back(int(list.size()));
    crf->words.insert(crf->words.end(), list.begin(), list.end());
    crf->words.resize(crf->words.size() + longest - list.size());
  }
  return int(longest);
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
  const int64_t limit = crf::cuda::kCorners * (pixels + 1);
  const int64_t wanted = options.capacity ? options.capacity : 2 * pixels + 64;
  args.capacity = int(std::min(limit, wanted));
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
  const size_t lattices =
      size_t(crf::cuda::place(crf::cuda::tiles(height, width), args.capacity, args.slots, args.channels).bytes);
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
                int width, const CrfOptions& options, float* q, int32_t* status, const Workspace& workspace) {
  Crf crf = plan_crf(count, labels, height, width, options);
  crf::cuda::Args& args = crf.args;
  if (count == 0) return;
  const Scope scope(stream, unary);
  const Device& device = scope.device();
  const Memory memory(workspace, crf.bytes, stream, device);

  Launch how;
  how.block = crf::cuda::kThreads;
  how.stream = stream;
  const auto over = [&](int64_t n) { how.grid = unsigned((n + how.block - 1) / how.block); };
  // As arguments, which a launch copies: a copy from host memory would have to wait, and a graph would read it later.
  crf::cuda::Words words{};
  for (size_t first = 0; first < crf.words.size(); first += words.count) {
    words.count = int(std::min(crf.words.size() - first, std::size(words.value)));
    std::copy_n(crf.words.begin() + first, words.count, words.value);
    int* to = reinterpret_cast<int*>(static_cast<unsigned char*>(memory.data()) + args.words) + first;
    void* sent[] = {&words, &to};
    over(words.count);
    launch(function(Image::crf, "lidcam_crf_words"), how, sent);
  }
  crf::cuda::Arrays arrays{image, unary, static_cast<unsigned char*>(memory.data()), q, status};
  const int64_t at_once = int64_t(device.processors) * kThreadsPerProcessor;
  crf::cuda::each_step(args, count, at_once,
                       [&](const char* kernel, int64_t blocks, int threads, int64_t rows, int number, int phase) {
                         void* arguments[] = {&arrays, &args, &number, &phase};
                         how.grid = unsigned(blocks), how.block = unsigned(threads);
                         how.rows = unsigned(rows);
                         launch(function(Image::crf, kernel), how, arguments);
                       });
}

}  // namespace lidcam::cuda
