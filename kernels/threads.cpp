#include "kernels/threads.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace drydock::kernels::cpu {
namespace {

// Loops of a model follow each other within microseconds; sleeping at once would cost more than most of them take.
constexpr int kSpins = 2000;

thread_local bool inside_loop = false;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `value` differs from `old`.
template <typename T>
T wait_for_change(const std::atomic<T>& value, T old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (const T now = value.load(std::memory_order_acquire); now != old) return now;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

Threads::Threads(int count) {
  if (count < 0) throw core::Error("threads: " + std::to_string(count) + " is not a number of threads; 0 takes all");
  if (count == 0) count = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  try {
    workers_.reserve(static_cast<size_t>(count) - 1);
    for (int part = 1; part < count; ++part) workers_.emplace_back([this, part] { work(part); });
  } catch (...) {
    stop();
    throw;
  }
}

Threads::~Threads() { stop(); }

void Threads::stop() {
  stopping_ = true;
  loops_.fetch_add(1, std::memory_order_release);
  loops_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::work(int part) {
  inside_loop = true;
  for (uint32_t seen = 0;;) {
    seen = wait_for_change(loops_, seen);
    if (stopping_) return;
    run_part(part);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

void Threads::run_part(int part) {
  const int64_t parts = std::min<int64_t>(size(), items_);
  if (part >= parts) return;
  const int64_t length = items_ / parts, longer = items_ % parts;
  const int64_t begin = part * length + std::min<int64_t>(part, longer);
  try {
    range_(context_, begin, begin + length + (part < longer ? 1 : 0));
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void Threads::run(int64_t items, Range range, void* context) {
  if (items <= 0) return;
  if (inside_loop || items == 1 || workers_.empty()) return range(context, 0, items);
  const std::lock_guard one_loop(one_loop_);
  range_ = range, context_ = context, items_ = items;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  loops_.fetch_add(1, std::memory_order_release);
  loops_.notify_all();
  inside_loop = true;
  run_part(0);
  inside_loop = false;
  for (int left = running_.load(std::memory_order_acquire); left != 0;) left = wait_for_change(running_, left);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace drydock::kernels::cpu
