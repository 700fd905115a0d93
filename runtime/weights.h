#pragma once
// Weights of a model as its kernels take them, in the memory of one device; of one rank of a tensor-parallel group.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/matrix.h"
#include "kernels/threads.h"
#include "runtime/model_config.h"
#include "runtime/weight_source.h"

namespace drydock::runtime {

struct LayerWeights {
  const void* input_norm = nullptr;  // (hidden)
  const void* q_norm = nullptr;      // (head_dim); null without qk_norm
  const void* k_norm = nullptr;      // as q_norm
  const void* post_norm = nullptr;   // (hidden)
  kernels::Matrix qkv;               // (q_width + 2 kv_width, hidden)
  kernels::Matrix output;            // (hidden, q_width)
  kernels::Matrix router;            // (experts, hidden); no data: dense
  kernels::Matrix gate_up;           // (2 inter, hidden), or (experts * 2 inter, hidden): gate's rows, then up's
  kernels::Matrix down;              // (hidden, inter), or (experts * hidden, inter)
};

struct Weights {
  kernels::Matrix embedding, head;  // (vocabulary, hidden), (head_rows, hidden); the same memory where tied
  const void* final_norm = nullptr;
  const float* inverse_frequencies = nullptr;
  std::vector<LayerWeights> layers;
  int64_t bytes = 0;  // of all
};

// Memory of the device that the weights are for; it owns what it gives.
class WeightMemory {
 public:
  virtual ~WeightMemory() = default;
  // `bytes` of memory, with what `write` puts into a buffer of as many.
  virtual void* put(size_t bytes, const std::function<void(std::byte*)>& write) = 0;
};

// What rank `rank` of `ranks` holds: its heads, its part of every feed-forward's width, and of the output head where
// the vocabulary can be divided; the embedding whole.
struct WeightShare {
  int rank = 0, ranks = 1;
};

// The config of one rank: heads, kv_heads, inter and head_rows divided. Throws core::Error when the first three can't
// be.
ModelConfig share_of(const ModelConfig& whole, const WeightShare& share);

// `threads` read in parallel.
Weights load_weights(const ModelConfig& whole, const WeightShare& share, core::Dtype dtype, const WeightSource& source,
                     WeightMemory& memory, kernels::cpu::Threads& threads);

}  // namespace drydock::runtime
