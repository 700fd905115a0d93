#include "tests/simt/simt_emulator.h"

#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "tests/simt/fiber.h"

namespace drydock::kernels::cuda {
namespace emulator {
namespace {

constexpr int kBarriers = 16, kWarpOperation = -1;
constexpr size_t kGuardBytes = 128;
constexpr unsigned char kPoison = 0xff;  // NaN, read as a float, bfloat16 or e4m3
constexpr unsigned char kGuard = 0xa5;

struct Copy {
  void* to;
  const void* from;
};

struct Warp {
  Slot in[32], out[32];
  WarpOperation operation = nullptr;
  int arrived = 0;
  uint64_t done = 0;  // operations completed
};

struct Barrier {
  int arrived = 0, expected = 0;
  uint64_t done = 0;
};

struct Block;

struct Thread {
  Coordinates at;
  Block* block = nullptr;
  std::optional<tests::Fiber> fiber;
  const uint64_t* waits_for = nullptr;  // runs again when this counter has left `seen`
  uint64_t seen = 0;
  int waits_at = 0;  // number of the barrier, or kWarpOperation
  bool returned = false, yielded = false;
  std::vector<std::vector<Copy>> groups;  // committed asynchronous copies, oldest first
  std::vector<Copy> open;                 // not committed yet
};

struct SharedDeleter {
  void operator()(unsigned char* memory) const { ::operator delete[](memory, std::align_val_t(128)); }
};

struct Block {
  const std::function<void()>* body = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  size_t shared_bytes = 0;
  std::unique_ptr<unsigned char[], SharedDeleter> shared;
};

struct Launch {
  LaunchShape shape;
  std::function<void()> body;
};

struct Machine {
  Order order = Order::forward;
  std::mt19937_64 random{1};
  int multiprocessors = 4;
  bool collecting = false;
  std::vector<Launch> collected;
  Thread* running = nullptr;
  tests::Fiber scheduler;
  std::exception_ptr failure;
};

Machine& machine() {
  static Machine one;
  return one;
}

std::string place(const Thread& thread) {
  return "thread " + std::to_string(thread.at.thread.x) + " of block (" + std::to_string(thread.at.block.x) + ", " +
         std::to_string(thread.at.block.y) + ", " + std::to_string(thread.at.block.z) + ")";
}

void thread_main(void* argument) {
  auto& thread = *static_cast<Thread*>(argument);
  try {
    (*thread.block->body)();
  } catch (...) {
    machine().failure = std::current_exception();
  }
  thread.returned = true;
  machine().scheduler.resume(*thread.fiber, true);
}

void leave() {
  Thread& thread = *machine().running;
  machine().scheduler.resume(*thread.fiber);
}

void wait(const uint64_t& counter, int where) {
  Thread& thread = *machine().running;
  thread.waits_for = &counter;
  thread.seen = counter;
  thread.waits_at = where;
  leave();
}

void make_shared(Block& block) {
#if defined(__SANITIZE_ADDRESS__)
  const size_t bytes = block.shared_bytes;  // the sanitizer guards what follows
#else
  const size_t bytes = block.shared_bytes + kGuardBytes;
#endif
  block.shared.reset(static_cast<unsigned char*>(::operator new[](bytes, std::align_val_t(128))));
  std::memset(block.shared.get(), kPoison, block.shared_bytes);
  std::memset(block.shared.get() + block.shared_bytes, kGuard, bytes - block.shared_bytes);
}

void check_guard([[maybe_unused]] const Block& block) {
#if !defined(__SANITIZE_ADDRESS__)
  for (size_t i = 0; i < kGuardBytes; ++i)
    if (block.shared[block.shared_bytes + i] != kGuard)
      throw core::Error("emulated kernel: " + place(block.threads.front()) + " or another wrote beyond the " +
                        std::to_string(block.shared_bytes) + " bytes of dynamic shared memory");
#endif
}

std::unique_ptr<Block> make_block(const Launch& launch, uint64_t index) {
  auto block = std::make_unique<Block>();
  const LaunchShape& shape = launch.shape;
  block->body = &launch.body;
  block->shared_bytes = shape.shared_bytes;
  make_shared(*block);
  block->warps = std::vector<Warp>(shape.threads / 32);
  block->threads = std::vector<Thread>(shape.threads);
  for (unsigned t = 0; t < shape.threads; ++t) {
    Thread& thread = block->threads[t];
    thread.block = block.get();
    thread.at.thread = {t, 0, 0};
    thread.at.block = {static_cast<unsigned>(index % shape.grid_x),
                       static_cast<unsigned>(index / shape.grid_x % shape.grid_y),
                       static_cast<unsigned>(index / shape.grid_x / shape.grid_y)};
    thread.at.block_extent = {shape.threads, 1, 1};
    thread.at.grid_extent = {shape.grid_x, shape.grid_y, shape.grid_z};
    thread.at.dynamic_shared = block->shared.get();
    thread.fiber.emplace(thread_main, &thread);
  }
  return block;
}

template <typename T>
void put_in_order(std::vector<T>& items) {
  if (machine().order == Order::reverse) std::reverse(items.begin(), items.end());
  if (machine().order == Order::random) std::shuffle(items.begin(), items.end(), machine().random);
}

bool can_run(const Thread& thread) {
  return !thread.returned && (thread.waits_for == nullptr || *thread.waits_for != thread.seen);
}

void step(Thread& thread) {
  thread.waits_for = nullptr;
  thread.yielded = false;
  machine().running = &thread;
  thread.fiber->resume(machine().scheduler);
  machine().running = nullptr;
  if (machine().failure) std::rethrow_exception(std::exchange(machine().failure, nullptr));
}

[[noreturn]] void report_deadlock(const std::vector<Thread*>& threads) {
  const auto returned = std::count_if(threads.begin(), threads.end(), [](const Thread* t) { return t->returned; });
  const Thread& stuck = **std::find_if(threads.begin(), threads.end(), [](const Thread* t) { return !t->returned; });
  const std::string where =
      stuck.waits_at == kWarpOperation ? "a warp operation" : "barrier " + std::to_string(stuck.waits_at);
  throw core::Error("emulated kernel: " + place(stuck) + " waits for ever at " + where + "; " +
                    std::to_string(returned) + " of " + std::to_string(threads.size()) + " threads have returned");
}

// Runs the threads of these blocks, which are all there at once, to their ends.
void run_blocks(const std::vector<std::unique_ptr<Block>>& blocks) {
  constexpr int kMostIdleRounds = 20'000;
  std::vector<Thread*> threads;
  for (const auto& block : blocks)
    for (Thread& thread : block->threads) threads.push_back(&thread);
  put_in_order(threads);
  size_t alive = threads.size();
  for (int idle_rounds = 0; alive > 0;) {
    bool ran = false, advanced = false;
    for (Thread* thread : threads) {
      if (!can_run(*thread)) continue;
      step(*thread);
      ran = true;
      advanced = advanced || !thread->yielded;
      if (thread->returned) --alive;
    }
    idle_rounds = advanced ? 0 : idle_rounds + 1;
    if (!ran) report_deadlock(threads);
    if (idle_rounds > kMostIdleRounds) throw core::Error("emulated kernel: all threads that are left only pause()");
  }
  for (const auto& block : blocks) check_guard(*block);
}

void check_shape(const LaunchShape& shape) {
  if (shape.threads == 0 || shape.threads % 32 != 0 || shape.threads > 1024)
    throw core::Error("emulated kernel: " + std::to_string(shape.threads) +
                      " threads a block; a multiple of 32 up to 1024 is right");
  if (shape.grid_y > 65535 || shape.grid_z > 65535 || shape.cluster_x != 1)
    throw core::Error("emulated kernel: grid_y and grid_z are at most 65535, cluster_x is 1");
  if (shape.shared_bytes > static_cast<size_t>(most_shared_bytes()))
    throw core::Error("emulated kernel: " + std::to_string(shape.shared_bytes) + " bytes of shared memory; at most " +
                      std::to_string(most_shared_bytes()) + ", an A100's, are right");
}

std::vector<uint64_t> block_order(const LaunchShape& shape) {
  std::vector<uint64_t> blocks(static_cast<uint64_t>(shape.grid_x) * shape.grid_y * shape.grid_z);
  std::iota(blocks.begin(), blocks.end(), 0);
  put_in_order(blocks);
  return blocks;
}

}  // namespace

const Coordinates& current() { return machine().running->at; }

void set_order(Order order, uint64_t seed) {
  machine().order = order;
  machine().random.seed(seed);
}

void set_multiprocessors(int count) { machine().multiprocessors = count; }

void run(const LaunchShape& shape, std::function<void()> thread_body) {
  if (shape.grid_x == 0 || shape.grid_y == 0 || shape.grid_z == 0) return;
  check_shape(shape);
  Launch launch{shape, std::move(thread_body)};
  if (machine().collecting) {
    machine().collected.push_back(std::move(launch));
    return;
  }
  for (const uint64_t index : block_order(shape)) {
    std::vector<std::unique_ptr<Block>> one;
    one.push_back(make_block(launch, index));
    run_blocks(one);
  }
}

void run_together(const std::function<void()>& launches) {
  machine().collecting = true;
  launches();
  machine().collecting = false;
  const std::vector<Launch> all = std::exchange(machine().collected, {});
  std::vector<std::unique_ptr<Block>> blocks;
  for (const Launch& launch : all)
    for (const uint64_t index : block_order(launch.shape)) blocks.push_back(make_block(launch, index));
  run_blocks(blocks);
}

void barrier(int id, int threads) {
  Barrier& barrier = machine().running->block->barriers[id];
  if (barrier.arrived == 0) barrier.expected = threads;
  if (barrier.expected != threads || threads % 32 != 0)
    throw core::Error("emulated kernel: " + place(*machine().running) + " comes to barrier " + std::to_string(id) +
                      " of " + std::to_string(threads) + " threads where another said " +
                      std::to_string(barrier.expected));
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.done;
    return;
  }
  wait(barrier.done, id);
}

void yield() {
  machine().running->yielded = true;
  leave();
}

void warp_operation(WarpOperation operation, const void* in, size_t in_bytes, void* out, size_t out_bytes) {
  Thread& thread = *machine().running;
  Warp& warp = thread.block->warps[thread.at.thread.x / 32];
  const unsigned lane = thread.at.thread.x % 32;
  if (warp.arrived == 0) warp.operation = operation;
  if (warp.operation != operation)
    throw core::Error("emulated kernel: the warp of " + place(thread) + " has lanes at different warp operations");
  if (in_bytes > 0) std::memcpy(&warp.in[lane], in, in_bytes);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    operation(warp.in, warp.out);
    ++warp.done;
  } else {
    wait(warp.done, kWarpOperation);
  }
  if (out_bytes > 0) std::memcpy(out, &warp.out[lane], out_bytes);
}

void copy_async(void* to, const void* from) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    throw core::Error("emulated kernel: " + place(*machine().running) + " copies 16 bytes that are not aligned to 16");
  machine().running->open.push_back({to, from});
}

void copy_async_commit() {
  Thread& thread = *machine().running;
  thread.groups.push_back(std::exchange(thread.open, {}));
}

void copy_async_wait(int pending) {
  std::vector<std::vector<Copy>>& groups = machine().running->groups;
  while (groups.size() > static_cast<size_t>(pending)) {
    for (const Copy& copy : groups.front()) {
      if (copy.from != nullptr)
        std::memcpy(copy.to, copy.from, 16);
      else
        std::memset(copy.to, 0, 16);
    }
    groups.erase(groups.begin());
  }
}

void ballot_slots(const Slot* in, Slot* out) {
  uint32_t bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane) bits |= static_cast<uint32_t>(in[lane].bytes[0] & 1U) << lane;
  for (unsigned lane = 0; lane < 32; ++lane) std::memcpy(&out[lane], &bits, sizeof(bits));
}

namespace {
void no_slots(const Slot*, Slot*) {}
}  // namespace

}  // namespace emulator

void sync_warp() { emulator::warp_operation(emulator::no_slots, nullptr, 0, nullptr, 0); }

uint32_t ballot(bool predicate) {
  const unsigned char in = predicate ? 1 : 0;
  uint32_t out = 0;
  emulator::warp_operation(emulator::ballot_slots, &in, 1, &out, sizeof(out));
  return out;
}

int multiprocessors() { return emulator::machine().multiprocessors; }

}  // namespace drydock::kernels::cuda
