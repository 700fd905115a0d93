#pragma once
// Many launches of an op, timed by events: as one CUDA graph, so that the host's part of a launch is in no figure, or
// one by one where it belongs there.
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "profiler/cuda/runtime.h"

namespace drydock::profiler::cuda {

// Enqueues the op once, on every lane. What a model keeps for long (weights, KV cache) is another copy with each
// `turn`; activations stay, as the kernel before has just written them.
using Launch = std::function<void(int64_t turn)>;

class Replay {
 public:
  // Captures `launches` of them, turns 0 on; the launch has run before. With `needs_host` nothing is captured, and the
  // GPU may wait for the host within what is timed. Throws core::Error when that fails.
  Replay(const std::vector<Lane>& lanes, const Launch& launch, int64_t launches, bool needs_host = false);
  ~Replay();
  Replay(Replay&&) noexcept;
  Replay& operator=(Replay&&) = delete;

  // Waits. Of one launch, the mean; with several lanes, as the first one sees it [us].
  double run();
  int64_t launches() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of one launch, from a few on the stream: what a replay's size is chosen by [us]. The first of them warm up.
double rough_us(const std::vector<Lane>& lanes, const Launch& launch);

// Waits for all lanes; throws core::Error with what went wrong on one.
void wait_for(const std::vector<Lane>& lanes);

}  // namespace drydock::profiler::cuda
