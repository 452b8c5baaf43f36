// lidcam_rt._kernels.pas: PaS on the CPU.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>

#include "pas/pas.h"

namespace nb = nanobind;

namespace {

using Cam = nb::ndarray<const float, nb::shape<-1, -1, -1, -1>, nb::c_contig, nb::device::cpu>;

template <typename T>
nb::ndarray<nb::numpy, T> owned(T* data, std::initializer_list<size_t> shape) {
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, shape, owner);
}

}  // namespace

void bind_pas(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("pas", "Percentile as a standard. Use lidcam_rt.pas.");
  m.def("pas", [](Cam cam, int height, int width, double percentile, double theta, bool normalize,
                  bool float_precision, bool raw, bool linear, int threads) {
    const size_t n = cam.shape(0), k = cam.shape(1), h = height, w = width;
    const size_t pixels = n * k * h * w;
    auto* map = new uint8_t[pixels + 1];
    auto map_out = owned<uint8_t>(map, {n, k, h, w});
    auto* mask = new uint8_t[pixels + 1];
    auto mask_out = owned<uint8_t>(mask, {n, k, h, w});
    auto* threshold = new float[n * k + 1];
    auto threshold_out = owned<float>(threshold, {n, k});
    lidcam::pas::Options options{percentile, theta, normalize, float_precision, raw, linear};
    {
      nb::gil_scoped_release release;
      lidcam::pas::pas_batch(cam.data(), int64_t(n * k), int(cam.shape(2)), int(cam.shape(3)), height, width, options,
                             threads, map, mask, threshold);
    }
    return nb::make_tuple(map_out, mask_out, threshold_out);
  }, nb::arg("cam"), nb::arg("height"), nb::arg("width"), nb::arg("percentile"), nb::arg("theta"),
      nb::arg("normalize"), nb::arg("float_precision"), nb::arg("raw"), nb::arg("linear"), nb::arg("threads"));
}
