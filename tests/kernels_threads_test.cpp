#include <doctest/doctest.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>

#include "core/error.h"
#include "kernels/threads.h"

using drydock::kernels::cpu::Threads;

TEST_CASE("ranges cover the items once, in lengths within one of each other") {
  for (const int count : {1, 2, 3, 7}) {
    Threads threads(count);
    CHECK(threads.size() == count);
    for (const int64_t items : {0, 1, 2, 6, 7, 8, 1000}) {
      std::vector<std::pair<int64_t, int64_t>> ranges;
      std::mutex mutex;
      threads.parallel_for(items, [&](int64_t begin, int64_t end) {
        const std::lock_guard lock(mutex);
        ranges.emplace_back(begin, end);
      });
      std::sort(ranges.begin(), ranges.end());
      int64_t next = 0;
      for (const auto& [begin, end] : ranges) {
        CHECK(begin == next);
        CHECK(end - begin >= items / count);
        CHECK(end - begin <= items / count + 1);
        next = end;
      }
      CHECK(next == items);
      CHECK(static_cast<int64_t>(ranges.size()) <= count);
    }
  }
}

TEST_CASE("many short loops, loops inside loops, and callers on several threads") {
  Threads threads(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 2000; ++i) threads.parallel_for(3, [&](int64_t begin, int64_t end) { sum += end - begin; });
  CHECK(sum == 6000);
  sum = 0;
  threads.parallel_for(4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) threads.parallel_for(5, [&](int64_t b, int64_t e) { sum += e - b; });
  });
  CHECK(sum == 20);
  sum = 0;
  const auto caller = [&] {
    for (int i = 0; i < 200; ++i) threads.parallel_for(10, [&](int64_t b, int64_t e) { sum += e - b; });
  };
  std::thread other(caller);
  caller();
  other.join();
  CHECK(sum == 4000);
}

TEST_CASE("an exception of any range arrives, and the threads go on") {
  Threads threads(2);
  const auto fail_at = [&](int64_t bad) {
    threads.parallel_for(2, [&](int64_t begin, int64_t) {
      if (begin == bad) throw std::runtime_error("bad");
    });
  };
  CHECK_THROWS_AS(fail_at(0), std::runtime_error);
  CHECK_THROWS_AS(fail_at(1), std::runtime_error);
  CHECK_NOTHROW(fail_at(2));
  CHECK_THROWS_AS(Threads(-1), drydock::core::Error);
}
