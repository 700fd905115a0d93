#pragma once
// What config.json says of a model that the engines compute: Llama-3, Qwen3 or Qwen3-MoE.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::runtime {

struct ModelConfig {
  std::string origin;                               // in errors
  int64_t hidden = 0, vocabulary = 0, longest = 0;  // longest sequence [tokens]
  int64_t head_rows = 0;                            // of the output head that this rank holds; vocabulary: all
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool qk_norm = false;
  struct Layer {
    int64_t inter = 0;               // of the feed-forward, or of one expert
    int64_t experts = 0, top_k = 0;  // 0: dense
  };
  std::vector<Layer> layers;
  bool renormalize = false;      // the chosen experts' weights sum to 1
  bool tied_embeddings = false;  // the output head is the embedding
  float norm_epsilon = 1e-6F;
  std::vector<float> inverse_frequencies;  // (head_dim / 2), scaled for long contexts where the model says so

  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

// Reads config.json of the folder. Throws core::Error naming the field that is missing or asks for what the engines do
// not compute: other families, biases, sliding windows, quantized weights, other rotary scalings than Llama-3's.
ModelConfig read_model_config(const std::filesystem::path& model_dir);
ModelConfig parse_model_config(std::string_view config_json, std::string_view origin);

}  // namespace drydock::runtime
