// A CUDA grid on the CPU: a fiber per CUDA thread, the fibers of a block on one system thread, blocks of a cluster on
// one system thread each, of which one runs at a time. Deterministic for an order and a seed.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace lidcam::shim {

enum class Order { forward, reverse, random };

constexpr size_t kStack = 64 * 1024;

struct Block;

// What the lanes of one mask gave to a warp operation.
struct Exchange {
  uint32_t arrived = 0;
  uint64_t given[32] = {}, taken[32] = {};
  uint64_t generation = 0;
};

struct Fiber {
  ucontext_t context{};
  jmp_buf place{};
  bool started = false, done = false;
  dim3 thread;
  unsigned number = 0;  // within the block
  Block* block = nullptr;
  bool arrived = false;  // at the barrier of its cluster, of this generation, without waiting
  uint64_t generation = 0;
  std::function<bool()> waits;  // empty, or true while the fiber may not go on
  std::unique_ptr<char[]> stack;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
};

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "cuda on the cpu: %s\n", what);
  std::abort();
}

struct Cluster;

struct Block {
  dim3 index, threads, grid;
  Cluster* cluster = nullptr;
  int rank = 0;
  unsigned char* shared = nullptr;
  std::vector<Fiber> fibers;
  std::vector<std::map<uint32_t, Exchange>> warps;
  // The barrier of the block: a count of arrivals, and the predicates of __syncthreads_or, _and and _count.
  unsigned alive = 0, arrived = 0, votes = 0, result = 0;
  int kind = -1;
  uint64_t generation = 0;
  bool finished = false;

  void release() {
    if (!alive || arrived < alive) return;
    result = kind == 2 ? unsigned(votes == arrived) : kind == 1 ? unsigned(votes > 0) : votes;
    arrived = votes = 0;
    kind = -1;
    ++generation;
  }
};

struct Cluster {
  std::vector<Block> blocks;
  std::mutex mutex;
  std::condition_variable changed;
  int turn = -1;
  unsigned alive = 0, arrived = 0;  // threads of the whole cluster at its barrier
  uint64_t generation = 0, events = 0;
  Order order = Order::forward;
  std::mt19937_64 random;

  void release() {
    if (!alive || arrived < alive) return;
    arrived = 0;
    ++generation;
  }
};

// What a system thread runs now.
struct Running {
  Fiber* fiber = nullptr;
  ucontext_t context{};
  jmp_buf place{};
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  const void* stack = nullptr;
  size_t stack_size = 0;
#endif
};
inline thread_local Running running;
inline thread_local const std::function<void()>* kernel_body = nullptr;

inline Fiber& self() { return *running.fiber; }

// From a fiber to the scheduler, until its turn comes again.
inline void suspend(bool last = false) {
  Fiber* fiber = running.fiber;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber->fake_stack, running.stack, running.stack_size);
  swapcontext(&fiber->context, &running.context);
  __sanitizer_finish_switch_fiber(fiber->fake_stack, &running.stack, &running.stack_size);
#else
  (void)last;
  if (!_setjmp(fiber->place)) _longjmp(running.place, 1);
#endif
}

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &running.stack, &running.stack_size);
#endif
  (*kernel_body)();
  Fiber& fiber = self();
  Block& block = *fiber.block;
  fiber.done = true;
  --block.alive;
  --block.cluster->alive;
  ++block.cluster->events;
  block.release();
  block.cluster->release();
  suspend(true);
}

// From the scheduler to a fiber.
inline void resume(Fiber& fiber) {
  running.fiber = &fiber;
  ++fiber.block->cluster->events;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&running.fake_stack, fiber.stack.get(), kStack);
  fiber.started = true;
  swapcontext(&running.context, &fiber.context);
  __sanitizer_finish_switch_fiber(running.fake_stack, nullptr, nullptr);
#else
  if (!_setjmp(running.place)) {
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
  }
#endif
}

inline void wait_while(std::function<bool()> waits) {
  if (!waits()) return;
  self().waits = std::move(waits);
  suspend();
}

// All live threads of the block meet. Kind 0: plain, 1: or, 2: and, 3: count.
inline unsigned meet(int kind, bool vote) {
  Block& block = *self().block;
  if (block.kind != -1 && block.kind != kind) fail("threads of a block wait at different barriers");
  block.kind = kind;
  block.votes += vote;
  ++block.arrived;
  const uint64_t generation = block.generation;
  block.release();
  wait_while([&block, generation] { return block.generation == generation; });
  return block.result;
}

inline void arrive_at_cluster() {
  Fiber& fiber = self();
  Cluster& cluster = *fiber.block->cluster;
  if (fiber.arrived) fail("a thread arrives twice at the barrier of its cluster");
  fiber.arrived = true;
  fiber.generation = cluster.generation;
  ++cluster.arrived;
  cluster.release();
}
inline void wait_for_cluster() {
  Fiber& fiber = self();
  Cluster& cluster = *fiber.block->cluster;
  if (!fiber.arrived) fail("a thread waits at the barrier of its cluster without having arrived");
  fiber.arrived = false;
  const uint64_t generation = fiber.generation;
  wait_while([&cluster, generation] { return cluster.generation == generation; });
}
inline void meet_cluster() {
  arrive_at_cluster();
  wait_for_cluster();
}

// The lanes of `mask` meet and see what each gave.
inline const uint64_t* exchange(uint32_t mask, uint64_t value) {
  Fiber& fiber = self();
  const unsigned lane = fiber.number % 32;
  if (!(mask >> lane & 1)) fail("a lane calls a warp operation whose mask does not name it");
  Exchange& e = fiber.block->warps[fiber.number / 32][mask];
  e.given[lane] = value;
  e.arrived |= 1u << lane;
  const uint64_t generation = e.generation;
  if (e.arrived == mask) {
    std::memcpy(e.taken, e.given, sizeof e.given);
    e.arrived = 0;
    ++e.generation;
  }
  wait_while([&e, generation] { return e.generation == generation; });
  return e.taken;
}

// In random order, another thread may come between two atomic operations.
inline void maybe_yield() {
  Cluster& cluster = *self().block->cluster;
  if (cluster.order == Order::random && cluster.random() % 4 == 0) suspend();
}

// Stacks of fibers that have ended.
struct Stacks {
  std::mutex mutex;
  std::vector<std::unique_ptr<char[]>> free;

  static Stacks& all() {
    static Stacks stacks;
    return stacks;
  }
  std::unique_ptr<char[]> take() {
    std::lock_guard<std::mutex> lock(mutex);
    if (free.empty()) return std::unique_ptr<char[]>(new char[kStack]);
    std::unique_ptr<char[]> stack = std::move(free.back());
    free.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack.get(), kStack);
#endif
    return stack;
  }
  void give(std::unique_ptr<char[]> stack) {
    std::lock_guard<std::mutex> lock(mutex);
    if (free.size() < 4096) free.push_back(std::move(stack));
  }
};

inline void prepare(Fiber& fiber) {
  fiber.stack = Stacks::all().take();
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
}

// Runs the fibers of a block until none can go on.
inline void run_ready(Block& block) {
  Cluster& cluster = *block.cluster;
  const size_t n = block.fibers.size();
  std::vector<size_t> order(n);
  for (size_t i = 0; i < n; ++i) order[i] = cluster.order == Order::reverse ? n - 1 - i : i;
  for (bool any = true; any;) {
    any = false;
    if (cluster.order == Order::random) std::shuffle(order.begin(), order.end(), cluster.random);
    for (size_t i : order) {
      Fiber& fiber = block.fibers[i];
      if (fiber.done || (fiber.waits && fiber.waits())) continue;
      fiber.waits = nullptr;
      resume(fiber);
      any = true;
    }
    // A random schedule sometimes leaves a block in the middle.
    if (cluster.order == Order::random && cluster.blocks.size() > 1 && cluster.random() % 4 == 0) break;
  }
  block.finished = std::all_of(block.fibers.begin(), block.fibers.end(), [](const Fiber& f) { return f.done; });
}

struct Grid {
  unsigned blocks = 1, threads = 32;  // blocks along x
  int cluster = 1;                    // blocks per cluster
  size_t shared = 0;                  // dynamic shared memory, bytes
  size_t capacity = 0;                // bytes of the thread_local array that stands for it
  Order order = Order::forward;
  uint64_t seed = 0;
  unsigned rows = 1;  // of blocks, along y
};

// Runs kernel(...) as `body` in every thread of the grid. shared() gives this system thread's dynamic shared memory.
template <class Shared, class Body>
void launch(const Grid& grid, Shared shared, Body body) {
  if (grid.blocks % grid.cluster || grid.threads % 32 || grid.shared > grid.capacity) fail("a launch is malformed");
  const std::function<void()> kernel = body;
  const int size = grid.cluster;
  Cluster cluster;
  cluster.order = grid.order;
  cluster.random.seed(grid.seed);
  cluster.blocks = std::vector<Block>(size);

  // One system thread per block of the cluster; `turn` says whose turn it is.
  const auto work = [&](int rank, unsigned first, unsigned row) {
    kernel_body = &kernel;
    Block& block = cluster.blocks[rank];
    block.shared = shared();
    // Nothing may count on what shared memory holds at the start, or reach past what was asked for.
    std::memset(block.shared, 0xff, grid.shared);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(block.shared + grid.shared, grid.capacity - grid.shared);
#endif
    block.index = {first + unsigned(rank), row, 0};
    for (Fiber& fiber : block.fibers) prepare(fiber);
    for (;;) {
      std::unique_lock<std::mutex> lock(cluster.mutex);
      cluster.changed.wait(lock, [&] { return cluster.turn == rank || cluster.turn == -2; });
      if (cluster.turn == -2) break;
      if (!block.finished) {
        run_ready(block);
        if (block.finished) std::memset(block.shared, 0xff, grid.shared);  // a block that left took its memory with it
      }
      cluster.turn = -1;
      cluster.changed.notify_all();
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(block.shared + grid.shared, grid.capacity - grid.shared);
#endif
  };

  for (unsigned next = 0; next < grid.blocks * grid.rows; next += size) {
    const unsigned first = next % grid.blocks, row = next / grid.blocks;
    cluster.turn = -1;
    cluster.arrived = 0;
    cluster.alive = size * grid.threads;
    for (int r = 0; r < size; ++r) {
      Block& block = cluster.blocks[r];
      block = Block();
      block.cluster = &cluster;
      block.rank = r;
      block.threads = {grid.threads, 1, 1};
      block.grid = {grid.blocks, grid.rows, 1};
      block.alive = grid.threads;
      block.fibers = std::vector<Fiber>(grid.threads);
      block.warps.resize(grid.threads / 32);
      for (unsigned t = 0; t < grid.threads; ++t) {
        block.fibers[t].thread = {t, 0, 0};
        block.fibers[t].number = t;
        block.fibers[t].block = &block;
      }
    }
    std::vector<std::thread> pool;
    for (int r = 0; r < size; ++r) pool.emplace_back(work, r, first, row);
    std::vector<int> order(size);
    for (int r = 0; r < size; ++r) order[r] = grid.order == Order::reverse ? size - 1 - r : r;
    int idle = 0;
    for (bool left = true; left;) {
      if (grid.order == Order::random) std::shuffle(order.begin(), order.end(), cluster.random);
      const uint64_t before = cluster.events;
      for (int r : order) {
        std::unique_lock<std::mutex> lock(cluster.mutex);
        cluster.turn = r;
        cluster.changed.notify_all();
        cluster.changed.wait(lock, [&] { return cluster.turn == -1; });
      }
      left = false;
      for (const Block& block : cluster.blocks) left |= !block.finished;
      idle = cluster.events == before ? idle + 1 : 0;
      if (left && idle > 2) fail("no thread can go on: a barrier or a warp operation is not reached by all");
    }
    {
      std::lock_guard<std::mutex> lock(cluster.mutex);
      cluster.turn = -2;
    }
    cluster.changed.notify_all();
    for (auto& thread : pool) thread.join();
    for (Block& block : cluster.blocks)
      for (Fiber& fiber : block.fibers) Stacks::all().give(std::move(fiber.stack));
  }
}

}  // namespace lidcam::shim
