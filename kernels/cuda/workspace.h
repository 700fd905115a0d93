#pragma once
// Device memory that a kernel needs while it runs.
#include <cstddef>
#include <cstdint>

namespace drydock::kernels::cuda {

// The first kCounters counters are zero before a launch and again after it, so that launches in one stream can share
// it.
struct Workspace {
  uint32_t* counters = nullptr;  // (kCounters)
  void* bytes = nullptr;         // aligned to 256
  size_t size = 0;               // of `bytes`
};
inline constexpr int64_t kCounters = 4096;

}  // namespace drydock::kernels::cuda
