// Runs the CUDA kernels through the shim on the cases of a file (cases.py), in several scheduling orders, and compares
// with the results that the file holds: exit status 1 at the first difference.
// check FILE [SUBJECT [MUTANT [EVERY]]]: SUBJECT pas, components, crf or all; every EVERY-th case. Built twice: with
// the sanitizers, and with every barrier behind a switch (LIDCAM_MUTANTS). The dense CRF has launches in place of
// barriers as well: MUTANT less 1000 is the number of one that is left out.
#include <sys/resource.h>

#include <cstdio>
#include <string>

#include "components/runs.h"
#include "kernels_on_cpu.h"

#ifdef LIDCAM_MUTANTS
int lidcam_mutant = -1;
#endif

namespace {

using Bytes = std::vector<uint8_t>;

struct Case {
  int kind, h, w, height, width, milli, micro, flags, threads, cluster, shared, count;  // as in cases.py
  std::vector<float> floats;                                                            // kind 0: cam; 2: level
  Bytes bytes;                                                                          // 1: masks; 2: maps
  Bytes map, mask;                                                                      // expected of kind 0
  std::vector<float> threshold;
  std::vector<int> boxes;  // expected of kinds 1 and 2
  on_cpu::CrfArgs crf{};   // kind 3; h is the number of labels
  std::vector<int> words;  // its arrays and lists; milli of them
  std::vector<float> q;    // expected; then what the first order gave
  bool seen = false;
};

template <class T>
std::vector<T> take(std::FILE* file, size_t n) {
  std::vector<T> v(n);
  if (std::fread(v.data(), sizeof(T), n, file) != n) lidcam::shim::fail("the file of cases is cut off");
  return v;
}

std::vector<Case> read(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (!file) lidcam::shim::fail("no file of cases");
  std::vector<Case> all;
  for (int head[12]; std::fread(head, sizeof head, 1, file) == 1;) {
    Case c{head[0],  head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9], head[10],
           head[11], {},      {},      {},      {},      {},      {},      {},      {},      {},      false};
    const size_t count = c.count, low = count * c.h * c.w, high = count * c.height * c.width;
    if (c.kind == 3) {
      c.crf = take<on_cpu::CrfArgs>(file, 1)[0];
      c.words = take<int>(file, c.milli);
      c.bytes = take<uint8_t>(file, 3 * high);
      c.floats = take<float>(file, high * c.h);
      c.q = take<float>(file, high * c.h);
    } else if (c.kind == 0) {
      c.floats = take<float>(file, low);
      c.map = take<uint8_t>(file, high);
      c.mask = take<uint8_t>(file, high);
      c.threshold = take<float>(file, count);
    } else {
      c.bytes = take<uint8_t>(file, low);
      c.floats = take<float>(file, count);
      c.boxes = take<int>(file, 4 * count);
    }
    all.push_back(std::move(c));
  }
  std::fclose(file);
  return all;
}

constexpr int kLaunches = 1000;  // mutants from here on: the launch that is left out
int left_out = -1;               // the number of a launch of the dense CRF

bool agrees(Case& c, int order, uint64_t seed) {
  const on_cpu::Grid grid = on_cpu::grid(c.count, c.threads, c.cluster, c.shared, order, seed);
  if (c.kind == 3) {
    std::vector<float> q(c.q.size(), -1);
    std::vector<int> status(c.count, 7);
    on_cpu::crf_whole(grid, c.count, c.bytes.data(), c.floats.data(), c.crf, c.words, q.data(), status.data(),
                      left_out);
    // Near to the CPU's result, and then the same bits in every order.
    bool same = status == std::vector<int>(c.count, 0);
    for (size_t i = 0; i < q.size(); ++i) same = same && std::fabs(q[i] - c.q[i]) <= (c.seen ? 0.0f : 1e-5f);
    c.q = q;
    c.seen = true;
    return same;
  }
  if (c.kind == 0) {
    const on_cpu::PasArgs args{c.h, c.w, c.height, c.width, c.milli, c.micro, c.flags, c.shared};
    Bytes map(c.map.size(), 7), mask(c.map.size(), 7);
    std::vector<float> threshold(c.count, -3);
    on_cpu::pas(grid, c.floats.data(), args, map.data(), mask.data(), threshold.data());
    if (map != c.map || mask != c.mask || threshold != c.threshold) return false;
    if (c.cluster > 1) return true;
    std::vector<uint32_t> words(map.size()), above(map.size());
    on_cpu::pas_aot(grid, c.floats.data(), args, words.data(), above.data(), threshold.data());
    const bool integers = c.flags & lidcam::pas::cuda::kIntegers;
    for (size_t i = 0; i < map.size(); ++i) {
      const int a = integers ? int(words[i]) : int(__uint_as_float(words[i]));
      const int b = integers ? int(above[i]) : int(__uint_as_float(above[i]));
      if (a != c.map[i] || b != c.mask[i]) return false;
    }
    return threshold == c.threshold;
  }
  std::vector<int> boxes(4 * c.count, -7);
  if (c.kind == 1)
    on_cpu::boxes(grid, c.bytes.data(), c.height, c.width, c.flags, boxes.data());
  else
    on_cpu::boxes_at_size(grid, c.bytes.data(), c.floats.data(), c.h, c.w, c.height, c.width, c.flags, boxes.data());
  return boxes == c.boxes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::string subject = argc > 2 ? argv[2] : "all";
#ifdef LIDCAM_MUTANTS
  if (argc > 3) lidcam_mutant = std::atoi(argv[3]);
  if (lidcam_mutant >= kLaunches) left_out = lidcam_mutant - kLaunches;
  const rlimit limit{6, 6};  // seconds: a kernel without its barrier may never end
  setrlimit(RLIMIT_CPU, &limit);
#endif
  const int every = argc > 4 ? std::atoi(argv[4]) : 1;
  std::vector<Case> cases = read(argv[1]);
  int run = 0;
  for (int order = 0; order < 4; ++order)  // forward, reverse, two seeds of random
    for (size_t i = 0; i < cases.size(); ++i) {
      const char* const subjects[] = {"pas", "components", "components", "crf"};
      const bool wanted = subject == "all" || subject == subjects[cases[i].kind];
      if (!wanted || (i + order) % every) continue;
      ++run;
      if (agrees(cases[i], order < 2 ? order : 2, order)) continue;
      std::printf("case %zu differs in order %d\n", i, order);
      return 1;
    }
  std::printf("%d runs agree\n", run);
  return run == 0;
}
