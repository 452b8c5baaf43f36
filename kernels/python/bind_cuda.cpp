// lidcam_rt._kernels.cuda: the CUDA kernels on device pointers. Use lidcam_gpu.kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "crf/lattice.h"
#include "cuda/images.h"
#include "cuda/launch_boxes.h"
#include "cuda/launch_crf.h"
#include "cuda/launch_pas.h"
#include "cuda/launch_picture.h"

namespace nb = nanobind;
using namespace lidcam::cuda;

namespace {

using Terms = std::vector<std::tuple<std::vector<float>, std::vector<float>, int>>;

template <class T>
T* device(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

nb::list list_devices() {
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
}

// Address, shape, type code, bits, device and density of an array behind a DLPack capsule, and what keeps it alive: its
// memory may belong to the capsule alone.
nb::tuple look(nb::ndarray<nb::ro> array) {
  nb::list shape;
  bool dense = true;
  int64_t step = 1;
  for (size_t i = array.ndim(); i-- > 0;) {
    dense = dense && (array.shape(i) <= 1 || array.stride(i) == step);
    step *= int64_t(array.shape(i));
  }
  for (size_t i = 0; i < array.ndim(); ++i) shape.append(array.shape(i));
  auto kept = std::make_unique<nb::ndarray<nb::ro>>(array);
  nb::capsule owner(kept.get(), [](void* p) noexcept { delete static_cast<nb::ndarray<nb::ro>*>(p); });
  kept.release();
  return nb::make_tuple(reinterpret_cast<uintptr_t>(array.data()), nb::tuple(shape), int(array.dtype().code),
                        int(array.dtype().bits), array.device_type() == nb::device::cuda::value, dense, owner);
}

void pas(uintptr_t cam, int64_t count, int h, int w, int height, int width, double percentile, double theta,
         std::string_view mode, std::string_view precision, std::string_view where, std::string_view interpolation,
         uintptr_t map, uintptr_t mask, uintptr_t threshold, uintptr_t stream) {
  const auto options = lidcam::pas::make_options(percentile, theta, mode, precision, where, interpolation);
  nb::gil_scoped_release release;
  launch_pas(device<void>(stream), device<float>(cam), count, h, w, height, width, options, device<uint8_t>(map),
             device<uint8_t>(mask), device<float>(threshold));
}

void boxes(uintptr_t mask, int64_t count, int height, int width, bool by_pixels, uintptr_t boxes, uintptr_t workspace,
           size_t bytes, uintptr_t stream) {
  nb::gil_scoped_release release;
  launch_boxes(device<void>(stream), device<uint8_t>(mask), count, height, width, by_pixels, device<int32_t>(boxes),
               {device<void>(workspace), bytes});
}

void boxes_at_size(uintptr_t map, uintptr_t level, int64_t count, int map_height, int map_width, int height, int width,
                   bool by_pixels, uintptr_t boxes, uintptr_t workspace, size_t bytes, uintptr_t stream) {
  nb::gil_scoped_release release;
  launch_boxes_at_size(device<void>(stream), device<uint8_t>(map), device<float>(level), count, map_height, map_width,
                       height, width, by_pixels, device<int32_t>(boxes), {device<void>(workspace), bytes});
}

// terms: as lidcam_rt._kernels.crf.infer takes them.
CrfOptions crf_options(const Terms& terms, int iterations, int capacity, float tolerance,
                       const std::vector<std::vector<int>>& present) {
  using lidcam::crf::Normalization;
  CrfOptions options{{}, iterations, tolerance, present, capacity};
  for (const auto& [deviation, compat, normalization] : terms) {
    const auto kind = Normalization(normalization);
    CrfTerm term;
    term.bilateral = deviation.size() == 5;
    term.compat = compat;
    term.before = kind == Normalization::symmetric || kind == Normalization::before;
    term.after = kind == Normalization::symmetric || kind == Normalization::after;
    std::copy_n(deviation.begin(), std::min<size_t>(5, deviation.size()), term.deviation);
    options.terms.push_back(term);
  }
  return options;
}

void mean_field(uintptr_t image, uintptr_t unary, int64_t count, int labels, int height, int width, const Terms& terms,
                int iterations, uintptr_t q, uintptr_t status, int capacity, float tolerance,
                const std::vector<std::vector<int>>& present, uintptr_t workspace, size_t bytes, uintptr_t stream) {
  const CrfOptions options = crf_options(terms, iterations, capacity, tolerance, present);
  nb::gil_scoped_release release;
  launch_crf(device<void>(stream), device<uint8_t>(image), device<float>(unary), count, labels, height, width, options,
             device<float>(q), device<int32_t>(status), {device<void>(workspace), bytes});
}

void resample(uintptr_t from, int height, int width, bool along_x, uintptr_t bounds, uintptr_t weights, int taps,
              int size, uintptr_t to, uintptr_t stream) {
  nb::gil_scoped_release release;
  launch_resample(device<void>(stream), device<uint8_t>(from), height, width, along_x, device<int32_t>(bounds),
                  device<int32_t>(weights), taps, size, device<uint8_t>(to));
}

void energies(uintptr_t map, uintptr_t threshold, uintptr_t table, int64_t count, int pixels, uintptr_t unary,
              uintptr_t found, uintptr_t stream) {
  nb::gil_scoped_release release;
  launch_energies(device<void>(stream), device<uint8_t>(map), device<float>(threshold), device<float>(table), count,
                  pixels, device<float>(unary), device<int32_t>(found));
}

void refined(uintptr_t q, uintptr_t found, int64_t count, int pixels, uintptr_t map, uintptr_t stream) {
  nb::gil_scoped_release release;
  launch_refined(device<void>(stream), device<float>(q), device<int32_t>(found), count, pixels, device<uint8_t>(map));
}

}  // namespace

void bind_cuda(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("cuda", "CUDA kernels on device pointers. Use lidcam_gpu.kernels.");
  static nb::exception<Error> error(m, "Error");
  m.def("compiled", &compiled);
  m.def("available", &available);
  m.def("reason", &reason);
  m.def("architectures", [] { return std::string(architectures()); });
  m.def("devices", &list_devices);
  m.def(
      "pas_ahead_of_time",
      [](int major) {
        const AheadOfTime a = pas_ahead_of_time(major);
        return nb::make_tuple(nb::bytes(a.ptx.data(), a.ptx.size()), a.blocks_per_map);
      },
      nb::arg("major"));
  m.def("look", &look, nb::arg("capsule"));
  m.def("device_of", [](uintptr_t address) { return device_of(device<void>(address)); }, nb::arg("address"));
  m.def(
      "wait_for",
      [](uintptr_t stream, uintptr_t other, uintptr_t address) {
        nb::gil_scoped_release release;
        const Scope scope(device<void>(stream), device<void>(address));
        wait_for(device<void>(stream), device<void>(other));
      },
      nb::arg("stream"), nb::arg("other"), nb::arg("address"));
  m.def(
      "warm_up",
      [](uintptr_t stream, uintptr_t address) {
        nb::gil_scoped_release release;
        const Scope scope(device<void>(stream), device<void>(address));
        warm_up(scope.device());
      },
      nb::arg("stream"), nb::arg("address"));
  m.def("pas", &pas);
  m.def("boxes", &boxes);
  m.def("boxes_at_size", &boxes_at_size);
  m.def("boxes_workspace", &boxes_workspace, nb::arg("count"), nb::arg("height"), nb::arg("width"));
  m.def("mean_field", &mean_field);
  m.def("resample", &resample);
  m.def("energies", &energies);
  m.def("refined", &refined);
  m.def("crf_workspace", [](int64_t count, int labels, int height, int width, const Terms& terms, int capacity,
                            float tolerance, const std::vector<std::vector<int>>& present) {
    return crf_workspace(count, labels, height, width, crf_options(terms, 0, capacity, tolerance, present));
  });
}
