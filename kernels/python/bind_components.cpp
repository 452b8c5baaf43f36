// lidcam_rt._kernels.components: connected components and boxes of a mask.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "components/components.h"

namespace nb = nanobind;
using lidcam::components::Component;
using lidcam::components::Finder;

namespace {

using Mask = nb::ndarray<const uint8_t, nb::shape<-1, -1>, nb::c_contig, nb::device::cpu>;

Finder& finder() {
  thread_local Finder f;
  return f;
}

template <typename T>
nb::ndarray<nb::numpy, T> owned(T* data, std::initializer_list<size_t> shape) {
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, shape, owner);
}

}  // namespace

void bind_components(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("components", "Connected components of a mask. Use lidcam_rt.boxes.");
  m.def("largest_box", [](Mask mask, bool by_pixels) -> nb::object {
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
  }, nb::arg("mask"), nb::arg("by_pixels"));
  m.def("boxes", [](Mask mask) {
    const int h = int(mask.shape(0)), w = int(mask.shape(1));
    const std::vector<Component>* all;
    {
      nb::gil_scoped_release release;
      all = &finder().find(mask.data(), h, w);
    }
    const size_t n = all->size();
    auto* out = new int64_t[5 * n + 1];
    for (size_t i = 0; i < n; ++i) {
      const Component& c = (*all)[i];
      const int64_t row[5] = {c.x0, c.y0, c.x1, c.y1, c.pixels};
      std::copy(row, row + 5, out + 5 * i);
    }
    return owned<int64_t>(out, {n, 5});
  }, nb::arg("mask"));
  m.def("label", [](Mask mask) {
    const int h = int(mask.shape(0)), w = int(mask.shape(1));
    auto* out = new int32_t[size_t(h) * w + 1];
    auto result = owned<int32_t>(out, {size_t(h), size_t(w)});
    size_t n;
    {
      nb::gil_scoped_release release;
      n = finder().find(mask.data(), h, w).size();
      finder().paint(out, h, w);
    }
    return nb::make_tuple(result, n);
  }, nb::arg("mask"));
  m.def("largest_component", [](Mask mask, bool by_pixels) {
    const int h = int(mask.shape(0)), w = int(mask.shape(1));
    auto* out = new uint8_t[size_t(h) * w + 1];
    auto result = owned<uint8_t>(out, {size_t(h), size_t(w)});
    {
      nb::gil_scoped_release release;
      finder().find(mask.data(), h, w);
      finder().paint_one(finder().largest(mask.data(), h, w, by_pixels), out, h, w);
    }
    return result;
  }, nb::arg("mask"), nb::arg("by_pixels"));
}
