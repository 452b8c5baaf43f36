// lidcam_rt._kernels.components: connected components and boxes of a mask.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "components/components.h"
#include "python/arrays.h"

namespace nb = nanobind;
using lidcam::components::Component;
using lidcam::components::Finder;
using lidcam::python::new_array;

namespace {

using Mask = nb::ndarray<const uint8_t, nb::shape<-1, -1>, nb::c_contig, nb::device::cpu>;

Finder& finder() {
  thread_local Finder f;
  return f;
}

nb::object largest_box(Mask mask, bool by_pixels) {
  const int h = int(mask.shape(0)), w = int(mask.shape(1));
  Component c{};
  int best;
  {
    nb::gil_scoped_release release;
    const auto& all = finder().find(mask.data(), h, w);
    best = finder().largest(mask.data(), h, w, by_pixels);
    if (best >= 0) c = all[best];
  }
  if (best < 0) return nb::none();
  return nb::make_tuple(c.x0, c.y0, c.x1, c.y1);
}

nb::ndarray<nb::numpy, int64_t> boxes(Mask mask) {
  const int h = int(mask.shape(0)), w = int(mask.shape(1));
  const std::vector<Component>* all;
  {
    nb::gil_scoped_release release;
    all = &finder().find(mask.data(), h, w);
  }
  auto result = new_array<int64_t>({all->size(), 5});
  int64_t* out = result.data();
  for (const Component& c : *all) {
    const int64_t row[5] = {c.x0, c.y0, c.x1, c.y1, c.pixels};
    out = std::copy(row, row + 5, out);
  }
  return result;
}

nb::tuple label(Mask mask) {
  const int h = int(mask.shape(0)), w = int(mask.shape(1));
  auto result = new_array<int32_t>({size_t(h), size_t(w)});
  size_t n;
  {
    nb::gil_scoped_release release;
    n = finder().find(mask.data(), h, w).size();
    finder().paint(result.data(), h, w);
  }
  return nb::make_tuple(result, n);
}

nb::ndarray<nb::numpy, uint8_t> largest_component(Mask mask, bool by_pixels) {
  const int h = int(mask.shape(0)), w = int(mask.shape(1));
  auto result = new_array<uint8_t>({size_t(h), size_t(w)});
  {
    nb::gil_scoped_release release;
    finder().find(mask.data(), h, w);
    finder().paint_one(finder().largest(mask.data(), h, w, by_pixels), result.data(), h, w);
  }
  return result;
}

}  // namespace

void bind_components(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("components", "Connected components of a mask. Use lidcam_rt.boxes.");
  m.def("largest_box", &largest_box, nb::arg("mask"), nb::arg("by_pixels"));
  m.def("boxes", &boxes, nb::arg("mask"));
  m.def("label", &label, nb::arg("mask"));
  m.def("largest_component", &largest_component, nb::arg("mask"), nb::arg("by_pixels"));
}
