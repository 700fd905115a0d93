#pragma once
// A loop over independent indices on all cores, or as many as LoopThreads says.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace drydock::configurator {

// Threads that loops begun on this thread may take; 0: one a core.
inline thread_local size_t loop_threads = 0;

// Sets them until the end of a scope.
class LoopThreads {
 public:
  explicit LoopThreads(size_t threads) : before_(loop_threads) { loop_threads = threads; }
  ~LoopThreads() { loop_threads = before_; }
  LoopThreads(const LoopThreads&) = delete;
  LoopThreads& operator=(const LoopThreads&) = delete;

 private:
  size_t before_;
};

// Calls `body(i)` for i in [0, n), in any order and from several threads. Rethrows the first exception once all are
// done.
template <typename Body>
void in_parallel(size_t n, const Body& body) {
  const size_t threads =
      std::min<size_t>(loop_threads ? loop_threads : std::max(1u, std::thread::hardware_concurrency()), n);
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    for (size_t i; (i = next++) < n;) {
      try {
        body(i);
      } catch (...) {
        const std::scoped_lock lock(failure_mutex);
        if (!failure) failure = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    for (size_t t = 1; t < threads; ++t) pool.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace drydock::configurator
