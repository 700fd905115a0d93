#include <algorithm>
#include <map>

#include "core/json.h"
#include "models/catalogue.h"
#include "models/config_layers.h"

namespace drydock::models {
namespace {

using core::Dtype;
using core::Fields;
using core::Json;

// model_type values whose meaning this reader knows; others are accepted when their fields follow one of the patterns.
constexpr std::string_view kKnownTypes[] = {
    "llama",       "mistral",     "qwen2",           "qwen3",        "qwen2_moe",     "qwen3_moe",   "mixtral",  "gpt_oss",
    "minimax_m2",  "deepseek_v3", "deepseek_v32",    "kimi_k2",      "glm_moe_dsa",   "glm4_moe",    "llama4_text", "qwen3_next",
    "qwen3_5_moe_text", "qwen3_5_text", "nemotron_h", "phi3", "gemma3_text", "deepseek_v2"};

// Multimodal checkpoints nest the language model.
Fields language_model(const Fields& top) { return top.has("text_config") ? top.object("text_config") : top; }

// Quantization as checkpoints state it: what the weights are, and which modules are left alone.
struct Quantization {
  Dtype weights = Dtype::bf16;
  bool kv_fp8 = false;
  bool attention_kept = false;  // attention projections are not quantized
  bool experts_only = false;
};

bool mentions(const Json& list, std::string_view word) {
  if (!list.is_array()) return false;
  return std::any_of(list.begin(), list.end(), [&](const Json& item) {
    return item.is_string() && item.get_ref<const std::string&>().find(word) != std::string::npos;
  });
}

Json list_of(const Fields& f, std::string_view field) { return f.has(field) ? f.array(field) : Json::array(); }

void note_exclusions(Quantization& q, const Json& excluded) {
  q.attention_kept = mentions(excluded, "self_attn") || mentions(excluded, "attn") || mentions(excluded, "attention");
  q.experts_only = mentions(excluded, "shared_experts") || mentions(excluded, "mlp\\.");
}

Dtype compressed_weights(const Fields& q) {
  const Fields groups = q.object("config_groups");
  if (groups.json().empty()) throw q.error("config_groups", "want at least one group");
  const std::string first = groups.json().begin().key();
  const Fields weights = groups.object(first).object("weights");
  const int64_t bits = weights.integer("num_bits", 1, 16);
  const bool integer = weights.text_or("type", "int") == "int";
  if (bits == 8) return integer ? Dtype::int8 : Dtype::fp8;
  if (bits == 4) return integer ? Dtype::int4 : Dtype::nvfp4;
  throw weights.error("num_bits", "want 4 or 8");
}

// config.json's quantization_config: DeepSeek-style fp8, OpenAI's mxfp4, compressed-tensors, ModelOpt, AWQ and GPTQ.
Quantization read_quantization_config(const Fields& q) {
  const std::string method = q.text("quant_method");
  Quantization out;
  if (method == "fp8" || method == "fbgemm_fp8") {
    out.weights = q.has("weight_block_size") ? Dtype::fp8_block : Dtype::fp8;
  } else if (method == "mxfp4") {
    out.weights = Dtype::mxfp4;
    note_exclusions(out, list_of(q, "modules_to_not_convert"));
    out.attention_kept = out.experts_only = true;  // only the expert matrices are ever stored as MXFP4
  } else if (method == "compressed-tensors" || method == "modelopt" || method == "modelopt_fp4") {
    out.weights = compressed_weights(q);
    note_exclusions(out, list_of(q, "ignore"));
    out.kv_fp8 = q.has("kv_cache_scheme") || out.weights == Dtype::nvfp4;
  } else if (method == "awq" || method == "gptq") {
    out.weights = q.integer_or("bits", 4, 1, 16) == 8 ? Dtype::int8 : Dtype::int4;
  } else {
    throw q.error("quant_method", "'" + method.substr(0, 60) + "' is none of fp8, mxfp4, compressed-tensors, modelopt, awq, gptq");
  }
  return out;
}

// ModelOpt's hf_quant_config.json.
Quantization read_modelopt(const Fields& top) {
  const Fields q = top.object("quantization");
  const std::string algorithm = q.text("quant_algo");
  static const std::map<std::string, Dtype, std::less<>> kAlgorithms = {
      {"FP8", Dtype::fp8}, {"FP8_PB_WO", Dtype::fp8_block}, {"FP8_BLOCK_SCALES", Dtype::fp8_block}, {"NVFP4", Dtype::nvfp4},
      {"NVFP4_AWQ", Dtype::nvfp4}, {"W4A16_AWQ", Dtype::int4}, {"W4A8_AWQ", Dtype::int4}, {"INT8_SQ", Dtype::int8}, {"W4A8_MXFP4_FP8", Dtype::mxfp4}};
  const auto found = kAlgorithms.find(algorithm);
  Quantization out;
  if (algorithm == "MIXED_PRECISION") out.weights = Dtype::nvfp4, out.attention_kept = true;
  else if (found == kAlgorithms.end()) throw q.error("quant_algo", "'" + algorithm.substr(0, 60) + "' is not known; want FP8, FP8_BLOCK_SCALES, NVFP4 or W4A16_AWQ");
  else out.weights = found->second;
  out.kv_fp8 = q.text_or("kv_cache_quant_algo", "") == "FP8";
  note_exclusions(out, list_of(q, "exclude_modules"));
  return out;
}

Precision precision_of(const Quantization& q) {
  Precision p;
  p.moe = q.weights;
  if (!q.experts_only) p.gemm = q.weights;
  if (!q.attention_kept) p.attention_gemm = p.gemm;
  if (q.kv_fp8) p.kv = Dtype::fp8;
  return p;
}

int64_t mtp_layers(const Fields& f) {
  for (const std::string_view field : {"num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules"})
    if (f.has(field)) return f.integer(field, 0, 64);
  return 0;
}

}  // namespace

Architecture parse_config(std::string_view config_json, std::string_view quant_json, std::string_view origin) {
  const Json document = core::parse_json(config_json, origin);
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
  if (std::find(std::begin(kKnownTypes), std::end(kKnownTypes), a.model_type) == std::end(kKnownTypes))
    a.warnings.push_back(a.name + (a.name.empty() ? "" : ": ") + "model_type '" + a.model_type.substr(0, 80) +
                         "' is not known; read by its fields as " + family_name(a));
  if (!quant_json.empty()) {
    const std::string quant_origin = std::string(origin) + " (hf_quant_config.json)";
    const Json quant = core::parse_json(quant_json, quant_origin);
    a.precision = precision_of(read_modelopt(Fields(quant, quant_origin)));
  } else if (f.has("quantization_config")) {
    a.precision = precision_of(read_quantization_config(f.object("quantization_config")));
  } else if (top.has("quantization_config")) {
    a.precision = precision_of(read_quantization_config(top.object("quantization_config")));
  }
  return a;
}

}  // namespace drydock::models
