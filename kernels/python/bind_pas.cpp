// lidcam_rt._kernels.pas: PaS on the CPU.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>

#include "pas/pas.h"
#include "python/pool.h"

namespace nb = nanobind;

namespace {

using Cam = nb::ndarray<const float, nb::shape<-1, -1, -1, -1>, nb::c_contig, nb::device::cpu>;

nb::ndarray<nb::numpy, uint8_t> pooled(size_t n, size_t k, size_t h, size_t w) {
  struct Block {
    void* data;
    size_t bytes;
  };
  auto block = std::make_unique<Block>(Block{nullptr, n * k * h * w + 1});
  block->data = lidcam::Pool::instance().take(block->bytes);
  auto* data = static_cast<uint8_t*>(block->data);
  nb::capsule owner(block.release(), [](void* p) noexcept {
    std::unique_ptr<Block> mine(static_cast<Block*>(p));
    lidcam::Pool::instance().give(mine->data, mine->bytes);
  });
  return nb::ndarray<nb::numpy, uint8_t>(data, {n, k, h, w}, owner);
}

nb::ndarray<nb::numpy, float> owned(float* data, size_t n, size_t k) {
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return nb::ndarray<nb::numpy, float>(data, {n, k}, owner);
}

}  // namespace

void bind_pas(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("pas", "Percentile as a standard. Use lidcam_rt.pas.");
  m.def("pas", [](Cam cam, int height, int width, double percentile, double theta, bool normalize,
                  bool float_precision, bool raw, bool linear, int threads) {
    const int64_t sides[4] = {int64_t(cam.shape(2)), int64_t(cam.shape(3)), height, width};
    for (const int64_t side : sides)
      if (side < 1 || side > 32768) throw nb::value_error("a side must have 1 to 32768 pixels");
    if (!(percentile >= 0 && percentile <= 100 && theta >= 0 && theta <= 1))
      throw nb::value_error("percentile must be 0 to 100 and theta 0 to 1");
    const size_t n = cam.shape(0), k = cam.shape(1), h = height, w = width;
    auto map_out = pooled(n, k, h, w);
    auto mask_out = pooled(n, k, h, w);
    auto* threshold = new float[n * k + 1];
    auto threshold_out = owned(threshold, n, k);
    lidcam::pas::Options options{percentile, theta, normalize, float_precision, raw, linear};
    {
      nb::gil_scoped_release release;
      lidcam::pas::pas_batch(cam.data(), int64_t(n * k), int(cam.shape(2)), int(cam.shape(3)), height, width, options,
                             threads, map_out.data(), mask_out.data(), threshold);
    }
    return nb::make_tuple(map_out, mask_out, threshold_out);
  }, nb::arg("cam"), nb::arg("height"), nb::arg("width"), nb::arg("percentile"), nb::arg("theta"),
      nb::arg("normalize"), nb::arg("float_precision"), nb::arg("raw"), nb::arg("linear"), nb::arg("threads"));
  m.def("isa", [] { return lidcam::pas::loops().name; }, "Instruction set of the loops: base, avx2 or avx512.");
}
