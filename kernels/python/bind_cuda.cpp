// lidcam_rt._kernels.cuda: the CUDA kernels on device pointers. Use lidcam_rt.device.kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "crf/lattice.h"
#include "cuda/images.h"
#include "cuda/launch_boxes.h"
#include "cuda/launch_crf.h"
#include "cuda/launch_pas.h"

namespace nb = nanobind;
using namespace lidcam::cuda;

namespace {

template <class T>
T* device(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

void bind_cuda(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("cuda", "CUDA kernels on device pointers. Use lidcam_rt.device.kernels.");
  static nb::exception<Error> error(m, "Error");
  m.def("compiled", &compiled);
  m.def("available", &available);
  m.def("reason", &reason);
  m.def("architectures", [] { return std::string(architectures()); });
  m.def("devices", [] {
    nb::list all;
    for (const Device& d : devices()) {
      nb::dict entry;
      entry["ordinal"] = d.ordinal;
      entry["name"] = d.name;
      entry["major"] = d.major;
      entry["minor"] = d.minor;
      entry["processors"] = d.processors;
      entry["shared_limit"] = d.shared_limit;
      all.append(entry);
    }
    return all;
  });
  m.def(
      "pas_ahead_of_time",
      [](int major) {
        const AheadOfTime a = pas_ahead_of_time(major);
        return nb::make_tuple(nb::bytes(a.ptx.data(), a.ptx.size()), a.blocks_per_map);
      },
      nb::arg("major"));
  // Address, shape, type code, bits and device of an array that offers DLPack only.
  m.def(
      "look",
      [](nb::ndarray<> a) {
        nb::list shape;
        bool dense = true;
        int64_t step = 1;
        for (size_t i = a.ndim(); i-- > 0;) {
          dense = dense && (a.shape(i) <= 1 || a.stride(i) == step);
          step *= int64_t(a.shape(i));
        }
        for (size_t i = 0; i < a.ndim(); ++i) shape.append(a.shape(i));
        return nb::make_tuple(reinterpret_cast<uintptr_t>(a.data()), nb::tuple(shape), int(a.dtype().code),
                              int(a.dtype().bits), a.device_type() == nb::device::cuda::value, dense);
      },
      nb::arg("array"));
  m.def("pas",
        [](uintptr_t cam, int64_t count, int h, int w, int height, int width, double percentile, double theta,
           std::string_view mode, std::string_view precision, std::string_view where, std::string_view interpolation,
           uintptr_t map, uintptr_t mask, uintptr_t threshold, uintptr_t stream) {
          const auto options = lidcam::pas::make_options(percentile, theta, mode, precision, where, interpolation);
          nb::gil_scoped_release release;
          launch_pas(device<void>(stream), device<float>(cam), count, h, w, height, width, options,
                     device<uint8_t>(map), device<uint8_t>(mask), device<float>(threshold));
        });
  m.def("boxes", [](uintptr_t mask, int64_t count, int height, int width, bool by_pixels, uintptr_t boxes,
                    uintptr_t stream) {
    nb::gil_scoped_release release;
    launch_boxes(device<void>(stream), device<uint8_t>(mask), count, height, width, by_pixels, device<int32_t>(boxes));
  });
  // terms: as `lidcam_rt._kernels.crf.infer` takes them: (standard deviations, compat, normalization) each.
  m.def("mean_field", [](uintptr_t image, uintptr_t unary, int64_t count, int labels, int height, int width,
                         const std::vector<std::tuple<std::vector<float>, std::vector<float>, int>>& given,
                         int iterations, uintptr_t q, uintptr_t status, int capacity, float tolerance,
                         const std::vector<std::vector<int>>& present, uintptr_t stream) {
    CrfOptions options{{}, iterations, tolerance, present, capacity};
    for (const auto& [deviation, compat, normalization] : given) {
      const auto kind = lidcam::crf::Normalization(normalization);
      CrfTerm term;
      term.bilateral = deviation.size() == 5;
      term.compat = compat;
      term.before = kind == lidcam::crf::Normalization::symmetric || kind == lidcam::crf::Normalization::before;
      term.after = kind == lidcam::crf::Normalization::symmetric || kind == lidcam::crf::Normalization::after;
      std::copy_n(deviation.begin(), std::min<size_t>(5, deviation.size()), term.deviation);
      options.terms.push_back(term);
    }
    nb::gil_scoped_release release;
    launch_crf(device<void>(stream), device<uint8_t>(image), device<float>(unary), count, labels, height, width,
               options, device<float>(q), device<int32_t>(status));
  });
  m.def("boxes_at_size", [](uintptr_t map, uintptr_t level, int64_t count, int map_height, int map_width, int height,
                            int width, bool by_pixels, uintptr_t boxes, uintptr_t stream) {
    nb::gil_scoped_release release;
    launch_boxes_at_size(device<void>(stream), device<uint8_t>(map), device<float>(level), count, map_height, map_width,
                         height, width, by_pixels, device<int32_t>(boxes));
  });
}
