#pragma once
// A Llama-3, Qwen3 or Qwen3-MoE model that computes on this machine's processors or GPUs.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/dtype.h"
#include "kernels/shared_group.h"
#include "runtime/engine.h"

namespace drydock::runtime {

// Tensor parallelism, one process a rank: runtime/ranked_engine.h starts them.
struct RankShare {
  int rank = 0, ranks = 1;
  std::shared_ptr<kernels::cpu::SharedGroup> group;  // CPU: what ranks > 1 compute together by
  // Called once, when all is made but what the ranks have in common: returns when every rank has come so far, with
  // what GPUs' communicators are made by (bytes). May be empty.
  std::function<std::string()> meet;
};

struct EngineOptions {
  core::Dtype dtype = core::Dtype::bf16;  // of weights, activations and KV cache: bf16, or fp32 (CPU only)
  int64_t kv_blocks = 0;                  // of the cache, > 0; SequenceWork::blocks are below it
  int64_t block_tokens = 16;              // tokens of a block; a power of two
  int threads = 0;                        // CPU: that compute, the caller among them; 0: as the machine has
  std::optional<uint64_t>
      random_weights;  // seed: weights are made up (docs/engines.md) and no file but config.json is read
  int device = 0;      // GPU
  RankShare share;
};

// `model_dir`: a Hugging Face folder with config.json and safetensors. Takes as long as reading the weights does.
// Throws core::Error naming file and field on what is missing, broken or not of these families.
// With several ranks every one makes the same steps; the first has the tokens, and every one the KV of its heads.
std::unique_ptr<Engine> make_cpu_engine(const std::filesystem::path& model_dir, const EngineOptions& options);

// KV of one block of the model that its config.json describes [bytes], of all ranks together, to choose kv_blocks by.
int64_t kv_block_bytes(const std::filesystem::path& model_dir, core::Dtype dtype, int64_t block_tokens);

// Throws core::Error naming the field of config.json that can't be divided among so many ranks.
void check_ranks(const std::filesystem::path& model_dir, int ranks);

}  // namespace drydock::runtime
