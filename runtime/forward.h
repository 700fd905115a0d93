#pragma once
// A model's step as a sequence of kernels, written once for every device.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/moe.h"
#include "kernels/sampling.h"
#include "kernels/small_ops.h"
#include "kernels/take_drawn.h"
#include "runtime/step_arrays.h"
#include "runtime/weights.h"

namespace drydock::runtime {

// The kernels of one device, in order of the calls. Pointers are the device's.
class KernelSet {
 public:
  virtual ~KernelSet() = default;
  virtual void gemm(const kernels::Gemm& op) = 0;
  virtual void grouped_gemm(const kernels::GroupedGemm& op) = 0;
  virtual void decode_attention(const kernels::DecodeAttention& op) = 0;
  virtual void prefill_attention(const kernels::PrefillAttention& op) = 0;
  virtual void route(const kernels::Route& op) = 0;
  virtual void permute(const kernels::Permute& op) = 0;
  virtual void gather(const kernels::Gather& op) = 0;
  virtual void combine(const kernels::Combine& op) = 0;
  virtual void add_rms_norm(const kernels::AddRmsNorm& op) = 0;
  virtual void silu_mul(const kernels::SiluMul& op) = 0;
  virtual void rope_append(const kernels::RopeAppend& op) = 0;
  virtual void embed(const kernels::Embed& op) = 0;
  virtual void sample(const kernels::Sample& op) = 0;
  virtual void take_drawn(const kernels::TakeDrawn& op) = 0;
  // Sums over the ranks of a tensor-parallel group, in place.
  virtual void all_reduce(const kernels::Matrix& matrix) = 0;
  // The columns of all ranks' `own`, one rank's after the other's, in the `whole` of the first.
  virtual void all_gather(const kernels::Matrix& own, const kernels::Matrix& whole) = 0;
};

// The KV cache of one layer: (blocks, block_tokens, kv_heads, head_dim) each.
struct LayerCache {
  void *k = nullptr, *v = nullptr;
};

// What a step computes in; views into one piece of memory of the device.
struct Activations {
  kernels::Matrix residual, normed, qkv, q, attended, projected;
  kernels::Matrix gate_up, inner;                       // dense: (tokens, ..); experts: (tokens * top_k, ..)
  kernels::Matrix router_logits, gathered, expert_out;  // of layers with experts
  int32_t *experts = nullptr, *expert_starts = nullptr, *sources = nullptr, *expert_rows = nullptr;
  float* expert_weights = nullptr;
  kernels::Matrix selected, logits;  // (outputs, ..)
  kernels::Matrix own_logits;        // (outputs, head_rows) where ranks share the head
  int32_t* drawn = nullptr;          // (outputs)
  // What the step before drew, (drawn_before), for StepArrays::follows; null: all tokens are known. May be `drawn`.
  const int32_t* before = nullptr;
  int64_t drawn_before = 0;

  // For `tokens` and `outputs`; memory that begins at `base`, aligned to 256; null: nowhere. `bytes`: how
  // much that is.
  static Activations at(std::byte* base, const ModelConfig& own, core::Dtype dtype, int64_t tokens, int64_t outputs,
                        size_t& bytes);
};

struct DeviceModel {
  ModelConfig config;  // of this rank
  Weights weights;
  std::vector<LayerCache> cache;
  core::Dtype dtype = core::Dtype::bf16;
  int64_t block_tokens = 0;
  bool draws = true;  // of several ranks the first draws the tokens
};

// Computes the step of `arrays` up to the drawn tokens. Whether it has ended when this returns is the device's way.
void forward(const DeviceModel& model, const StepExtents& extents, const StepArrays& arrays, Activations activations,
             KernelSet& kernels);

}  // namespace drydock::runtime
