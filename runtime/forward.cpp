#include "runtime/forward.h"

#include <algorithm>
#include <cmath>

namespace drydock::runtime {
namespace {

using kernels::Matrix;

class ActivationCarver {
 public:
  ActivationCarver(std::byte* base, core::Dtype dtype) : base_(base), dtype_(dtype) {}

  void* bytes(int64_t count) {
    constexpr size_t kAlignment = 256;
    void* const at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (static_cast<size_t>(count) + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  Matrix matrix(int64_t rows, int64_t cols) { return matrix(rows, cols, dtype_); }
  Matrix matrix(int64_t rows, int64_t cols, core::Dtype dtype) {
    return {bytes(rows * cols * (dtype == core::Dtype::fp32 ? 4 : 2)),
            dtype,
            rows,
            cols,
            cols,
            nullptr,
            kernels::Scaling::none};
  }
  int32_t* integers(int64_t count) { return static_cast<int32_t*>(bytes(count * 4)); }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  core::Dtype dtype_;
  size_t used_ = 0;
};

Matrix first_rows(Matrix m, int64_t rows, int64_t cols) {
  m.rows = rows, m.cols = m.stride = cols;
  return m;
}

class ForwardStep {
 public:
  ForwardStep(const DeviceModel& model, const StepExtents& extents, const StepArrays& arrays, const Activations& a,
              KernelSet& kernels)
      : m_(model), c_(model.config), e_(extents), in_(arrays), a_(a), k_(kernels) {}

  void run() {
    if (a_.before != nullptr) k_.take_drawn({in_.ids, in_.follows, a_.before, e_.tokens(), a_.drawn_before});
    k_.embed({m_.weights.embedding, in_.ids, a_.residual});
    Matrix added;  // to the residual by the next norm
    for (size_t i = 0; i < c_.layers.size(); ++i) {
      const LayerWeights& w = m_.weights.layers[i];
      norm(added, w.input_norm);
      attention(w, m_.cache[i]);
      norm(a_.projected, w.post_norm);
      if (c_.layers[i].experts > 0)
        experts(w, c_.layers[i]);
      else
        dense(w, c_.layers[i]);
      k_.all_reduce(a_.projected);
      added = a_.projected;
    }
    if (e_.outputs > 0 && (m_.draws || c_.head_rows < c_.vocabulary)) outputs(added);
  }

 private:
  void norm(const Matrix& added, const void* weight) {
    k_.add_rms_norm(
        {.x = added, .residual = a_.residual, .weight = weight, .out = a_.normed, .epsilon = c_.norm_epsilon});
  }

  kernels::PagedKv paged(const LayerCache& cache, int64_t first_sequence) const {
    return {.k = cache.k,
            .v = cache.v,
            .dtype = m_.dtype,
            .kv_heads = c_.kv_heads,
            .head_dim = c_.head_dim,
            .block_tokens = m_.block_tokens,
            .blocks = in_.blocks + first_sequence * e_.blocks_per_sequence,
            .blocks_per_sequence = e_.blocks_per_sequence};
  }

  void attention(const LayerWeights& w, const LayerCache& cache) {
    k_.gemm({a_.normed, w.qkv, a_.qkv});
    k_.rope_append({.qkv = a_.qkv.data,
                    .dtype = m_.dtype,
                    .kv = paged(cache, 0),
                    .tokens = e_.tokens(),
                    .heads = c_.heads,
                    .positions = in_.positions,
                    .sequences = in_.sequence_of,
                    .inverse_frequencies = m_.weights.inverse_frequencies,
                    .q_norm = w.q_norm,
                    .k_norm = w.k_norm,
                    .epsilon = c_.norm_epsilon,
                    .q = a_.q.data});
    const float scale = 1 / std::sqrt(static_cast<float>(c_.head_dim));
    if (e_.chunks > 0)
      k_.prefill_attention({.q = a_.q.data,
                            .out = a_.attended.data,
                            .dtype = m_.dtype,
                            .kv = paged(cache, 0),
                            .starts = in_.starts,
                            .contexts = in_.contexts,
                            .tokens = e_.chunk_tokens,
                            .batch = e_.chunks,
                            .heads = c_.heads,
                            .most_new = e_.longest_chunk,
                            .scale = scale});
    if (e_.singles > 0)
      k_.decode_attention({.q = row(a_.q, e_.chunk_tokens),
                           .out = row(a_.attended, e_.chunk_tokens),
                           .dtype = m_.dtype,
                           .kv = paged(cache, e_.chunks),
                           .contexts = in_.contexts + e_.chunks,
                           .batch = e_.singles,
                           .heads = c_.heads,
                           .most_context = e_.single_context,
                           .scale = scale});
    k_.gemm({a_.attended, w.output, a_.projected});
    k_.all_reduce(a_.projected);
  }

  void dense(const LayerWeights& w, const ModelConfig::Layer& layer) {
    const Matrix gate_up = first_rows(a_.gate_up, e_.tokens(), 2 * layer.inter);
    const Matrix inner = first_rows(a_.inner, e_.tokens(), layer.inter);
    k_.gemm({a_.normed, w.gate_up, gate_up});
    k_.silu_mul({.x = gate_up, .out = inner});
    k_.gemm({inner, w.down, a_.projected});
  }

  void experts(const LayerWeights& w, const ModelConfig::Layer& layer) {
    const int64_t rows = e_.tokens() * layer.top_k;
    const Matrix gathered = first_rows(a_.gathered, rows, c_.hidden), out = first_rows(a_.expert_out, rows, c_.hidden);
    const Matrix gate_up = first_rows(a_.gate_up, rows, 2 * layer.inter);
    const Matrix inner = first_rows(a_.inner, rows, layer.inter);
    const Matrix logits = first_rows(a_.router_logits, e_.tokens(), layer.experts);
    k_.gemm({a_.normed, w.router, logits});
    k_.route({.logits = logits,
              .experts = a_.experts,
              .weights = a_.expert_weights,
              .top_k = layer.top_k,
              .renormalize = c_.renormalize});
    k_.permute({.experts = a_.experts,
                .tokens = e_.tokens(),
                .top_k = layer.top_k,
                .local_experts = layer.experts,
                .starts = a_.expert_starts,
                .sources = a_.sources,
                .rows = a_.expert_rows});
    k_.gather({a_.normed, gathered, a_.sources, a_.expert_starts + layer.experts, layer.top_k});
    k_.grouped_gemm({gathered, w.gate_up, gate_up, a_.expert_starts, layer.experts});
    k_.silu_mul({.x = gate_up, .out = inner});
    k_.grouped_gemm({inner, w.down, out, a_.expert_starts, layer.experts});
    k_.combine({out, a_.projected, a_.expert_rows, a_.expert_weights, layer.top_k});
  }

  void outputs(const Matrix& added) {
    norm(added, m_.weights.final_norm);
    k_.embed({a_.normed, in_.output_rows, a_.selected});  // a table of rows is a table of rows
    if (c_.head_rows == c_.vocabulary) {
      k_.gemm({a_.selected, m_.weights.head, a_.logits});
    } else {
      k_.gemm({a_.selected, m_.weights.head, a_.own_logits});
      k_.all_gather(a_.own_logits, a_.logits);
    }
    if (!m_.draws) return;
    k_.sample({.logits = a_.logits,
               .temperatures = in_.temperatures,
               .top_k = in_.top_k,
               .top_p = in_.top_p,
               .seeds = in_.seeds,
               .counters = in_.counters,
               .tokens = a_.drawn});
  }

  static void* row(const Matrix& m, int64_t r) {
    return static_cast<std::byte*>(m.data) + r * m.stride * (m.dtype == core::Dtype::fp32 ? 4 : 2);
  }

  const DeviceModel& m_;
  const ModelConfig& c_;
  const StepExtents& e_;
  const StepArrays& in_;
  const Activations& a_;
  KernelSet& k_;
};

}  // namespace

Activations Activations::at(std::byte* base, const ModelConfig& own, core::Dtype dtype, int64_t tokens, int64_t outputs,
                            size_t& bytes) {
  int64_t inner = 0, most_experts = 0, choices = 0;  // choices: tokens times the experts of each
  for (const ModelConfig::Layer& layer : own.layers) {
    const int64_t rows = layer.experts > 0 ? tokens * layer.top_k : tokens;
    inner = std::max(inner, rows * layer.inter);
    most_experts = std::max(most_experts, layer.experts);
    choices = std::max(choices, layer.experts > 0 ? rows : 0);
  }
  ActivationCarver carver(base, dtype);
  Activations a;
  a.residual = carver.matrix(tokens, own.hidden);
  a.normed = carver.matrix(tokens, own.hidden);
  a.projected = carver.matrix(tokens, own.hidden);
  a.qkv = carver.matrix(tokens, own.q_width() + 2 * own.kv_width());
  a.q = carver.matrix(tokens, own.q_width());
  a.attended = carver.matrix(tokens, own.q_width());
  a.gate_up = carver.matrix(1, 2 * inner);
  a.inner = carver.matrix(1, inner);
  a.router_logits = carver.matrix(tokens, most_experts, core::Dtype::fp32);
  a.gathered = carver.matrix(choices, own.hidden);
  a.expert_out = carver.matrix(choices, own.hidden);
  a.experts = carver.integers(choices);
  a.expert_weights = static_cast<float*>(carver.bytes(choices * 4));
  a.sources = carver.integers(choices);
  a.expert_rows = carver.integers(choices);
  a.expert_starts = carver.integers(most_experts + 1);
  a.selected = carver.matrix(outputs, own.hidden);
  a.logits = carver.matrix(outputs, own.vocabulary, core::Dtype::fp32);
  a.own_logits = carver.matrix(own.head_rows < own.vocabulary ? outputs : 0, own.head_rows, core::Dtype::fp32);
  a.drawn = carver.integers(outputs);
  bytes = carver.used();
  return a;
}

void forward(const DeviceModel& model, const StepExtents& extents, const StepArrays& arrays, Activations activations,
             KernelSet& kernels) {
  ForwardStep(model, extents, arrays, activations, kernels).run();
}

}  // namespace drydock::runtime
