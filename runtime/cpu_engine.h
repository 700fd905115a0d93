#pragma once
// A Llama-3, Qwen3 or Qwen3-MoE model that computes on this machine's processors or GPUs.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/dtype.h"
#include "runtime/engine.h"

namespace drydock::runtime {

struct EngineOptions {
  core::Dtype dtype = core::Dtype::bf16;  // of weights, activations and KV cache: bf16, or fp32 (CPU only)
  int64_t kv_blocks = 0;                  // of the cache, > 0; SequenceWork::blocks are below it
  int64_t block_tokens = 16;              // tokens of a block; a power of two
  int threads = 0;                        // CPU: that compute, the caller among them; 0: as the machine has
  std::optional<uint64_t>
      random_weights;  // seed: weights are made up (docs/engines.md) and no file but config.json is read
  // GPU: tensor parallelism, one process a rank. `id_file` is where rank 0 leaves what the others join by.
  int rank = 0, ranks = 1;
  std::filesystem::path id_file;
  int device = 0;
};

// `model_dir`: a Hugging Face folder with config.json and safetensors. Takes as long as reading the weights does.
// Throws core::Error naming file and field on what is missing, broken or not of these families.
std::unique_ptr<Engine> make_cpu_engine(const std::filesystem::path& model_dir, const EngineOptions& options);

// KV of one block of the model that `config_json` describes [bytes], to choose kv_blocks by.
int64_t kv_block_bytes(const std::filesystem::path& model_dir, core::Dtype dtype, int64_t block_tokens);

}  // namespace drydock::runtime
