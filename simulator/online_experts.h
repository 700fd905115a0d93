#pragma once
// What moving experts' replicas while serving is worth when the experts' popularity drifts.
#include <cstdint>

#include "scheduler/expert_placement.h"
#include "simulator/expert_load.h"

namespace drydock::simulator {

struct ExpertDrift {
  int steps = 5000;
  int64_t tokens = 1024;  // of a step, over all GPUs of the instance
  // Share of a layer's experts that trade their popularity with another one in 1000 steps.
  double share_per_1000_steps = 0.1;
  uint64_t seed = 1;
};

// How evenly GPUs are loaded: (max - mean) / mean of their expected loads, the mean over steps and layers.
struct ExpertBalance {
  double contiguous = 0;  // experts in order, no replicas
  double fixed = 0;       // placed once, for the popularity at the start
  double online = 0;      // moved as they drift
  double oracle = 0;      // placed anew whenever the popularity changes, which nobody can
  int64_t moves = 0;      // replicas copied
  double moved_bytes = 0;
  double bytes_per_step = 0;        // that the GPU which copies most receives, the mean over steps
  double worst_bytes_per_step = 0;  // the same of the worst step
};

// Layers are a sample of at most 8, counts are scaled to all of them. Deterministic by the seed. O(steps x experts).
// Throws core::Error when a field is out of range.
ExpertBalance drift_experts(const ExpertLoad& load, const scheduler::BalancerConfig& config, const ExpertDrift& drift);

}  // namespace drydock::simulator
