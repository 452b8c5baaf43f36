// numpy arrays for results. Their memory goes back to the pool of cpu/memory.h.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>

#include "cpu/memory.h"

namespace lidcam::python {

// Uninitialised, in C order.
template <typename T>
nanobind::ndarray<nanobind::numpy, T> new_array(std::initializer_list<size_t> shape) {
  size_t count = 1;
  for (const size_t side : shape) count *= side;
  auto memory = std::make_unique<cpu::Buffer<T>>(count);
  T* data = memory->data();
  nanobind::capsule owner(memory.get(), [](void* p) noexcept { delete static_cast<cpu::Buffer<T>*>(p); });
  memory.release();
  return nanobind::ndarray<nanobind::numpy, T>(data, shape, owner);
}

}  // namespace lidcam::python
