#pragma once
// What measuring an op on a GPU takes, told before anything is allocated. Host code that needs no GPU.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/op.h"

namespace drydock::profiler::cuda {

struct Gpu {
  int sm_version = 0;  // 90 for sm_90
  int64_t sms = 0, l2_bytes = 0;
  int64_t gpus = 1;  // that this process sees
};

inline constexpr int64_t kBlockTokens = 32;  // of a KV cache, as models::kKvBlockTokens
inline constexpr int64_t kRotatedDim = 64;   // of a key of latent attention, in every model there is
inline constexpr int64_t kIndexTopK = 2048;  // tokens that an indexer selects, in every model there is
inline constexpr int64_t kSparseSpread = 4;  // tokens of a sequence to each one that sparse attention picks

// Why there is no kernel for `op` on such a machine, one line; nullopt: there is.
std::optional<std::string> why_no_kernel(const core::Op& op, const Gpu& gpu);

// Memory of one GPU that measuring `op` takes at most: operands, copies that rotate, scales, workspaces.
double bytes_needed(const core::Op& op, const Gpu& gpu);

// A rotation: copies of what a model keeps for long (weights, KV cache), taken in turn so that each comes from memory
// as it does in a model. Enough to fill twice the L2 and one more; at most 4096, as smaller ones cost a graph's nodes
// and no bandwidth worth telling.
int64_t stride_of(int64_t bytes);  // of a copy: aligned to 256
int64_t copies_of(int64_t bytes, int64_t l2_bytes);

// Launches of one replay of a graph: a millisecond's worth, each copy equally often. Fewer than `copies` only when that
// would take over 20 ms: launches so long reread little of what the one before has left in L2.
int64_t launches_of(double once_us, int64_t copies);

// Pairs of a token and one of a rank's own experts: those expected, and six standard deviations.
int64_t most_local_pairs(int64_t tokens, int64_t top_k, int64_t ep);

// Why a driver can't run what was built with a runtime, versions as CUDA gives them (13000 is 13.0); nullopt: it can.
std::optional<std::string> why_too_old(int driver, int runtime);

std::string_view architecture_of(int sm_version);  // "ampere", "ada", "hopper", "blackwell"

// Name of the shipped system for a GPU as the driver names it ("NVIDIA H200"), whose memory is within a tenth of what
// is given; empty when there is none.
std::string_view known_system(std::string_view gpu, double memory_bytes);

}  // namespace drydock::profiler::cuda
