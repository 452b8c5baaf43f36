// Read before every source where clang compiles the kernels: GCC's shuffle of vectors, which clang does not have.
#pragma once
#ifdef __clang__

template <class V, class M>
inline V __builtin_shuffle(V a, V b, M places) {
  constexpr int n = sizeof(V) / sizeof(a[0]);
  V out = a;
  for (int i = 0; i < n; ++i) {
    const int from = int(places[i]) & (2 * n - 1);
    out[i] = from < n ? a[from] : b[from - n];
  }
  return out;
}

template <class V, class M>
inline V __builtin_shuffle(V a, M places) {
  return __builtin_shuffle(a, a, places);
}

#endif
