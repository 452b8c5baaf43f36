#include "crf/mean_field.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lidcam::crf {
namespace {

// e^x for x in [-87, 88]; relative error below 2e-7 (Cephes' polynomial).
inline __attribute__((always_inline)) float exp_fast(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float t = x * 1.44269504f;
  const int k = int(t + (t >= 0 ? 0.5f : -0.5f));
  const float f = float(k);
  x = (x - f * 0.693359375f) + f * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * x + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = y * x * x + x + 1.0f;
  const int32_t bits = (k + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return y * scale;
}

LIDCAM_CLONES void odds(const float* e, int64_t n, float* s) {
  for (int64_t p = 0; p < n; ++p) {
    const float a = exp_fast(-e[p]);
    s[p] = (1.0f - a) / (1.0f + a);
  }
}

LIDCAM_CLONES void add(float* __restrict e, const float* __restrict k, float w, int64_t n) {
  for (int64_t p = 0; p < n; ++p) e[p] += w * k[p];
}

LIDCAM_CLONES void softmax(const float* e, int64_t n, int L, int S, float* q) {
  for (int64_t p = 0; p < n; ++p) {
    const float* a = e + p * S;
    float* __restrict b = q + p * S;
    float top = a[0];
    for (int l = 1; l < L; ++l) top = a[l] > top ? a[l] : top;
    for (int l = 0; l < L; ++l) b[l] = a[l] - top < -80.0f ? 0.0f : exp_fast(a[l] - top);
    float sum = 0;
    for (int l = 0; l < L; ++l) sum += b[l];
    const float inverse = 1.0f / sum;
    for (int l = 0; l < L; ++l) b[l] *= inverse;
  }
}

LIDCAM_CLONES float moved(const float* a, const float* b, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float d = a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
    most = d > most ? d : most;
  }
  return most;
}

LIDCAM_CLONES void add_compat(float* __restrict e, const float* __restrict k, const std::vector<float>& m, int L, int S,
                              int64_t n) {
  if (m.size() == 1) {
    const float w = m[0];
    for (int64_t i = 0; i < n * S; ++i) e[i] += w * k[i];
  } else if (int64_t(m.size()) == L) {
    for (int64_t p = 0; p < n; ++p)
      for (int l = 0; l < L; ++l) e[p * S + l] -= m[l] * k[p * S + l];
  } else {
    for (int64_t p = 0; p < n; ++p)
      for (int j = 0; j < L; ++j) {
        const float x = k[p * S + j];
        for (int l = 0; l < L; ++l) e[p * S + l] -= m[size_t(j) * L + l] * x;
      }
  }
}

size_t widest(const std::vector<Term>& terms) {
  size_t rows = 1;
  for (const Term& t : terms) rows = std::max(rows, size_t(t.lattice->vertices) + 1);
  return rows;
}

// Two labels with Potts terms: q1 - q0 is the only channel.
int two(const float* unary, int64_t n, const std::vector<Term>& terms, int iterations, float tolerance, float* q) {
  std::vector<float> s(n), e(n), k(n), before(tolerance > 0 ? n : 0), values(widest(terms)), spare(widest(terms));
  for (int64_t p = 0; p < n; ++p) e[p] = unary[p] - unary[n + p];
  odds(e.data(), n, s.data());
  int done = 0;
  while (done < iterations) {
    for (int64_t p = 0; p < n; ++p) e[p] = unary[p] - unary[n + p];
    for (const Term& t : terms) {
      t.lattice->filter(s.data(), k.data(), 1, values.data(), spare.data());
      add(e.data(), k.data(), t.compat[0], n);
    }
    if (tolerance > 0) before = s;
    odds(e.data(), n, s.data());
    ++done;
    if (tolerance > 0 && 0.5f * moved(s.data(), before.data(), n) <= tolerance) break;
  }
  for (int64_t p = 0; p < n; ++p) {
    q[p] = 1.0f / (1.0f + exp_fast(e[p]));
    q[n + p] = 1.0f / (1.0f + exp_fast(-e[p]));
  }
  return done;
}

}  // namespace

int mean_field(const float* unary, int labels, int64_t pixels, const std::vector<Term>& terms, int iterations,
               float tolerance, float* q) {
  bool potts = true;
  for (const Term& t : terms) potts = potts && t.compat.size() == 1;
  if (labels == 2 && potts) return two(unary, pixels, terms, iterations, tolerance, q);
  const int L = labels, S = (labels + 7) / 8 * 8;  // rows padded with zeros
  const int64_t all = pixels * S;
  std::vector<float> u(all), e(all), k(all), p(all), before(tolerance > 0 ? all : 0), values(widest(terms) * S),
      spare(widest(terms) * S);
  for (int l = 0; l < L; ++l)
    for (int64_t i = 0; i < pixels; ++i) u[i * S + l] = -unary[l * pixels + i];
  softmax(u.data(), pixels, L, S, p.data());
  int done = 0;
  while (done < iterations) {
    e = u;
    for (const Term& t : terms) {
      t.lattice->filter(p.data(), k.data(), S, values.data(), spare.data());
      add_compat(e.data(), k.data(), t.compat, L, S, pixels);
    }
    if (tolerance > 0) before = p;
    softmax(e.data(), pixels, L, S, p.data());
    ++done;
    if (tolerance > 0 && moved(p.data(), before.data(), all) <= tolerance) break;
  }
  for (int l = 0; l < L; ++l)
    for (int64_t i = 0; i < pixels; ++i) q[l * pixels + i] = p[i * S + l];
  return done;
}

}  // namespace lidcam::crf
