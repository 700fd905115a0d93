#include "runtime/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace drydock::runtime {
namespace {

using kernels::Matrix;

class WeightLoader {
 public:
  WeightLoader(const ModelConfig& whole, const WeightShare& share, core::Dtype dtype, const WeightSource& source,
               WeightMemory& memory, kernels::cpu::Threads& threads)
      : whole_(whole),
        own_(share_of(whole, share)),
        rank_(share.rank),
        dtype_(dtype),
        source_(source),
        memory_(memory),
        threads_(threads) {}

  Weights load() {
    Weights w;
    w.embedding = matrix({whole("model.embed_tokens.weight", whole_.vocabulary)}, whole_.hidden);
    w.head = whole_.tied_embeddings
                 ? own_rows(w.embedding)
                 : matrix({rows("lm_head.weight", whole_.vocabulary, own_.head_rows, whole_.hidden)}, whole_.hidden);
    w.final_norm = vector("model.norm.weight", whole_.hidden);
    w.inverse_frequencies =
        static_cast<const float*>(put(whole_.inverse_frequencies.size() * sizeof(float), [&](std::byte* to) {
          std::memcpy(to, whole_.inverse_frequencies.data(), whole_.inverse_frequencies.size() * sizeof(float));
        }));
    for (size_t i = 0; i < whole_.layers.size(); ++i) w.layers.push_back(layer(i));
    w.bytes = bytes_;
    return w;
  }

 private:
  LayerWeights layer(size_t index) {
    const std::string prefix = fmt::format("model.layers.{}.", index), attention = prefix + "self_attn.";
    LayerWeights w;
    w.input_norm = vector(prefix + "input_layernorm.weight", whole_.hidden);
    w.post_norm = vector(prefix + "post_attention_layernorm.weight", whole_.hidden);
    if (whole_.qk_norm) {
      w.q_norm = vector(attention + "q_norm.weight", whole_.head_dim);
      w.k_norm = vector(attention + "k_norm.weight", whole_.head_dim);
    }
    w.qkv = matrix({rows(attention + "q_proj.weight", whole_.q_width(), own_.q_width(), whole_.hidden),
                    rows(attention + "k_proj.weight", whole_.kv_width(), own_.kv_width(), whole_.hidden),
                    rows(attention + "v_proj.weight", whole_.kv_width(), own_.kv_width(), whole_.hidden)},
                   whole_.hidden);
    w.output =
        matrix({columns(attention + "o_proj.weight", whole_.hidden, whole_.q_width(), own_.q_width())}, own_.q_width());
    feed_forward(prefix + "mlp.", index, w);
    return w;
  }

  void feed_forward(const std::string& prefix, size_t index, LayerWeights& w) {
    const ModelConfig::Layer &all = whole_.layers[index], &own = own_.layers[index];
    std::vector<std::string> parts = {prefix};
    if (all.experts > 0) {
      w.router = matrix({whole(prefix + "gate.weight", all.experts)}, whole_.hidden);
      parts.clear();
      for (int64_t e = 0; e < all.experts; ++e) parts.push_back(fmt::format("{}experts.{}.", prefix, e));
    }
    std::vector<WeightPart> gate_up, down;
    for (const std::string& part : parts) {
      gate_up.push_back(rows(part + "gate_proj.weight", all.inter, own.inter, whole_.hidden));
      gate_up.push_back(rows(part + "up_proj.weight", all.inter, own.inter, whole_.hidden));
      down.push_back(columns(part + "down_proj.weight", whole_.hidden, all.inter, own.inter));
    }
    w.gate_up = matrix(gate_up, whole_.hidden);
    w.down = matrix(down, own.inter);
  }

  WeightPart whole(const std::string& name, int64_t rows) const {
    return {name, rows, whole_.hidden, false, 0, rows, 0, whole_.hidden};
  }
  WeightPart rows(const std::string& name, int64_t all, int64_t own, int64_t cols) const {
    return {name, all, cols, false, rank_ * own, own, 0, cols};
  }
  WeightPart columns(const std::string& name, int64_t rows, int64_t all, int64_t own) const {
    return {name, rows, all, false, 0, rows, rank_ * own, own};
  }

  // This rank's rows of a head that is whole.
  Matrix own_rows(Matrix head) const {
    if (own_.head_rows == whole_.vocabulary) return head;
    head.rows = own_.head_rows;
    head.data =
        static_cast<std::byte*>(head.data) + static_cast<size_t>(rank_ * own_.head_rows * whole_.hidden) * element();
    return head;
  }

  const void* vector(const std::string& name, int64_t count) {
    const WeightPart part{name, 1, count, true, 0, 1, 0, count};
    return put(static_cast<size_t>(count) * element(), [&](std::byte* to) { source_.read(part, dtype_, to); });
  }

  // The parts one below the other.
  Matrix matrix(const std::vector<WeightPart>& parts, int64_t cols) {
    int64_t rows = 0;
    for (const WeightPart& part : parts) rows += part.rows;
    const auto row_bytes = static_cast<size_t>(cols) * element();
    void* const data = put(static_cast<size_t>(rows) * row_bytes, [&](std::byte* to) {
      for (const WeightPart& part : parts) {
        threads_.parallel_for(part.rows, [&](int64_t begin, int64_t end) {
          WeightPart piece = part;
          piece.row += begin, piece.rows = end - begin;
          source_.read(piece, dtype_, to + static_cast<size_t>(begin) * row_bytes);
        });
        to += static_cast<size_t>(part.rows) * row_bytes;
      }
    });
    return {data, dtype_, rows, cols, cols, nullptr, kernels::Scaling::none};
  }

  void* put(size_t bytes, const std::function<void(std::byte*)>& write) {
    bytes_ += static_cast<int64_t>(bytes);
    return memory_.put(bytes, write);
  }
  size_t element() const { return dtype_ == core::Dtype::fp32 ? 4 : 2; }

  const ModelConfig& whole_;
  ModelConfig own_;
  int64_t rank_;
  core::Dtype dtype_;
  const WeightSource& source_;
  WeightMemory& memory_;
  kernels::cpu::Threads& threads_;
  int64_t bytes_ = 0;
};

}  // namespace

ModelConfig share_of(const ModelConfig& whole, const WeightShare& share) {
  ModelConfig own = whole;
  const auto divide = [&](int64_t& extent, const char* field) {
    if (extent % share.ranks != 0)
      throw core::Error(
          fmt::format("{}: field '{}': {} can't be divided among {} ranks", whole.origin, field, extent, share.ranks));
    extent /= share.ranks;
  };
  divide(own.heads, "num_attention_heads");
  divide(own.kv_heads, "num_key_value_heads");
  for (ModelConfig::Layer& layer : own.layers)
    divide(layer.inter, layer.experts > 0 ? "moe_intermediate_size" : "intermediate_size");
  if (whole.vocabulary % share.ranks == 0) own.head_rows = whole.vocabulary / share.ranks;
  return own;
}

Weights load_weights(const ModelConfig& whole, const WeightShare& share, core::Dtype dtype, const WeightSource& source,
                     WeightMemory& memory, kernels::cpu::Threads& threads) {
  return WeightLoader(whole, share, dtype, source, memory, threads).load();
}

}  // namespace drydock::runtime
