#include "models/config_layers.h"

#include <algorithm>
#include <utility>

namespace drydock::models {
namespace {

using core::Fields;
constexpr int64_t kMaxLayers = 1024, kMaxHeads = 4096, kMaxDim = 1 << 16, kMaxWidth = 1 << 22, kMaxExperts = 8192;

// Fields that give layers a shape none of the patterns below has. Reading on would count other weights than are there.
constexpr std::string_view kForeignFields[] = {"block_configs",        "compress_ratios",        "global_head_dim",
                                               "hybrid_layer_pattern", "moe_latent_size",        "o_lora_rank",
                                               "num_kv_shared_layers", "sparse_attention_config"};

void refuse_foreign(const Fields& f) {
  for (const std::string_view field : kForeignFields)
    if (f.has(field) && f.require(field) != 0)
      throw f.error(field, "gives layers a shape that is not supported; docs/models.md lists those that are");
}

// The first of several names that different families give the same thing; the usual one comes last.
int64_t any_of(const Fields& f, std::initializer_list<std::string_view> names, int64_t least, int64_t most) {
  for (const std::string_view name : names)
    if (f.has(name)) return f.integer(name, least, most);
  return f.integer(*(names.end() - 1), least, most);  // throws: missing
}

int64_t any_of_or(const Fields& f, std::initializer_list<std::string_view> names, int64_t otherwise, int64_t most) {
  for (const std::string_view name : names)
    if (f.has(name)) return f.integer(name, 0, most);
  return otherwise;
}

Attention grouped_query(const Fields& f, int64_t hidden) {
  Attention a;
  a.heads = f.integer("num_attention_heads", 1, kMaxHeads);
  a.kv_heads = f.integer_or("num_key_value_heads", a.heads, 1, kMaxHeads);
  if (a.heads % a.kv_heads != 0) throw f.error("num_key_value_heads", "must divide num_attention_heads");
  if (!f.has("head_dim") && hidden % a.heads != 0)
    throw f.error("head_dim", "missing, and hidden_size is no multiple of num_attention_heads");
  a.head_dim = f.integer_or("head_dim", std::max<int64_t>(1, hidden / a.heads), 1, kMaxDim);
  const std::string type = f.text_or("model_type", "");
  a.output_gate = f.boolean_or("attn_output_gate", type == "qwen3_next");
  a.bias = f.boolean_or("attention_bias", type.starts_with("qwen2"));
  a.qk_norm = type.starts_with("qwen3") || f.boolean_or("use_qk_norm", false);
  a.qk_norm_whole = a.qk_norm && f.text_or("qk_norm_type", "") == "per_layer";
  a.sinks = type == "gpt_oss";
  return a;
}

Attention latent(const Fields& f) {
  Attention a;
  a.kind = f.has("index_topk") ? AttentionKind::sparse_mla : AttentionKind::mla;
  a.heads = f.integer("num_attention_heads", 1, kMaxHeads);
  a.q_lora_rank = f.integer_or("q_lora_rank", 0, 0, kMaxWidth);
  a.kv_lora_rank = f.integer("kv_lora_rank", 1, kMaxWidth);
  a.nope_dim = f.integer("qk_nope_head_dim", 1, kMaxDim);
  a.rope_dim = f.integer("qk_rope_head_dim", 1, kMaxDim);
  a.v_dim = f.integer("v_head_dim", 1, kMaxDim);
  if (a.kind == AttentionKind::sparse_mla) {
    a.index_heads = f.integer("index_n_heads", 1, kMaxHeads);
    a.index_dim = f.integer("index_head_dim", 1, kMaxDim);
    a.index_top_k = f.integer("index_topk", 1, 1 << 24);
    if (a.q_lora_rank == 0) throw f.error("q_lora_rank", "missing; the sparse indexer reads the compressed query");
  }
  return a;
}

Attention gated_delta(const Fields& f) {
  Attention a;
  a.kind = AttentionKind::gated_delta;
  a.k_heads = f.integer("linear_num_key_heads", 1, kMaxHeads);
  a.v_heads = f.integer("linear_num_value_heads", 1, kMaxHeads);
  a.k_dim = f.integer("linear_key_head_dim", 1, kMaxDim);
  a.v_dim_linear = f.integer("linear_value_head_dim", 1, kMaxDim);
  a.conv = f.integer("linear_conv_kernel_dim", 1, 64);
  return a;
}

Attention mamba2(const Fields& f) {
  Attention a;
  a.kind = AttentionKind::mamba2;
  a.v_heads = f.integer("mamba_num_heads", 1, kMaxHeads);
  a.v_dim_linear = f.integer("mamba_head_dim", 1, kMaxDim);
  a.state = f.integer("ssm_state_size", 1, kMaxDim);
  a.groups = f.integer("n_groups", 1, kMaxHeads);
  a.conv = f.integer("conv_kernel", 1, 64);
  return a;
}

Ffn dense(const Fields& f) {
  Ffn out;
  out.inter = any_of(f, {"intermediate_size_mlp", "intermediate_size"}, 1, kMaxWidth);
  return out;
}

int64_t experts_of(const Fields& f) {
  return any_of_or(f, {"n_routed_experts", "num_local_experts", "num_experts"}, 0, kMaxExperts);
}

Ffn moe(const Fields& f) {
  Ffn out;
  out.experts = experts_of(f);
  out.top_k = any_of(f, {"moe_k", "experts_per_token", "num_experts_per_tok"}, 1, kMaxExperts);
  out.expert_groups = f.integer_or("n_group", 1, 1, kMaxExperts);
  if (out.experts % out.expert_groups != 0) out.expert_groups = 1;
  if (out.top_k > out.experts) throw f.error("num_experts_per_tok", "must not exceed the number of experts");
  out.inter = any_of(f, {"moe_intermediate_size", "intermediate_size"}, 1, kMaxWidth);
  out.shared_inter = any_of_or(
      f, {"moe_shared_expert_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"}, -1,
      kMaxWidth);
  const std::string type = f.text_or("model_type", "");
  if (out.shared_inter < 0)
    out.shared_inter = type.starts_with("llama4") ? out.inter : f.integer_or("n_shared_experts", 0, 0, 64) * out.inter;
  out.shared_gate = out.shared_inter > 0 && f.has("shared_expert_intermediate_size");
  out.bias = type == "gpt_oss";
  return out;
}

// Interns a kind of layer.
uint8_t kind_index(const Fields& f, Architecture& a, const LayerKind& kind) {
  const auto found = std::find(a.kinds.begin(), a.kinds.end(), kind);
  if (found != a.kinds.end()) return static_cast<uint8_t>(found - a.kinds.begin());
  if (a.kinds.size() >= 16) throw f.error("layer_types", "over 16 different kinds of layer");
  a.kinds.push_back(kind);
  return static_cast<uint8_t>(a.kinds.size() - 1);
}

// Nemotron-H: one letter a layer; M Mamba-2, * attention, E experts, - dense. Later configs spell the letters out.
std::string letters_of(const Fields& f) {
  if (f.has("hybrid_override_pattern")) return f.text("hybrid_override_pattern");
  constexpr std::pair<std::string_view, char> kLetters[] = {
      {"mamba", 'M'}, {"attention", '*'}, {"moe", 'E'}, {"mlp", '-'}};
  std::string letters;
  for (const core::Json& block : f.array("layers_block_type")) {
    const auto found =
        std::find_if(std::begin(kLetters), std::end(kLetters), [&](const auto& l) { return block == l.first; });
    if (found == std::end(kLetters)) throw f.error("layers_block_type", "want mamba, attention, moe or mlp");
    letters += found->second;
  }
  return letters;
}

// A feed-forward follows the mixer before it: both make one layer here.
void attach_ffn(const Fields& f, Architecture& a, Ffn ffn, std::string_view pattern_field) {
  if (a.layer_kinds.empty() || a.kinds[a.layer_kinds.back()].ffn)
    throw f.error(pattern_field, "a feed-forward must follow Mamba-2 or attention");
  LayerKind kind = a.kinds[a.layer_kinds.back()];
  ffn.gated = false;
  kind.ffn = ffn;
  a.layer_kinds.back() = kind_index(f, a, kind);
}

// Drops kinds no layer has: those of mixers before their feed-forward was attached.
void drop_unused_kinds(Architecture& a) {
  std::vector<LayerKind> used;
  for (uint8_t& index : a.layer_kinds) {
    const LayerKind& kind = a.kinds[index];
    const auto found = std::find(used.begin(), used.end(), kind);
    index = static_cast<uint8_t>(found - used.begin());
    if (found == used.end()) used.push_back(kind);
  }
  a.kinds = std::move(used);
}

void read_pattern(const Fields& f, Architecture& a) {
  const std::string_view field = f.has("hybrid_override_pattern") ? "hybrid_override_pattern" : "layers_block_type";
  const std::string letters = letters_of(f);
  if (letters.empty() || letters.size() > kMaxLayers) throw f.error(field, "want 1 to 1024 layers");
  for (const char letter : letters) {
    switch (letter) {
      case 'M':
        a.layer_kinds.push_back(kind_index(f, a, {mamba2(f), std::nullopt}));
        break;
      case '*':
        a.layer_kinds.push_back(kind_index(f, a, {grouped_query(f, a.hidden), std::nullopt}));
        break;
      case 'E':
        attach_ffn(f, a, moe(f), field);
        break;
      case '-':
        attach_ffn(f, a, dense(f), field);
        break;
      default:
        throw f.error(field, std::string("'") + letter + "' is none of M * E -");
    }
  }
  drop_unused_kinds(a);
}

// Which layers hold experts.
class MoePlacement {
 public:
  explicit MoePlacement(const Fields& f) : any_(experts_of(f) > 0) {
    first_dense_ = f.integer_or("first_k_dense_replace", 0, 0, kMaxLayers);
    step_ = std::max<int64_t>(
        1, any_of_or(f, {"interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq"}, 1, kMaxLayers));
    if (f.has("mlp_only_layers"))
      for (const core::Json& layer : f.array("mlp_only_layers"))
        if (layer.is_number_integer()) dense_layers_.push_back(layer.get<int64_t>());
  }
  bool at(int64_t layer) const {
    if (!any_ || layer < first_dense_ || (layer + 1) % step_ != 0) return false;
    return std::find(dense_layers_.begin(), dense_layers_.end(), layer) == dense_layers_.end();
  }

 private:
  bool any_;
  int64_t first_dense_ = 0, step_ = 1;
  std::vector<int64_t> dense_layers_;
};

// What attention a layer has, from `layer_types`, an interval, or the same everywhere.
class MixerPlacement {
 public:
  MixerPlacement(const Fields& f, int64_t hidden, int64_t layers) : f_(f) {
    full_ = f.has("kv_lora_rank") ? latent(f) : grouped_query(f, hidden);
    if (f.has("layer_types")) {
      types_ = &f.array("layer_types");
      if (static_cast<int64_t>(types_->size()) != layers)
        throw f.error("layer_types", "want one entry for each of num_hidden_layers");
    }
    interval_ = f.integer_or("full_attention_interval", 0, 0, kMaxLayers);
    windowed_ = full_;
    const bool uses_window = f.boolean_or("use_sliding_window", true);
    if (f.has("sliding_window") && uses_window) windowed_.window = f.integer("sliding_window", 1, int64_t{1} << 32);
    if (windowed_.window > 0) windowed_.kind = AttentionKind::sliding;
    full_every_ = f.integer_or("sliding_window_pattern", 0, 0, kMaxLayers);  // Gemma 3
    if (f.has("attention_chunk_size")) {
      full_every_ = f.integer_or("no_rope_layer_interval", 4, 1, kMaxLayers);  // Llama 4: each fourth sees everything
      windowed_.kind = AttentionKind::chunked;
      windowed_.window = f.integer("attention_chunk_size", 1, int64_t{1} << 32);
    }
  }

  Attention at(int64_t layer) const {
    if (types_) return of_type((*types_)[static_cast<size_t>(layer)]);
    if (interval_ > 0) return (layer + 1) % interval_ == 0 ? full_ : gated_delta(f_);
    if (full_every_ > 0) return (layer + 1) % full_every_ == 0 ? full_ : windowed_;
    return windowed_.window > 0 ? windowed_ : full_;
  }

 private:
  Attention of_type(const core::Json& type) const {
    if (type == "linear_attention") return gated_delta(f_);
    if (type == "full_attention" || type == "attention" || type == "deepseek_sparse_attention") return full_;
    if (type == "sliding_attention" || type == "chunked_attention") {
      if (windowed_.window == 0) throw f_.error("sliding_window", "missing, but layer_types has windowed layers");
      return windowed_;
    }
    throw f_.error("layer_types", "want full_attention, sliding_attention, chunked_attention or linear_attention");
  }

  const Fields& f_;
  Attention full_, windowed_;
  const core::Json* types_ = nullptr;
  int64_t interval_ = 0, full_every_ = 0;
};

}  // namespace

void read_layers(const Fields& f, Architecture& a) {
  refuse_foreign(f);
  if (f.has("hybrid_override_pattern") || f.has("layers_block_type")) return read_pattern(f, a);
  const int64_t layers = f.integer("num_hidden_layers", 1, kMaxLayers);
  const MixerPlacement mixers(f, a.hidden, layers);
  const MoePlacement experts(f);
  for (int64_t layer = 0; layer < layers; ++layer)
    a.layer_kinds.push_back(kind_index(f, a, {mixers.at(layer), experts.at(layer) ? moe(f) : dense(f)}));
}

std::string family_name(const Architecture& a) {
  constexpr std::string_view kNames[] = {"GQA",        "sliding-window GQA", "chunked GQA", "MLA",
                                         "sparse MLA", "gated delta net",    "Mamba-2"};
  std::string mixers;
  bool any_moe = false;
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (std::any_of(a.kinds.begin(), a.kinds.end(),
                    [&](const LayerKind& k) { return static_cast<size_t>(k.attention.kind) == i; }))
      (mixers += mixers.empty() ? "" : " + ") += kNames[i];
  for (const LayerKind& kind : a.kinds) any_moe |= kind.ffn && kind.ffn->is_moe();
  return (any_moe ? "MoE with " : "dense ") + mixers;
}

}  // namespace drydock::models
