// Runs the CUDA kernels through the shim in several scheduling orders and compares with the CPU kernels: exit status 1
// at the first difference. Built twice: with the sanitizers, and with every barrier behind a switch (LIDCAM_MUTANTS).
#include <sys/resource.h>

#include <cstdio>

#include "components/components.h"
#include "components/runs.h"
#include "kernels_on_cpu.h"
#include "pas/pas.h"

namespace {

uint32_t state = 1;
float uniform() {
  state = state * 1664525u + 1013904223u;
  return float(state >> 8) / 16777216.0f;
}

bool pas_case(int h, int w, int height, int width, int flags, int milli, int micro, int threads, int cluster,
              int shared, int order, uint64_t seed, float scale) {
  const int count = 2;
  const size_t n = size_t(height) * width;
  std::vector<float> cam(size_t(count) * h * w);
  for (float& v : cam) v = (uniform() - 0.3f) * scale;
  if (flags & 64)
    for (float& v : cam) v = v > 0 ? 1.0f : 0.0f;
  lidcam::pas::Options options{milli / 1000.0,
                               micro / 1e6,
                               bool(flags & lidcam::pas::cuda::kNormalize),
                               bool(flags & lidcam::pas::cuda::kFloat),
                               bool(flags & lidcam::pas::cuda::kRaw),
                               bool(flags & lidcam::pas::cuda::kLinear)};
  const on_cpu::PasArgs args{h, w, height, width, milli, micro, flags & 31, shared};
  std::vector<uint8_t> map(count * n, 7), mask(count * n, 7), expected_map(count * n), expected_mask(count * n);
  std::vector<float> threshold(count, -3), expected(count);
  lidcam::pas::pas_batch(cam.data(), count, h, w, height, width, options, 1, expected_map.data(), expected_mask.data(),
                         expected.data());
  on_cpu::pas(on_cpu::grid(count, threads, cluster, shared, order, seed), cam.data(), args, map.data(), mask.data(),
              threshold.data());
  if (map != expected_map || mask != expected_mask || threshold != expected) return false;
  if (cluster > 1) return true;
  std::vector<uint32_t> words(count * n), above(count * n);
  on_cpu::pas_aot(on_cpu::grid(count, threads, 1, shared, order, seed), cam.data(), args, words.data(), above.data(),
                  threshold.data());
  const bool integers = flags & lidcam::pas::cuda::kIntegers;
  for (size_t i = 0; i < count * n; ++i) {
    const int a = integers ? int(words[i]) : int(__uint_as_float(words[i]));
    const int b = integers ? int(above[i]) : int(__uint_as_float(above[i]));
    if (a != expected_map[i] || b != expected_mask[i]) return false;
  }
  return threshold == expected;
}

bool boxes_case(int height, int width, float share, bool by_pixels, int threads, int shared, int order,
                uint64_t seed) {
  const int count = 2;
  const size_t n = size_t(height) * width;
  std::vector<uint8_t> mask(count * n);
  for (uint8_t& v : mask) v = uniform() < share;
  const int64_t stride = lidcam::components::cuda::resized_run_bytes(height, width);
  std::vector<unsigned char> memory(count * stride, 0xff);
  std::vector<int> found(4 * count, -7);
  const on_cpu::Grid grid = on_cpu::grid(count, threads, 1, shared, order, seed);
  on_cpu::boxes(grid, mask.data(), height, width, by_pixels, memory.data(), stride, found.data());
  std::vector<float> level(count, 0.0f);
  std::vector<int> resized(4 * count, -7);
  std::fill(memory.begin(), memory.end(), 0xff);
  // At twice the size a mask of 0 and 1 keeps what it had where the weights round to 1.
  on_cpu::boxes_at_size(grid, mask.data(), level.data(), height, width, height, width, by_pixels, memory.data(),
                        stride, resized.data());
  lidcam::components::Finder finder;
  for (int i = 0; i < count; ++i) {
    const auto& all = finder.find(mask.data() + i * n, height, width);
    const int best = finder.largest(mask.data() + i * n, height, width, by_pixels);
    int expected[4] = {-1, -1, -1, -1};
    if (best >= 0) {
      const auto& c = all[best];
      const int box[4] = {c.x0, c.y0, c.x1, c.y1};
      std::copy(box, box + 4, expected);
    }
    if (!std::equal(expected, expected + 4, found.begin() + 4 * i)) return false;
    if (!std::equal(expected, expected + 4, resized.begin() + 4 * i)) return false;
  }
  return true;
}

// A resize to another size: the weights go through memory before they are read.
bool resized_case(int order, uint64_t seed) {
  const int h = 9, w = 7, height = 40, width = 55;
  std::vector<uint8_t> map(h * w);
  for (uint8_t& v : map) v = uint8_t(uniform() * 255);
  const float level = 128;
  std::vector<std::vector<int>> found;
  for (int threads : {32, 96}) {
    const int64_t stride = lidcam::components::cuda::resized_run_bytes(height, width);
    std::vector<unsigned char> memory(stride, 0xff);
    std::vector<int> box(4, -7);
    on_cpu::boxes_at_size(on_cpu::grid(1, threads, 1, 8192, threads == 32 ? 0 : order, seed), map.data(), &level, h, w,
                          height, width, 0, memory.data(), stride, box.data());
    found.push_back(box);
  }
  return found[0] == found[1];
}

}  // namespace

#ifdef LIDCAM_MUTANTS
int lidcam_mutant = -1;
#endif

int main(int argc, char** argv) {
  const char* subject = argc > 1 ? argv[1] : "all";
#ifdef LIDCAM_MUTANTS
  if (argc > 2) lidcam_mutant = std::atoi(argv[2]);
  const rlimit limit{4, 4};  // seconds: a kernel without its barrier may never end
  setrlimit(RLIMIT_CPU, &limit);
#endif
  const int every = argc > 3 ? std::atoi(argv[3]) : 1;
  const bool pas = subject[0] == 'a' || subject[0] == 'p', boxes = subject[0] == 'a' || subject[0] == 'c';
  int number = 0;
  for (int order = 0; order < 4; ++order) {  // two seeds of the random order
    const int o = order < 2 ? order : 2;
    for (int flags = 0; pas && flags < 16; ++flags) {
      const int cluster = 1 << ((flags + order) % 3), threads = (flags / 3 + order) % 2 ? 96 : 64;
      const int shared[3] = {32768, 9200, 8960};
      struct {
        int h, w, height, width;
      } const sizes[3] = {{5, 6, 21, 24}, {7, 3, 13, 50}, {12, 9, 9, 7}};
      for (int k = 0; k < 3; ++k, ++number) {
        if (number % every) continue;
        const auto& s = sizes[k];
        const float scale = k == 2 && flags % 4 == 0 ? 3e38f : 1.0f;
        if (!pas_case(s.h, s.w, s.height, s.width, flags | (k == 1 ? 16 : 0) | (number % 7 == 3 ? 64 : 0),
                      number % 5 ? 100000 - 3301 * (number % 30) : 100000, 350000 + 1000 * number % 650000, threads,
                      cluster, shared[(k + flags) % 3], o, order, scale)) {
          std::printf("pas: case %d differs in order %d\n", number, order);
          return 1;
        }
      }
    }
    for (int k = 0; boxes && k < 24; ++k, ++number) {
      if (number % every) continue;
      const int sides[4][2] = {{30, 40}, {17, 64}, {90, 6}, {1, 50}};
      const int threads = k % 3 == 0 ? 32 : 96;
      if (!boxes_case(sides[k % 4][0], sides[k % 4][1], 0.1f + 0.12f * (k % 8), k % 2, threads,
                      k % 5 ? 32768 : 640, o, order + 10 * k)) {
        std::printf("components: case %d differs in order %d\n", number, order);
        return 1;
      }
    }
    if (boxes && !resized_case(o, order)) {
      std::printf("components: the resized box differs in order %d\n", order);
      return 1;
    }
  }
  std::printf("%d cases agree\n", number);
  return 0;
}
