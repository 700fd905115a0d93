#include "models/config_quantization.h"

#include <algorithm>
#include <utility>

namespace drydock::models {
namespace {

using core::Dtype;
using core::Fields;
using core::Json;

// What the quantized weights are, and which modules were left alone.
struct Quantization {
  Dtype weights = Dtype::bf16;
  bool kv_fp8 = false;
  bool attention_kept = false;
  bool shared_and_dense_kept = false;  // only the routed experts are quantized
};

bool contains(std::string_view text, std::string_view word) { return text.find(word) != std::string_view::npos; }

// Exclusion lists also name what nobody quantizes: norms, gates, the indexer and the small projections of a delta net.
bool names_attention(std::string_view module) {
  if (contains(module, "norm") || contains(module, "indexer") || contains(module, "conv1d")) return false;
  if (contains(module, "in_proj_a") || contains(module, "in_proj_b")) return false;
  return contains(module, "attn");
}

bool names_shared_expert(std::string_view module) {
  return contains(module, "shared_expert") && !contains(module, "shared_expert_gate");
}

Json list_of(const Fields& f, std::string_view field) { return f.has(field) ? f.array(field) : Json::array(); }

void note_exclusions(Quantization& q, const Json& excluded) {
  for (const Json& item : excluded) {
    if (!item.is_string()) continue;
    const std::string& module = item.get_ref<const std::string&>();
    q.attention_kept |= names_attention(module);
    q.shared_and_dense_kept |= names_shared_expert(module);
  }
}

Dtype by_bits(const Fields& f, std::string_view field, int64_t bits, bool integer) {
  if (bits == 8) return integer ? Dtype::int8 : Dtype::fp8;
  if (bits == 4) return integer ? Dtype::int4 : Dtype::nvfp4;
  throw f.error(field, "want 4 or 8");
}

// The first of the groups; checkpoints with several quantize the bulk of the weights in the first.
Dtype group_weights(const Fields& q) {
  const Fields groups = q.object("config_groups");
  if (groups.json().empty()) throw q.error("config_groups", "want at least one group");
  const Fields weights = groups.object(groups.json().begin().key()).object("weights");
  const bool integer = weights.text_or("type", "int") == "int";
  return by_bits(weights, "num_bits", weights.integer("num_bits", 1, 16), integer);
}

// AMD's Quark: fp4 there is MXFP4.
Dtype quark_weights(const Fields& q) {
  const Fields weight = q.object("global_quant_config").object("weight");
  const std::string dtype = weight.text("dtype");
  if (dtype == "fp8_e4m3") return Dtype::fp8;
  if (dtype == "fp4") return Dtype::mxfp4;
  if (dtype == "int8") return Dtype::int8;
  if (dtype == "int4") return Dtype::int4;
  throw weight.error("dtype", "'" + dtype.substr(0, 60) + "' is none of fp8_e4m3, fp4, int8, int4");
}

Precision precision_of(const Quantization& q) {
  Precision p;
  p.moe = q.weights;
  if (!q.shared_and_dense_kept) p.gemm = q.weights;
  if (!q.attention_kept) p.attention_gemm = p.gemm;
  if (q.kv_fp8) p.kv = Dtype::fp8;
  return p;
}

Quantization read_fp8(const Fields& q) {
  Quantization out;
  out.weights = q.has("weight_block_size") ? Dtype::fp8_block : Dtype::fp8;
  note_exclusions(out, list_of(q, "modules_to_not_convert"));
  return out;
}

Quantization read_groups(const Fields& q) {
  Quantization out;
  out.weights = group_weights(q);
  out.kv_fp8 = q.has("kv_cache_scheme") || out.weights == Dtype::nvfp4;
  note_exclusions(out, list_of(q, "ignore"));
  return out;
}

Quantization read_quark(const Fields& q) {
  Quantization out;
  out.weights = quark_weights(q);
  out.kv_fp8 = q.has("kv_cache_quant_config") && !q.object("kv_cache_quant_config").json().empty();
  note_exclusions(out, list_of(q, "exclude"));
  return out;
}

Dtype modelopt_weights(const Fields& q, const std::string& algorithm) {
  static constexpr std::pair<std::string_view, Dtype> kAlgorithms[] = {
      {"FP8", Dtype::fp8},        {"FP8_PB_WO", Dtype::fp8_block}, {"FP8_BLOCK_SCALES", Dtype::fp8_block},
      {"NVFP4", Dtype::nvfp4},    {"NVFP4_AWQ", Dtype::nvfp4},     {"MIXED_PRECISION", Dtype::nvfp4},
      {"W4A16_AWQ", Dtype::int4}, {"W4A8_AWQ", Dtype::int4},       {"W4A8_MXFP4_FP8", Dtype::mxfp4},
      {"INT8_SQ", Dtype::int8}};
  for (const auto& [name, dtype] : kAlgorithms)
    if (name == algorithm) return dtype;
  throw q.error("quant_algo",
                "'" + algorithm.substr(0, 60) + "' is not known; want FP8, FP8_BLOCK_SCALES, NVFP4 or W4A16_AWQ");
}

}  // namespace

Precision read_quantization_config(const Fields& q) {
  // ModelOpt's older checkpoints leave the method out.
  const std::string method = q.has("config_groups") ? q.text_or("quant_method", "modelopt") : q.text("quant_method");
  if (method == "fp8" || method == "fbgemm_fp8") return precision_of(read_fp8(q));
  if (method == "mxfp4")
    return precision_of({Dtype::mxfp4, false, true, true});  // experts are all that is ever stored so
  if (method == "compressed-tensors" || method.starts_with("modelopt")) return precision_of(read_groups(q));
  if (method == "quark") return precision_of(read_quark(q));
  if (method == "awq" || method == "gptq")
    return precision_of({by_bits(q, "bits", q.integer_or("bits", 4, 1, 16), true), false, false, false});
  throw q.error("quant_method",
                "'" + method.substr(0, 60) + "' is none of fp8, mxfp4, compressed-tensors, modelopt, quark, awq, gptq");
}

Precision read_modelopt(const Fields& file) {
  const Fields q = file.object("quantization");
  const std::string algorithm = q.text("quant_algo");
  Quantization out;
  out.weights = modelopt_weights(q, algorithm);
  out.attention_kept = algorithm == "MIXED_PRECISION";  // experts in NVFP4, attention in a wider format
  out.kv_fp8 = q.text_or("kv_cache_quant_algo", "") == "FP8";
  note_exclusions(out, list_of(q, "exclude_modules"));
  return precision_of(out);
}

}  // namespace drydock::models
