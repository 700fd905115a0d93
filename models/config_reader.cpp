#include <algorithm>

#include "core/json.h"
#include "models/catalogue.h"
#include "models/config_layers.h"
#include "models/config_quantization.h"

namespace drydock::models {
namespace {

using core::Fields;
using core::Json;

// model_type values whose meaning this reader knows; others are accepted when their fields follow one of the patterns.
constexpr std::string_view kKnownTypes[] = {
    "llama",        "mistral",          "mixtral",     "qwen2",         "qwen2_moe",
    "qwen3",        "qwen3_moe",        "qwen3_next",  "qwen3_vl_text", "qwen3_vl_moe_text",
    "qwen3_5_text", "qwen3_5_moe_text", "deepseek_v2", "deepseek_v3",   "deepseek_v32",
    "kimi_k2",      "glm4_moe",         "glm_moe_dsa", "minimax_m2",    "gpt_oss",
    "llama4_text",  "nemotron_h",       "phi3"};

bool is_known(std::string_view type) {
  return std::find(std::begin(kKnownTypes), std::end(kKnownTypes), type) != std::end(kKnownTypes);
}

// Multimodal checkpoints nest the language model.
Fields language_model(const Fields& top) { return top.has("text_config") ? top.object("text_config") : top; }

int64_t mtp_layers(const Fields& f) {
  for (const std::string_view field : {"num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"})
    if (f.has(field)) return f.integer(field, 0, 64);
  return 0;
}

// Python writes Infinity and NaN, which JSON does not have, into fields nobody here reads (Nemotron-H's
// time_step_limit). They become null.
std::string strict_json(std::string_view text) {
  std::string out(text);
  bool quoted = false;
  for (size_t i = 0; i < out.size(); ++i) {
    if (quoted && out[i] == '\\')
      ++i;
    else if (out[i] == '"')
      quoted = !quoted;
    else if (!quoted && (out[i] == 'I' || out[i] == 'N' || out[i] == '-'))
      for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
        if (std::string_view(out).substr(i, word.size()) == word) out.replace(i, word.size(), "null");
  }
  return out;
}

// A decoder says how many KV heads or what latent it has. Encoders and older models, which this reader would get wrong,
// say neither.
void accept_unknown(const Fields& f, Architecture& a) {
  const std::string type = "model_type '" + a.model_type.substr(0, 80) + "'";
  if (!f.has("num_key_value_heads") && !f.has("kv_lora_rank"))
    throw f.error("num_key_value_heads", "missing, and " + type + " is not known");
  a.warnings.push_back((a.name.empty() ? "" : a.name + ": ") + type + " is not known; read by its fields as " +
                       family_name(a));
}

Precision published_precision(const Fields& top, const Fields& language, std::string_view quant_json) {
  if (!quant_json.empty()) {
    const std::string origin = top.origin() + " (hf_quant_config.json)";
    const Json quant = core::parse_json(quant_json, origin);
    return read_modelopt(Fields(quant, origin));
  }
  for (const Fields* f : {&language, &top})
    if (f->has("quantization_config")) return read_quantization_config(f->object("quantization_config"));
  return {};
}

// Reads one document, whose text is JSON already.
Architecture read_document(const Json& document, std::string_view quant_json, std::string_view origin) {
  const Fields top(document, std::string(origin));
  const Fields f = language_model(top);
  Architecture a;
  a.name = top.text_or("_name_or_path", "");
  a.model_type = f.text_or("model_type", top.text_or("model_type", ""));
  if (a.model_type.empty()) throw top.error("model_type", "missing");
  a.hidden = f.integer("hidden_size", 1, 1 << 20);
  a.vocab = f.integer("vocab_size", 1, 1 << 24);
  a.max_context = f.integer("max_position_embeddings", 1, int64_t{1} << 32);
  a.tied_embeddings = f.boolean_or("tie_word_embeddings", top.boolean_or("tie_word_embeddings", false));
  a.mtp_layers = mtp_layers(f);
  read_layers(f, a);
  if (!is_known(a.model_type)) accept_unknown(f, a);
  a.precision = published_precision(top, f, quant_json);
  return a;
}

}  // namespace

Architecture parse_config(std::string_view config_json, std::string_view quant_json, std::string_view origin) {
  return read_document(core::parse_json(strict_json(config_json), origin), quant_json, origin);
}

}  // namespace drydock::models
