// The CUDA sources, unmodified, compiled for the CPU: include after shim/cuda_on_cpu.h.
#pragma once
#include <string>

#include "components/components.cu"
#include "crf/mean_field.cu"
#include "pas/pas.cu"
#include "pas/pas_aot.cu"

namespace on_cpu {

constexpr size_t kCapacity = 256 * 1024;

}  // namespace on_cpu

thread_local __align__(16) unsigned char lidcam_pas_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_pas_aot_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_boxes_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_crf_shared[on_cpu::kCapacity];

namespace on_cpu {

using lidcam::shim::Grid;
using PasArgs = lidcam::pas::cuda::Args;

inline Grid grid(int64_t maps, int threads, int cluster, int shared, int order, uint64_t seed) {
  return {unsigned(maps * cluster),
          unsigned(threads),
          cluster,
          size_t(shared),
          kCapacity,
          lidcam::shim::Order(order),
          seed};
}

inline void pas(Grid g, const std::string& name, const float* cam, PasArgs args, const lidcam::pas::cuda::Taps& taps,
                uint8_t* map, uint8_t* mask, float* threshold) {
  const auto kernel = name == "lidcam_pas"        ? lidcam_pas
                      : name == "lidcam_pas_kept" ? lidcam_pas_kept
                                                  : lidcam_pas_cluster;
  const auto* given = &taps;
  lidcam::shim::launch(g, [] { return lidcam_pas_shared; }, [=] { kernel(cam, args, *given, map, mask, threshold); });
}

// The kernel that the launcher would take with so many blocks per map and threads, except that values are not kept
// where there is no room for the rows.
inline void pas(Grid g, const float* cam, PasArgs args, uint8_t* map, uint8_t* mask, float* threshold) {
  using namespace lidcam::pas::cuda;
  Taps taps;
  std::memset(&taps, 0xff, sizeof taps);
  make_taps(args, &taps);
  const bool keeps =
      fits_registers(args, g.cluster, int(g.threads)) && shared_bytes(args, g.cluster) <= int64_t(g.shared);
  pas(g,
      keeps           ? "lidcam_pas_kept"
      : g.cluster > 1 ? "lidcam_pas_cluster"
                      : "lidcam_pas",
      cam, args, taps, map, mask, threshold);
}

inline void pas_aot(Grid g, const float* cam, PasArgs a, uint32_t* map, uint32_t* mask, float* threshold) {
  lidcam::shim::launch(
      g, [] { return lidcam_pas_aot_shared; },
      [=] {
        lidcam_pas_aot(cam, nullptr, a.h, a.w, a.height, a.width, a.percentile_milli, a.theta_micro, a.flags,
                       a.shared_bytes, map, mask, threshold);
      });
}

inline void mask_bits(Grid g, const uint8_t* mask, int height, int width, unsigned parts, unsigned char* memory,
                      long long stride) {
  lidcam::shim::launch(
      g, [] { return lidcam_boxes_shared; }, [=] { lidcam_mask_bits(mask, height, width, parts, memory, stride); });
}

inline void map_bits(Grid g, const uint8_t* map, const float* level, int map_height, int map_width, int height,
                     int width, unsigned parts, unsigned char* memory, long long stride) {
  lidcam::shim::launch(
      g, [] { return lidcam_boxes_shared; },
      [=] { lidcam_map_bits(map, level, map_height, map_width, height, width, parts, memory, stride); });
}

inline void runs(Grid g, int height, int width, int by_pixels, unsigned char* memory, long long stride, int* out) {
  lidcam::shim::launch(
      g, [] { return lidcam_boxes_shared; },
      [=] { lidcam_boxes(height, width, by_pixels, int(g.shared), memory, stride, out); });
}

// Both launches on `count` masks.
inline void boxes(Grid g, const uint8_t* mask, int height, int width, int by_pixels, int* out) {
  using namespace lidcam::components::cuda;
  const int64_t stride = mask_bytes(height, width), parts = mask_bit_blocks(height, width, int(g.threads));
  std::vector<unsigned char> memory(g.blocks * stride, 0xff);
  Grid bits = g;
  bits.blocks = unsigned(g.blocks * parts);
  bits.shared = 0;
  mask_bits(bits, mask, height, width, unsigned(parts), memory.data(), stride);
  runs(g, height, width, by_pixels, memory.data(), stride, out);
}

inline void boxes_at_size(Grid g, const uint8_t* map, const float* level, int map_height, int map_width, int height,
                          int width, int by_pixels, int* out) {
  using namespace lidcam::components::cuda;
  const int64_t stride = mask_bytes(height, width), parts = map_bit_blocks(height, width, int(g.threads));
  std::vector<unsigned char> memory(g.blocks * stride, 0xff);
  Grid bits = g;
  bits.blocks = unsigned(g.blocks * parts);
  bits.shared = 0;
  map_bits(bits, map, level, map_height, map_width, height, width, unsigned(parts), memory.data(), stride);
  runs(g, height, width, by_pixels, memory.data(), stride, out);
}

using CrfArgs = lidcam::crf::cuda::Args;

// The kernels that build the lattices, then the one that iterates.
inline void crf_build(Grid g, const char* kernel, const uint8_t* image, CrfArgs args, unsigned char* memory) {
  const std::string name = kernel;
  lidcam::shim::launch(
      g, [] { return lidcam_crf_shared; },
      [=] {
        if (name == "lidcam_crf_clear")
          lidcam::crf::cuda::lidcam_crf_clear(args, memory);
        else if (name == "lidcam_crf_vertices")
          lidcam::crf::cuda::lidcam_crf_vertices(image, args, memory);
        else
          lidcam::crf::cuda::lidcam_crf_neighbours(args, memory);
      });
}
inline void crf(Grid g, const float* unary, CrfArgs args, unsigned char* memory, float* q, int* status) {
  lidcam::shim::launch(
      g, [] { return lidcam_crf_shared; },
      [=] {
        if (g.cluster > 1)
          lidcam::crf::cuda::lidcam_crf_cluster(unary, args, memory, q, status);
        else
          lidcam::crf::cuda::lidcam_crf(unary, args, memory, q, status);
      });
}

inline void crf_words(Grid g, lidcam::crf::cuda::Words words, int* to) {
  lidcam::shim::launch(g, [] { return lidcam_crf_shared; }, [=] { lidcam::crf::cuda::lidcam_crf_words(words, to); });
}

// All launches on `count` images. words: arrays as compat, then lists of labels.
inline void crf_whole(Grid g, int count, const uint8_t* image, const float* unary, CrfArgs args,
                      const std::vector<int>& words, float* q, int* status) {
  const int64_t pixels = int64_t(args.height) * args.width;
  args.words = count * args.terms * lidcam::crf::cuda::place(pixels, args.capacity, args.slots, args.channels).bytes;
  const int64_t arrays = int64_t(words.size() + 3) / 4 * 16, kept = args.tolerance > 0 ? args.words + arrays : 0;
  std::vector<unsigned char> memory(args.words + arrays + (kept ? 4 * count * args.channels * pixels : 0), 0xff);
  args.kept = kept;
  Grid build = g;
  build.cluster = 1;
  build.rows = unsigned(count * args.terms);
  const auto over = [&](const char* kernel, int64_t n) {
    build.blocks = unsigned((n + build.threads - 1) / build.threads);
    crf_build(build, kernel, image, args, memory.data());
  };
  if (!words.empty()) {
    lidcam::crf::cuda::Words sent{};
    sent.count = int(words.size());
    std::copy(words.begin(), words.end(), sent.value);
    Grid few = g;
    few.cluster = few.rows = 1;
    few.blocks = unsigned((words.size() + few.threads - 1) / few.threads);
    crf_words(few, sent, reinterpret_cast<int*>(memory.data() + args.words));
  }
  over("lidcam_crf_clear", std::max<int64_t>(args.slots, 12 * int64_t(args.capacity)));
  over("lidcam_crf_vertices", pixels + 3);
  over("lidcam_crf_neighbours", std::max<int64_t>(args.slots, pixels));
  args.shared_bytes = int(g.shared);
  crf(g, unary, args, memory.data(), q, status);
}

}  // namespace on_cpu
