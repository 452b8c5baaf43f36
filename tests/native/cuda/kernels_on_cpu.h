// The CUDA sources, unmodified, compiled for the CPU: include after shim/cuda_on_cpu.h.
#pragma once
#include <string>
#include <vector>

#include "components/components.cu"
#include "crf/cuda_steps.h"
#include "crf/mean_field.cu"
#include "image/picture.cu"
#include "pas/pas.cu"
#include "pas/pas_aot.cu"

namespace on_cpu {

constexpr size_t kCapacity = 256 * 1024;

}  // namespace on_cpu

thread_local __align__(16) unsigned char lidcam_pas_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_pas_aot_shared[on_cpu::kCapacity];
thread_local __align__(16) unsigned char lidcam_boxes_shared[on_cpu::kCapacity];

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

inline void pas(Grid g, const std::string& name, const float* cam, PasArgs args, const lidcam::pas::cuda::Plan& plan,
                uint8_t* map, uint8_t* mask, float* threshold) {
  const auto kernel = name == "lidcam_pas"                 ? lidcam_pas
                      : name == "lidcam_pas_bytes"         ? lidcam_pas_bytes
                      : name == "lidcam_pas_bytes_cluster" ? lidcam_pas_bytes_cluster
                                                           : lidcam_pas_cluster;
  const auto* given = &plan;
  lidcam::shim::launch(g, [] { return lidcam_pas_shared; }, [=] { kernel(cam, args, *given, map, mask, threshold); });
}

// The kernel that the launcher would take with so many blocks per map and so much shared memory.
inline void pas(Grid g, const float* cam, PasArgs args, uint8_t* map, uint8_t* mask, float* threshold) {
  using namespace lidcam::pas::cuda;
  Plan plan;
  std::memset(&plan, 0xff, sizeof plan);
  make_plan(args, &plan);
  const bool aligned = (reinterpret_cast<uintptr_t>(map) | reinterpret_cast<uintptr_t>(mask)) % 4 == 0;
  const bool bytes = aligned && takes_bytes(args) && shared_with_bytes(args, g.cluster) <= int64_t(g.shared);
  const std::string name = bytes ? "lidcam_pas_bytes" : "lidcam_pas";
  pas(g, name + (g.cluster > 1 ? "_cluster" : ""), cam, args, plan, map, mask, threshold);
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

// A kernel of image/picture.cu by its arguments.
inline void picture(Grid g, const std::string& name, void** a) {
  using namespace lidcam::image::cuda;
  const auto at = [a](int i, auto like) { return *static_cast<decltype(like)*>(a[i]); };
  const auto run = [&](auto kernel) { lidcam::shim::launch(g, [] { return lidcam_boxes_shared; }, kernel); };
  using Bytes = uint8_t*;
  using Ints = int*;
  using Floats = float*;
  if (name == "lidcam_resample")
    run([&] { lidcam_resample(at(0, Bytes()), at(1, 0), at(2, 0), at(3, 0), at(4, Weights()), at(5, Bytes())); });
  else if (name == "lidcam_energies")
    run([&] {
      lidcam_energies(at(0, Bytes()), at(1, Floats()), at(2, Floats()), at(3, 0), at(4, Floats()), at(5, Ints()));
    });
  else if (name == "lidcam_refined")
    run([&] { lidcam_refined(at(0, Floats()), at(1, Ints()), at(2, 0), at(3, Bytes())); });
  else
    run([&] { lidcam_zero(at(0, Ints()), at(1, 0)); });
}

using CrfArgs = lidcam::crf::cuda::Args;
using CrfArrays = lidcam::crf::cuda::Arrays;

// A kernel of the dense CRF.
inline void crf(Grid g, const std::string& name, CrfArrays arrays, const CrfArgs& args, int number, int phase) {
  using namespace lidcam::crf::cuda;
  using Kernel = void (*)(CrfArrays, CrfArgs, int, int);
  const std::pair<const char*, Kernel> kernels[] = {{"lidcam_crf_clear", lidcam_crf_clear},
                                                    {"lidcam_crf_vertices", lidcam_crf_vertices},
                                                    {"lidcam_crf_neighbours", lidcam_crf_neighbours},
                                                    {"lidcam_crf_weigh", lidcam_crf_weigh},
                                                    {"lidcam_crf_blur_weights", lidcam_crf_blur_weights},
                                                    {"lidcam_crf_norms", lidcam_crf_norms},
                                                    {"lidcam_crf_begin", lidcam_crf_begin},
                                                    {"lidcam_crf_blur", lidcam_crf_blur},
                                                    {"lidcam_crf_mix", lidcam_crf_mix},
                                                    {"lidcam_crf_step", lidcam_crf_step},
                                                    {"lidcam_crf_step_two", lidcam_crf_step_two}};
  for (const auto& [known, kernel] : kernels)
    if (name == known)
      return lidcam::shim::launch(
          g, [] { return lidcam_boxes_shared; }, [&, run = kernel] { run(arrays, args, number, phase); });
  lidcam::shim::fail("no kernel of that name");
}

inline void crf_words(Grid g, lidcam::crf::cuda::Words words, int* to) {
  lidcam::shim::launch(g, [] { return lidcam_boxes_shared; }, [=] { lidcam::crf::cuda::lidcam_crf_words(words, to); });
}

// All launches on `count` images. words: arrays as compat, then lists of labels. left_out: the number of a launch that
// is not made.
inline void crf_whole(Grid g, int count, const uint8_t* image, const float* unary, CrfArgs args,
                      const std::vector<int>& words, float* q, int* status, int left_out = -1) {
  const int64_t pixels = int64_t(args.height) * args.width;
  const int tiles = lidcam::crf::cuda::tiles(args.height, args.width);
  args.words = count * args.terms * lidcam::crf::cuda::place(tiles, args.capacity, args.slots, args.channels).bytes;
  const int64_t arrays = int64_t(words.size() + 3) / 4 * 16, kept = args.tolerance > 0 ? args.words + arrays : 0;
  std::vector<unsigned char> memory(args.words + arrays + (kept ? 4 * count * args.channels * pixels : 0), 0xff);
  args.kept = kept;
  g.cluster = 1;
  const auto over = [&](int64_t n) { g.blocks = unsigned((n + g.threads - 1) / g.threads); };
  if (!words.empty()) {
    lidcam::crf::cuda::Words sent{};
    sent.count = int(words.size());
    std::copy(words.begin(), words.end(), sent.value);
    over(words.size());
    crf_words(g, sent, reinterpret_cast<int*>(memory.data() + args.words));
  }
  int launches = 0;
  lidcam::crf::cuda::each_step(
      args, count, 512 * args.terms,
      [&](const char* kernel, int64_t blocks, int threads, int64_t rows, int number, int phase) {
        if (launches++ == left_out) return;
        g.blocks = unsigned(blocks), g.threads = unsigned(threads);
        g.rows = unsigned(rows);
        crf(g, kernel, {image, unary, memory.data(), q, status}, args, number, phase);
      });
}

}  // namespace on_cpu
