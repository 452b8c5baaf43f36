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

constexpr size_t kKept = size_t(8) << 20;  // bytes that a thread keeps for the next mask

// The components of a mask while this lives.
class Found {
 public:
  explicit Found(const Mask& mask) : data(mask.data()), h(int(mask.shape(0))), w(int(mask.shape(1))) {
    all = &finder().find(data, h, w);
  }
  ~Found() { finder().trim(kKept); }
  Found(const Found&) = delete;
  Found& operator=(const Found&) = delete;

  static Finder& finder() {
    thread_local Finder f;
    return f;
  }
  int largest(bool by_pixels) const { return finder().largest(data, h, w, by_pixels); }

  const uint8_t* data;
  int h, w;
  const std::vector<Component>* all;
};

nb::object largest_box(Mask mask, bool by_pixels) {
  Component c{};
  int best;
  {
    nb::gil_scoped_release release;
    const Found found(mask);
    best = found.largest(by_pixels);
    if (best >= 0) c = (*found.all)[best];
  }
  if (best < 0) return nb::none();
  return nb::make_tuple(c.x0, c.y0, c.x1, c.y1);
}

nb::ndarray<nb::numpy, int64_t> boxes(Mask mask) {
  std::vector<Component> all;
  {
    nb::gil_scoped_release release;
    all = *Found(mask).all;
  }
  auto result = new_array<int64_t>({all.size(), 5});
  int64_t* out = result.data();
  for (const Component& c : all) {
    const int64_t row[5] = {c.x0, c.y0, c.x1, c.y1, c.pixels};
    out = std::copy(row, row + 5, out);
  }
  return result;
}

nb::tuple label(Mask mask) {
  auto result = new_array<int32_t>({mask.shape(0), mask.shape(1)});
  size_t n;
  {
    nb::gil_scoped_release release;
    const Found found(mask);
    n = found.all->size();
    found.finder().paint(result.data(), found.h, found.w);
  }
  return nb::make_tuple(result, n);
}

nb::ndarray<nb::numpy, uint8_t> largest_component(Mask mask, bool by_pixels) {
  auto result = new_array<uint8_t>({mask.shape(0), mask.shape(1)});
  {
    nb::gil_scoped_release release;
    const Found found(mask);
    found.finder().paint_one(found.largest(by_pixels), result.data(), found.h, found.w);
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
