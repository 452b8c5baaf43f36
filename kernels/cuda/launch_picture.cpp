#include "cuda/launch_picture.h"

#include <stdexcept>

#include "cuda/launching.h"

namespace lidcam::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Weights {  // as in kernels/image/picture.cu
  const int32_t *bounds, *values;
  int taps, size;
};

Launch over(int64_t threads, int64_t rows, Stream stream) {
  if (rows > 65535) throw std::invalid_argument("a call takes at most 65535 maps");
  Launch how;
  how.grid = unsigned((threads + kThreads - 1) / kThreads);
  how.block = kThreads;
  how.stream = stream;
  how.rows = unsigned(rows);
  return how;
}

}  // namespace

void launch_resample(Stream stream, const uint8_t* from, int height, int width, bool along_x, const int32_t* bounds,
                     const int32_t* weights, int taps, int size, uint8_t* to) {
  check_size(1, {height, width, size});
  if (taps < 1) throw std::invalid_argument("a resampling has at least one weight");
  const Scope scope(stream, from);
  Weights axis{bounds, weights, taps, size};
  int x = along_x;
  void* arguments[] = {&from, &height, &width, &x, &axis, &to};
  launch(function(Image::picture, "lidcam_resample"), over(int64_t(size) * (along_x ? height : width), 1, stream),
         arguments);
}

void launch_energies(Stream stream, const uint8_t* map, const float* threshold, const float* table, int64_t count,
                     int pixels, float* unary, int32_t* found) {
  check_size(count, {1});
  if (count == 0 || pixels == 0) return;
  const Scope scope(stream, map);
  int words = int(count);
  void* zeroed[] = {&found, &words};
  launch(function(Image::picture, "lidcam_zero"), over(count, 1, stream), zeroed);
  void* arguments[] = {&map, &threshold, &table, &pixels, &unary, &found};
  launch(function(Image::picture, "lidcam_energies"), over(pixels, count, stream), arguments);
}

void launch_refined(Stream stream, const float* q, const int32_t* found, int64_t count, int pixels, uint8_t* map) {
  check_size(count, {1});
  if (count == 0 || pixels == 0) return;
  const Scope scope(stream, q);
  void* arguments[] = {&q, &found, &pixels, &map};
  launch(function(Image::picture, "lidcam_refined"), over(pixels, count, stream), arguments);
}

}  // namespace lidcam::cuda
