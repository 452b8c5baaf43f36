// lidcam_rt._kernels.pas: PaS on the CPU.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>

#include "pas/pas.h"
#include "python/arrays.h"

namespace nb = nanobind;
using lidcam::python::new_array;

namespace {

using Cam = nb::ndarray<const float, nb::shape<-1, -1, -1, -1>, nb::c_contig, nb::device::cpu>;

nb::tuple bind_pas_batch(Cam cam, int height, int width, double percentile, double theta, std::string_view mode,
                         std::string_view precision, std::string_view where, std::string_view interpolation,
                         int threads) {
  const auto options = lidcam::pas::make_options(percentile, theta, mode, precision, where, interpolation);
  const int64_t sides[4] = {int64_t(cam.shape(2)), int64_t(cam.shape(3)), height, width};
  for (const int64_t side : sides)
    if (side < 1 || side > 32768) throw nb::value_error("a side must have 1 to 32768 pixels");
  const size_t n = cam.shape(0), k = cam.shape(1), h = height, w = width;
  auto map = new_array<uint8_t>({n, k, h, w}), mask = new_array<uint8_t>({n, k, h, w});
  auto threshold = new_array<float>({n, k});
  {
    nb::gil_scoped_release release;
    lidcam::pas::pas_batch(cam.data(), int64_t(n * k), int(sides[0]), int(sides[1]), height, width, options, threads,
                           map.data(), mask.data(), threshold.data());
  }
  return nb::make_tuple(map, mask, threshold);
}

}  // namespace

void bind_pas(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("pas", "Percentile as a standard. Use lidcam_rt.pas.");
  m.def("pas", &bind_pas_batch, nb::arg("cam"), nb::arg("height"), nb::arg("width"), nb::arg("percentile"),
        nb::arg("theta"), nb::arg("mode"), nb::arg("precision"), nb::arg("where"), nb::arg("interpolation"),
        nb::arg("threads"),
        "PaS on the CPU.\n\nArgs:\n    cam: float32 [N, K, h, w], C-contiguous.\n    height, width: of the output.\n"
        "    percentile, theta, mode, precision, where, interpolation: the operator's attributes (docs/operator.md).\n"
        "    threads: at most this many share the maps.\n\nReturns:\n    map uint8 [N, K, H, W], mask uint8 of that "
        "shape (0 or 1), threshold float32 [N, K].\n\nRaises:\n    ValueError: a value is out of its range.");
  m.def(
      "integer_attributes",
      [](double percentile, double theta, std::string_view mode, std::string_view precision, std::string_view where,
         std::string_view interpolation) {
        const auto options = lidcam::pas::make_options(percentile, theta, mode, precision, where, interpolation);
        return nb::make_tuple(lidcam::pas::percentile_milli(options), lidcam::pas::theta_micro(options),
                              lidcam::pas::flags(options));
      },
      nb::arg("percentile"), nb::arg("theta"), nb::arg("mode"), nb::arg("precision"), nb::arg("where"),
      nb::arg("interpolation"),
      "The attributes as the CUDA kernels take them.\n\nReturns:\n    percentile_milli, theta_micro, flags (see "
      "kernels/pas/pas_args.h).\n\nRaises:\n    ValueError: a value is out of its range.");
}
