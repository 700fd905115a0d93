#pragma once
// What an engine must be told of one pool: its limits and how its memory is shared out, as the simulator took them.
#include <cstdint>

#include "generators/target.h"

namespace drydock::generators {

struct EngineFigures {
  int64_t sequences = 0;    // at once, of one attention-DP rank
  int64_t tokens = 0;       // of a step, of one rank
  int64_t longest = 0;      // longest sequence: prompt and answer, with room for a chat's special tokens
  int64_t kv_tokens = 0;    // KV cache of one rank
  int64_t drafts = 0;       // speculative tokens a step verifies for a sequence
  int64_t redundant = 0;    // expert slots beyond the number of experts
  int64_t graph_batch = 0;  // sequences of the largest captured CUDA graph
  // Of the fullest GPU [bytes].
  double memory = 0, weights = 0, fixed = 0, kv = 0;

  // Shares of the memory, rounded up to a thousandth so that no block is lost.
  double of_all() const;      // weights, buffers and KV of the whole GPU: vLLM's --gpu-memory-utilization
  double weights_kv() const;  // weights and KV of the whole GPU: SGLang's --mem-fraction-static
  double of_free() const;     // KV of what weights and buffers leave: TensorRT-LLM's free_gpu_memory_fraction
};

// Throws core::Error naming the pool when its KV cache can't fit, or the workload is longer than the model's context.
EngineFigures engine_figures(const Request& request, const models::Pool& pool);

// Routed experts of the model; 0: dense.
int64_t routed_experts(const models::Architecture& architecture);

// The model as an engine is to load it: --set model-path, else the plan's name in the spelling of the hub. These three
// throw core::Error on a name that a command line would take for a flag.
std::string model_path(const Request& request);
std::string served_name(const Request& request);
// --set draft-model. Throws core::Error when it is needed and not given.
std::string draft_model(const Request& request, const std::string& method);

// What --quantization an engine needs that can quantize bf16 weights to fp8 as it loads them: "fp8", or "" when the
// checkpoint has the plan's formats already. Throws core::Error naming --set model-path when it can't be had so.
std::string quantization_flag(const Request& request, bool quantizes_while_loading);

}  // namespace drydock::generators
