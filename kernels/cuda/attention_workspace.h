#pragma once
// Memory that decode attention needs besides its operands, and how the sequences' caches are split.
#include <cstddef>
#include <cstdint>

namespace drydock::kernels::cuda {

// The first bytes of a workspace count finished blocks. They must be zero before the first launch, and every launch
// leaves them zero; the rest may hold anything. Launches that may run at once need a workspace each.
inline constexpr size_t kAttentionCounterBytes = 16 * 1024;

struct AttentionWorkspace {
  void* data = nullptr;  // device, aligned to 256; may be null when nothing is split
  size_t bytes = 0;
};

// Who adds the splits up: the last block of them to finish, or a kernel of its own.
enum class Combining : uint8_t { automatic, fused, separate };

struct SplitOptions {
  int64_t splits = 0;  // of the longest sequence; 0: choose_splits (kernels/split.h)
  Combining combining = Combining::automatic;
};

}  // namespace drydock::kernels::cuda
