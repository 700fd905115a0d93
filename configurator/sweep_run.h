#pragma once
// Works a shard of a sweep off, several items at a time, each stored as soon as it is answered.
#include <functional>

#include "configurator/sweep.h"
#include "configurator/sweep_store.h"

namespace drydock::configurator {

struct SweepProgress {
  int64_t done = 0, of = 0;  // items of the shard
  int64_t here = 0;          // of the done, answered by this run
};

// Answers what `store` lacks of the shard with `threads` items in work at once (0: one a core); `progress` is called
// after each, one call at a time. A kill loses the items in work and no other. Throws what the first failure threw.
SweepProgress run_sweep(const Sweep& sweep, Shard shard, Resources& resources, SweepStore& store, int threads,
                        const std::function<void(const SweepProgress&)>& progress = {});

}  // namespace drydock::configurator
