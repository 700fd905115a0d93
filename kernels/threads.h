#pragma once
// A fixed set of threads that share loops.
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace drydock::kernels::cpu {

// Which items a thread takes depends only on their number and the number of threads. One loop runs at a time; calls
// from several threads wait for one another, and a loop started inside a loop runs on the thread that starts it.
class Threads {
 public:
  // `count` includes the thread that calls parallel_for; 0: as many as the machine has. Throws core::Error below 0.
  explicit Threads(int count = 0);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // body(begin, end) over disjoint ranges that cover [0, items), at most one per thread, lengths within one of each
  // other; returns when all have. The first exception of a range is thrown on.
  template <typename Body>
  void parallel_for(int64_t items, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        items, [](void* context, int64_t begin, int64_t end) { (*static_cast<Plain*>(context))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Range = void (*)(void* context, int64_t begin, int64_t end);

  void run(int64_t items, Range range, void* context);
  void work(int part);
  void run_part(int part);
  void stop();

  std::vector<std::thread> workers_;
  std::mutex one_loop_;
  std::atomic<uint32_t> loops_{0};  // counts up to start the workers
  std::atomic<int> running_{0};     // workers still in the current loop
  std::atomic<bool> stopping_{false};
  Range range_ = nullptr;
  void* context_ = nullptr;
  int64_t items_ = 0;
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

}  // namespace drydock::kernels::cpu
