// Reading config.json: families by their fields, quantization as checkpoints state it, and hostile input.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "models/catalogue.h"
#include "models/config_layers.h"

using namespace drydock;
using core::Dtype;
using core::Json;
using models::Architecture;
using models::AttentionKind;

namespace {

// A small dense decoder, which the cases below bend.
Json decoder() {
  return {{"model_type", "llama"},     {"hidden_size", 1024},
          {"vocab_size", 32000},       {"num_hidden_layers", 4},
          {"num_attention_heads", 16}, {"num_key_value_heads", 4},
          {"intermediate_size", 4096}, {"max_position_embeddings", 8192}};
}

Json with(Json config, const Json& fields) {
  config.update(fields);
  return config;
}

Json without(Json config, const std::string& field) {
  config.erase(field);
  return config;
}

Architecture read(const Json& config, const Json& quant = nullptr) {
  return models::parse_config(config.dump(), quant.is_null() ? "" : quant.dump(), "test.json");
}

std::string config_error(const Json& config) {
  try {
    read(config);
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

const models::LayerKind& layer(const Architecture& a, int64_t index) {
  return a.kinds[a.layer_kinds[static_cast<size_t>(index)]];
}

int64_t count(const Architecture& a, AttentionKind kind) {
  return std::count_if(a.layer_kinds.begin(), a.layer_kinds.end(),
                       [&](uint8_t k) { return a.kinds[k].attention.kind == kind; });
}

}  // namespace

TEST_CASE("dense GQA") {
  const Architecture a = read(decoder());
  CHECK(a.layers() == 4);
  REQUIRE(a.kinds.size() == 1);
  const models::Attention& attention = a.kinds[0].attention;
  CHECK(attention.kind == AttentionKind::full);
  CHECK(attention.heads == 16);
  CHECK(attention.kv_heads == 4);
  CHECK(attention.head_dim == 64);  // 1024 / 16, not stated
  CHECK(a.kinds[0].ffn->inter == 4096);
  CHECK_FALSE(a.kinds[0].ffn->is_moe());
  CHECK(a.warnings.empty());
  CHECK(read(with(decoder(), {{"head_dim", 128}})).kinds[0].attention.head_dim == 128);
  CHECK(models::family_name(a) == "dense GQA");
}

TEST_CASE("gpt-oss alternates windows of 128 with full attention, has sinks and biases") {
  const Architecture a = models::find_model("openai/gpt-oss-120b");
  REQUIRE(a.layers() == 36);
  for (int64_t i = 0; i < a.layers(); ++i) {
    const models::Attention& attention = layer(a, i).attention;
    CHECK(attention.kind == (i % 2 == 0 ? AttentionKind::sliding : AttentionKind::full));
    CHECK(attention.window == (i % 2 == 0 ? 128 : 0));
    CHECK(attention.sinks);
    CHECK(attention.bias);
  }
  CHECK(layer(a, 0).ffn->experts == 128);
  CHECK(layer(a, 0).ffn->top_k == 4);
}

TEST_CASE("Llama 4 sees chunks of 8192 but everything in each fourth layer; Maverick's odd layers hold the experts") {
  const Architecture maverick = models::find_model("meta-llama/Llama-4-Maverick-17B-128E-Instruct");
  REQUIRE(maverick.layers() == 48);
  for (int64_t i = 0; i < 48; ++i) {
    CHECK(layer(maverick, i).attention.kind == (i % 4 == 3 ? AttentionKind::full : AttentionKind::chunked));
    CHECK(layer(maverick, i).ffn->is_moe() == (i % 2 == 1));
  }
  CHECK(layer(maverick, 0).attention.window == 8192);
  CHECK(layer(maverick, 0).ffn->inter == 16384);  // intermediate_size_mlp
  CHECK(layer(maverick, 1).ffn->inter == 8192);
  CHECK(layer(maverick, 1).ffn->shared_inter == 8192);
  const Architecture scout = models::find_model("Llama-4-Scout");
  for (int64_t i = 0; i < 48; ++i) CHECK(layer(scout, i).ffn->is_moe());
}

TEST_CASE("DeepSeek: latent attention, three dense layers, a shared expert, one prediction module") {
  const Architecture r1 = models::find_model("deepseek-ai/DeepSeek-R1");
  REQUIRE(r1.layers() == 61);
  CHECK(count(r1, AttentionKind::mla) == 61);
  for (int64_t i = 0; i < 61; ++i) CHECK(layer(r1, i).ffn->is_moe() == (i >= 3));
  CHECK(layer(r1, 0).ffn->inter == 18432);
  CHECK(layer(r1, 3).ffn->shared_inter == 2048);
  CHECK(layer(r1, 3).attention.kv_lora_rank + layer(r1, 3).attention.rope_dim == 576);
  CHECK(r1.mtp_layers == 1);
  const Architecture v32 = models::find_model("deepseek-ai/DeepSeek-V3.2");
  CHECK(count(v32, AttentionKind::sparse_mla) == 61);
  CHECK(layer(v32, 0).attention.index_top_k == 2048);
  CHECK(layer(v32, 0).attention.index_heads == 64);
  CHECK(count(models::find_model("zai-org/GLM-5"), AttentionKind::sparse_mla) == 78);
}

TEST_CASE("Qwen3.5: three gated delta nets to one gated full attention") {
  const Architecture a = models::find_model("Qwen/Qwen3.5-397B-A17B");
  REQUIRE(a.layers() == 60);
  for (int64_t i = 0; i < 60; ++i)
    CHECK(layer(a, i).attention.kind == (i % 4 == 3 ? AttentionKind::full : AttentionKind::gated_delta));
  CHECK(layer(a, 3).attention.output_gate);
  CHECK(layer(a, 3).attention.qk_norm);
  CHECK(layer(a, 0).attention.v_heads == 64);
  CHECK(layer(a, 0).ffn->shared_inter == 1024);
  CHECK(layer(a, 0).ffn->shared_gate);
}

TEST_CASE("Nemotron-H: letters of the pattern become mixers with the feed-forward after them") {
  const Architecture a = models::find_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16");
  CHECK(a.layers() == 29);  // 52 letters: 23 M, 6 *, 23 E
  CHECK(count(a, AttentionKind::mamba2) == 23);
  CHECK(count(a, AttentionKind::full) == 6);
  CHECK(std::count_if(a.layer_kinds.begin(), a.layer_kinds.end(),
                      [&](uint8_t k) { return a.kinds[k].ffn.has_value(); }) == 23);
  CHECK_FALSE(layer(a, 0).ffn->gated);
  CHECK(a.kinds.size() == 3);  // M with E, M alone, * with E

  const Json base = with(decoder(), {{"model_type", "nemotron_h"},
                                     {"mamba_num_heads", 8},
                                     {"mamba_head_dim", 64},
                                     {"ssm_state_size", 128},
                                     {"n_groups", 8},
                                     {"conv_kernel", 4}});
  const Architecture letters = read(with(base, {{"hybrid_override_pattern", "M-M*-"}}));
  const Architecture words = read(with(base, {{"layers_block_type", {"mamba", "mlp", "mamba", "attention", "mlp"}}}));
  CHECK(letters.layers() == 3);
  CHECK_FALSE(layer(letters, 1).ffn);
  CHECK(words.kinds == letters.kinds);
  CHECK(words.layer_kinds == letters.layer_kinds);
  CHECK(holds(config_error(with(base, {{"hybrid_override_pattern", "-M"}})), "hybrid_override_pattern"));
  CHECK(holds(config_error(with(base, {{"hybrid_override_pattern", "MX"}})), "'X' is none of"));
  CHECK(holds(config_error(with(base, {{"layers_block_type", {"mamba", "magic"}}})), "layers_block_type"));
}

TEST_CASE("windows: everywhere, by an interval, or switched off") {
  const Json mistral = with(decoder(), {{"model_type", "mistral"}, {"sliding_window", 4096}});
  CHECK(count(read(mistral), AttentionKind::sliding) == 4);
  CHECK(count(read(with(mistral, {{"use_sliding_window", false}})), AttentionKind::sliding) == 0);
  CHECK(count(read(with(mistral, {{"sliding_window", nullptr}})), AttentionKind::sliding) == 0);
  const Architecture gemma = read(with(mistral, {{"sliding_window_pattern", 2}}));
  CHECK(layer(gemma, 0).attention.kind == AttentionKind::sliding);
  CHECK(layer(gemma, 1).attention.kind == AttentionKind::full);
  const Json types = {"sliding_attention", "full_attention", "full_attention", "sliding_attention"};
  CHECK(count(read(with(mistral, {{"layer_types", types}})), AttentionKind::sliding) == 2);
  CHECK(holds(config_error(with(decoder(), {{"layer_types", types}})), "'sliding_window': missing"));
  CHECK(holds(config_error(with(mistral, {{"layer_types", {"full_attention"}}})), "'layer_types'"));
}

TEST_CASE("a language model inside a multimodal config") {
  const Json text = with(without(decoder(), "max_position_embeddings"), {{"max_position_embeddings", 4096}});
  const Architecture a = read({{"model_type", "some_vl"}, {"text_config", text}, {"tie_word_embeddings", true}});
  CHECK(a.model_type == "llama");
  CHECK(a.max_context == 4096);
  CHECK(a.tied_embeddings);
  CHECK(holds(config_error({{"model_type", "some_vl"}, {"text_config", without(text, "hidden_size")}}),
              "'text_config.hidden_size': missing"));
}

TEST_CASE("an unknown model_type is read by its fields with a warning, or refused") {
  const Architecture a = read(with(decoder(), {{"model_type", "brand_new"}}));
  REQUIRE(a.warnings.size() == 1);
  CHECK(holds(a.warnings[0], "brand_new"));
  CHECK(holds(a.warnings[0], "dense GQA"));
  // BERT has the sizes of a decoder but says nothing of KV heads; GPT-2 and T5 name their sizes otherwise.
  CHECK(holds(config_error(with(without(decoder(), "num_key_value_heads"), {{"model_type", "bert"}})),
              "'num_key_value_heads': missing"));
  CHECK(holds(config_error({{"model_type", "gpt2"}, {"n_embd", 768}, {"n_layer", 12}}), "'hidden_size': missing"));
  // Fields that change the layers into something no pattern covers.
  CHECK(holds(config_error(with(decoder(), {{"model_type", "deepseek_v4"}, {"compress_ratios", {0, 4}}})),
              "'compress_ratios'"));
  CHECK(holds(config_error(with(decoder(), {{"block_configs", Json::array()}})), "'block_configs'"));
  CHECK(config_error(with(decoder(), {{"moe_latent_size", nullptr}})).empty());
}

TEST_CASE("the missing field is named") {
  for (const char* field : {"hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads",
                            "intermediate_size", "max_position_embeddings", "model_type"})
    CHECK(holds(config_error(without(decoder(), field)), "'" + std::string(field) + "': missing"));
  CHECK(holds(config_error(with(decoder(), {{"num_experts", 8}})), "'num_experts_per_tok': missing"));
  CHECK(holds(config_error(with(decoder(), {{"kv_lora_rank", 512}})), "'qk_nope_head_dim': missing"));
  CHECK(holds(config_error(with(decoder(), {{"full_attention_interval", 2}})), "'linear_num_key_heads': missing"));
}

TEST_CASE("hostile sizes and types are refused") {
  const std::pair<const char*, Json> hostile[] = {{"hidden_size", 1e18},
                                                  {"hidden_size", int64_t{1} << 40},
                                                  {"hidden_size", 0},
                                                  {"hidden_size", -4096},
                                                  {"hidden_size", "4096"},
                                                  {"hidden_size", Json::array({4096})},
                                                  {"hidden_size", 4096.5},
                                                  {"num_hidden_layers", 1000000000},
                                                  {"num_hidden_layers", -1},
                                                  {"num_attention_heads", 0},
                                                  {"num_attention_heads", 1 << 30},
                                                  {"num_key_value_heads", 3},
                                                  {"num_key_value_heads", 0},
                                                  {"num_experts", -8},
                                                  {"num_experts", 1 << 30},
                                                  {"vocab_size", UINT64_MAX},
                                                  {"max_position_embeddings", 0},
                                                  {"model_type", 7},
                                                  {"head_dim", -1},
                                                  {"layer_types", "full_attention"},
                                                  {"layer_types", Json::array({1, 2, 3, 4})},
                                                  {"quantization_config", true},
                                                  {"sliding_window", -1},
                                                  {"intermediate_size", int64_t{1} << 62},
                                                  {"full_attention_interval", -4},
                                                  {"num_nextn_predict_layers", 1 << 20},
                                                  {"text_config", 5}};
  for (const auto& [field, value] : hostile) {
    CAPTURE(field);
    CAPTURE(value.dump());
    const std::string error = config_error(with(decoder(), {{field, value}}));
    CHECK(holds(error, "test.json"));
    CHECK_FALSE(holds(error, "\n"));
  }
  CHECK(
      holds(config_error(with(decoder(), {{"num_experts", 4}, {"num_experts_per_tok", 5}})), "'num_experts_per_tok'"));
  CHECK_THROWS_AS(models::parse_config("", "", "x"), core::Error);
  CHECK_THROWS_AS(models::parse_config("[]", "", "x"), core::Error);
  CHECK_THROWS_AS(models::parse_config("{\"model_type\": \"llama\"", "", "x"), core::Error);
  CHECK_THROWS_AS(models::parse_config(std::string(100000, '['), "", "x"), core::Error);
  CHECK_THROWS_AS(models::parse_config("{\"a\": 1, \"a\": 2}", "", "x"), core::Error);
}

TEST_CASE("Infinity and NaN, which Python writes, do not stop the reading") {
  std::string text = decoder().dump();
  text.insert(1, "\"time_step_limit\": [0.0, Infinity, -Infinity, NaN], \"note\": \"Infinity \\\" NaN\", ");
  CHECK(models::parse_config(text, "", "x").layers() == 4);
}

TEST_CASE("quantization_config as checkpoints state it") {
  const auto formats = [](const Json& q) { return read(with(decoder(), {{"quantization_config", q}})).precision; };
  const Json fp8 = {{"quant_method", "fp8"}}, block = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  CHECK(formats(fp8).gemm == Dtype::fp8);
  CHECK(formats(block).gemm == Dtype::fp8_block);
  // Norms are named after attention, and nobody quantizes them.
  CHECK(formats(with(block, {{"modules_to_not_convert", {"model.layers.0.post_attention_layernorm", "lm_head"}}}))
            .attention_gemm == Dtype::fp8_block);
  CHECK(formats(with(fp8, {{"modules_to_not_convert", {"model.layers.0.self_attn.q_proj"}}})).attention_gemm ==
        Dtype::bf16);
  CHECK(formats({{"quant_method", "mxfp4"}}).moe == Dtype::mxfp4);
  CHECK(formats({{"quant_method", "mxfp4"}}).gemm == Dtype::bf16);
  CHECK(formats({{"quant_method", "awq"}, {"bits", 4}}).gemm == Dtype::int4);
  CHECK(formats({{"quant_method", "gptq"}, {"bits", 8}}).gemm == Dtype::int8);
  const Json quark = {
      {"quant_method", "quark"}, {"global_quant_config", {{"weight", {{"dtype", "fp4"}}}}}, {"exclude", {"lm_head"}}};
  CHECK(formats(quark).gemm == Dtype::mxfp4);
  // Kimi-K2.5: int4 experts, all else left alone.
  const Json groups = {{"group_0", {{"weights", {{"num_bits", 4}, {"type", "int"}}}}}};
  const Json kimi = {{"quant_method", "compressed-tensors"},
                     {"config_groups", groups},
                     {"ignore", {"re:.*self_attn.*", "re:.*shared_experts.*"}}};
  CHECK(formats(kimi).moe == Dtype::int4);
  CHECK(formats(kimi).gemm == Dtype::bf16);
  CHECK(formats(kimi).attention_gemm == Dtype::bf16);
  CHECK(formats(kimi).kv == Dtype::bf16);
  CHECK(holds(config_error(with(decoder(), {{"quantization_config", {{"quant_method", "magic"}}}})),
              "'quantization_config.quant_method': 'magic'"));
  CHECK(holds(config_error(with(decoder(), {{"quantization_config", Json::object()}})),
              "'quantization_config.quant_method': missing"));
}

TEST_CASE("hf_quant_config.json lies beside config.json and wins") {
  const Json nvfp4 = {{"quantization",
                       {{"quant_algo", "NVFP4"},
                        {"kv_cache_quant_algo", "FP8"},
                        {"exclude_modules",
                         {"lm_head", "model.layers.0.self_attn.q_a_proj", "model.layers.0.mlp.shared_expert_gate"}}}}};
  const models::Precision p =
      read(with(decoder(), {{"quantization_config", {{"quant_method", "fp8"}}}}), nvfp4).precision;
  CHECK(p.gemm == Dtype::nvfp4);
  CHECK(p.attention_gemm == Dtype::bf16);
  CHECK(p.kv == Dtype::fp8);
  CHECK_THROWS_AS(read(decoder(), {{"quantization", {{"quant_algo", "FP3"}}}}), core::Error);
  CHECK_THROWS_AS(read(decoder(), {{"no", "quantization"}}), core::Error);

  const auto folder = std::filesystem::temp_directory_path() / "drydock_config_test" / "My-Model";
  std::filesystem::create_directories(folder);
  core::write_file(folder / "config.json", decoder().dump());
  core::write_file(folder / "hf_quant_config.json", nvfp4.dump());
  const Architecture by_folder = models::find_model(folder.string());
  const Architecture by_file = models::find_model((folder / "config.json").string());
  std::filesystem::remove_all(folder.parent_path());
  CHECK(by_folder.name == "My-Model");
  CHECK(by_folder.precision.gemm == Dtype::nvfp4);
  CHECK(by_file.name == "My-Model");
}
