#include "runtime/model_config.h"

#include <cmath>
#include <numbers>

#include "core/file.h"
#include "core/json.h"
#include "models/catalogue.h"

namespace drydock::runtime {
namespace {

using core::Fields;

// "Scaling for long contexts" of Llama 3.1 (meta-llama/llama-models, models/llama3/model.py, apply_scaling): waves much
// shorter than the first training's context stay, much longer ones are stretched by `factor`, between it is gradual.
void scale_as_llama3(const Fields& scaling, std::vector<float>& frequencies) {
  const double factor = scaling.number("factor", 1, 1e6);
  const double low = scaling.number("low_freq_factor", 1e-3, 1e6), high = scaling.number("high_freq_factor", 1e-3, 1e6);
  const double context = scaling.number("original_max_position_embeddings", 1, 1e12);
  if (high <= low) throw scaling.error("high_freq_factor", "has to be above low_freq_factor");
  for (float& frequency : frequencies) {
    const double wave = 2 * std::numbers::pi / frequency;
    if (wave < context / high) continue;
    const double smooth = wave > context / low ? 0 : (context / wave - low) / (high - low);
    frequency = static_cast<float>((1 - smooth) * frequency / factor + smooth * frequency);
  }
}

// config.json has rope_theta and rope_scaling; since version 5 of transformers, rope_parameters with both.
std::vector<float> rotary_frequencies(const Fields& f, int64_t head_dim) {
  const Fields parameters = f.has("rope_parameters") ? f.object("rope_parameters") : f;
  const double theta = parameters.number_or("rope_theta", f.number_or("rope_theta", 10000, 1, 1e12), 1, 1e12);
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim; i += 2)
    frequencies.push_back(
        static_cast<float>(1 / std::pow(theta, static_cast<double>(i) / static_cast<double>(head_dim))));
  if (!f.has("rope_parameters") && !f.has("rope_scaling")) return frequencies;
  const Fields scaling = f.has("rope_parameters") ? parameters : f.object("rope_scaling");
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  if (type == "llama3")
    scale_as_llama3(scaling, frequencies);
  else if (type != "default")
    throw scaling.error("rope_type", "'" + type + "' is not computed here; default or llama3 is right");
  return frequencies;
}

void refuse_what_is_not_computed(const Fields& f, const models::Architecture& a) {
  if (a.model_type != "llama" && a.model_type != "qwen3" && a.model_type != "qwen3_moe")
    throw f.error("model_type", "'" + a.model_type + "' is not computed here; llama, qwen3 or qwen3_moe is right");
  for (const char* bias : {"attention_bias", "mlp_bias"})
    if (f.boolean_or(bias, false)) throw f.error(bias, "is true; projections without bias are computed here");
  if (f.boolean_or("use_sliding_window", false))
    throw f.error("use_sliding_window", "is true; attention to all tokens is computed here");
  if (f.has("quantization_config"))
    throw f.error("quantization_config", "weights in bf16, fp16 or fp32 are computed here");
  if (const std::string act = f.text_or("hidden_act", "silu"); act != "silu")
    throw f.error("hidden_act", "'" + act + "' is not computed here; silu is right");
  for (const models::LayerKind& kind : a.kinds) {
    if (kind.attention.kind != models::AttentionKind::full || !kind.ffn)
      throw f.error("layer_types", "layers of full attention and a feed-forward are computed here");
    if (kind.ffn->shared_inter > 0) throw f.error("n_shared_experts", "shared experts are not computed here");
  }
}

}  // namespace

ModelConfig parse_model_config(std::string_view config_json, std::string_view origin) {
  const models::Architecture a = models::parse_config(config_json, "", origin);
  const core::Json document = core::parse_json(config_json, origin);
  const Fields f(document, std::string(origin));
  refuse_what_is_not_computed(f, a);
  const models::Attention& attention = a.kinds.front().attention;
  ModelConfig c;
  c.origin = origin;
  c.hidden = a.hidden, c.vocabulary = c.head_rows = a.vocab, c.longest = a.max_context;
  c.heads = attention.heads, c.kv_heads = attention.kv_heads, c.head_dim = attention.head_dim;
  c.qk_norm = attention.qk_norm;
  if (c.head_dim % 2 != 0) throw f.error("head_dim", "is odd; rotary positions need pairs");
  for (const uint8_t kind : a.layer_kinds) {
    const models::Ffn& ffn = *a.kinds[kind].ffn;
    c.layers.push_back({ffn.inter, ffn.experts, ffn.top_k});
  }
  c.renormalize = f.boolean_or("norm_topk_prob", false);
  c.tied_embeddings = a.tied_embeddings;
  c.norm_epsilon = static_cast<float>(f.number_or("rms_norm_eps", 1e-6, 0, 1));
  c.inverse_frequencies = rotary_frequencies(f, c.head_dim);
  return c;
}

ModelConfig read_model_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path file = model_dir / "config.json";
  return parse_model_config(core::read_file(file, core::kMaxJsonBytes), file.string());
}

}  // namespace drydock::runtime
