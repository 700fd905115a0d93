#include <doctest/doctest.h>

#include "models/catalogue.h"
#include "models/lowering.h"

using namespace drydock;
using namespace drydock::models;

namespace {

double kv_per_token(const char* model, const Parallelism& p = {}) {
  const Architecture a = find_model(model);
  return stage_memory(a, a.precision, p, 0, 8192).kv_per_token;
}

}  // namespace

TEST_CASE("KV bytes of a token, by hand") {
  CHECK(kv_per_token("meta-llama/Llama-3.1-70B") == 80 * 2 * 8 * 128 * 2);  // layers, k and v, KV heads, head dim, bf16
  CHECK(kv_per_token("meta-llama/Llama-3.1-70B", {8, 1, 1, 1, 1}) == 80 * 2 * 1 * 128 * 2);
  CHECK(kv_per_token("meta-llama/Llama-3.1-70B", {16, 1, 1, 1, 1}) ==
        80 * 2 * 1 * 128 * 2);  // 8 KV heads on 16 ranks: replicated
  CHECK(kv_per_token("deepseek-ai/DeepSeek-V3") == 61 * (512 + 64) * 2);
  CHECK(kv_per_token("deepseek-ai/DeepSeek-V3", {8, 1, 1, 8, 1}) ==
        61 * (512 + 64) * 2);  // one latent for all heads: on every rank
  CHECK(kv_per_token("deepseek-ai/DeepSeek-V3.2") ==
        61 * ((512 + 64) * 2 + 128 + 4));                            // and the indexer's fp8 key with its scale
  CHECK(kv_per_token("gpt-oss-120b") == 18 * 2 * 8 * 64 * 2);        // full layers; windowed ones don't grow
  CHECK(kv_per_token("Qwen3.5-397B-A17B") == 15 * 2 * 2 * 256 * 2);  // every fourth of 60 layers
}

TEST_CASE("a sequence's KV stops growing in windowed layers and has a state in recurrent ones") {
  const Architecture oss = find_model("gpt-oss-120b");
  CHECK(sequence_kv_bytes(oss, oss.precision, {}, 0, 100) == 36 * 2 * 8 * 64 * 2 * 100);
  CHECK(sequence_kv_bytes(oss, oss.precision, {}, 0, 1000) == 18 * 2 * 8 * 64 * 2 * (1000 + 128));
  const Architecture q = find_model("Qwen3.5-397B-A17B");
  // 45 layers with an fp32 state of 64 heads x 128 x 128 and a convolution over 3 earlier inputs of q, k and v in bf16.
  const double state = 45.0 * (64 * 128 * 128 * 4 + 3 * 2 * (64 * 128 + 2 * 16 * 128));
  CHECK(sequence_kv_bytes(q, q.precision, {}, 0, 0) == doctest::Approx(state));
}

TEST_CASE("weights on one GPU are the parameters in their formats, for every model of the catalogue") {
  for (const std::string& name : model_names()) {
    CAPTURE(name);
    Architecture a = find_model(name);
    a.precision = choose_precision(a, "bf16");
    CHECK(stage_memory(a, a.precision, {}, 0, 1024).weights ==
          doctest::Approx(2 * count_parameters(a).total).epsilon(0.005));
  }
}

TEST_CASE("published checkpoint sizes") {
  const auto weights = [](const char* name) {
    const Architecture a = find_model(name);
    return stage_memory(a, a.precision, {}, 0, 1024).weights / 1e9;
  };
  CHECK(weights("gpt-oss-120b") == doctest::Approx(65.2).epsilon(0.01));              // 65.2 GB of safetensors
  CHECK(weights("meta-llama/Llama-3.1-8B") == doctest::Approx(16.06).epsilon(0.01));  // 16.1 GB
  CHECK(weights("deepseek-ai/DeepSeek-R1") ==
        doctest::Approx(674).epsilon(0.01));  // 688.6 GB with its 14 GB MTP module
}

TEST_CASE("tensor and expert parallel ranks together hold the weights once, and replicated parts on each") {
  const Architecture a = find_model("Qwen/Qwen3-235B-A22B");
  const double one = stage_memory(a, a.precision, {}, 0, 1024).weights;
  for (const Parallelism p : {Parallelism{4, 1, 1, 4, 1}, Parallelism{4, 1, 1, 1, 4}, Parallelism{1, 1, 4, 1, 4}}) {
    const double all = p.gpus() * stage_memory(a, a.precision, p, 0, 1024).weights;
    CHECK(all >= one);
    // Attention DP repeats attention and embeddings (8 of 235 billion), TP only routers and norms.
    CHECK(all <= one * (p.attention_dp > 1 ? 1.13 : 1.01));
  }
  const double stages = stage_memory(a, a.precision, {1, 2, 1, 1, 1}, 0, 1024).weights +
                        stage_memory(a, a.precision, {1, 2, 1, 1, 1}, 1, 1024).weights;
  CHECK(stages == doctest::Approx(one).epsilon(1e-6));
}
