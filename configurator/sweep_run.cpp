#include "configurator/sweep_run.h"

#include <chrono>

#include "configurator/parallel.h"

namespace drydock::configurator {

SweepProgress run_sweep(const Sweep& sweep, Shard shard, Resources& resources, SweepStore& store, int threads,
                        const std::function<void(const SweepProgress&)>& progress) {
  std::vector<int64_t> left;
  SweepProgress at;
  const std::set<int64_t> done = store.done();
  for (int64_t i = shard.k - 1; i < sweep.items(); i += shard.n) {
    ++at.of;
    if (done.contains(i))
      ++at.done;
    else
      left.push_back(i);
  }
  if (progress) progress(at);
  std::mutex storing;
  std::atomic<bool> failed{false};
  // With an item a thread, the loops inside the search run on that thread alone.
  const LoopThreads many(static_cast<size_t>(threads));
  in_parallel(left.size(), [&](size_t i) {
    if (failed) return;
    const LoopThreads one(left.size() > 1 && threads != 1 ? 1 : static_cast<size_t>(threads));
    const auto begin = std::chrono::steady_clock::now();
    const std::string answer = sweep_answer(sweep_item(sweep, left[i]), resources).dump();
    const double wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    const std::scoped_lock lock(storing);
    if (failed) return;
    try {
      store.put(left[i], answer, wall_ms);
      ++at.done;
      ++at.here;
      if (progress) progress(at);
    } catch (...) {
      failed = true;
      throw;
    }
  });
  return at;
}

}  // namespace drydock::configurator
