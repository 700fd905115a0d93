#include <doctest/doctest.h>

#include "models/catalogue.h"
#include "models/lowering.h"

using namespace drydock::models;
namespace models = drydock::models;

namespace {

std::string reason(const char* model, const Parallelism& p, const char* precision = "auto") {
  const Architecture a = find_model(model);
  return why_illegal(a, choose_precision(a, precision), p).value_or("legal");
}

}  // namespace

TEST_CASE("legal combinations pass") {
  CHECK(reason("Qwen/Qwen3-32B", {8, 2, 1, 1, 1}) == "legal");
  CHECK(reason("meta-llama/Llama-3.1-70B", {16, 1, 1, 1, 1}) == "legal");  // KV heads replicated
  CHECK(reason("deepseek-ai/DeepSeek-R1", {1, 1, 64, 1, 64}) == "legal");
  CHECK(reason("deepseek-ai/DeepSeek-R1", {8, 1, 1, 2, 4}) == "legal");
  CHECK(reason("Qwen3.5-397B-A17B", {16, 1, 1, 16, 1}) == "legal");  // 16 key heads of the delta net, 2 KV heads
}

TEST_CASE("illegal ones say why in one line") {
  CHECK(reason("Qwen/Qwen3-32B", {3, 1, 1, 1, 1}) == "64 heads do not divide over tp 3");
  CHECK(reason("Qwen/Qwen3-32B", {1, 65, 1, 1, 1}) == "64 layers are fewer than pp 65");
  CHECK(reason("Qwen/Qwen3-32B", {0, 1, 1, 1, 1}) == "every parallel size is at least 1");
  CHECK(reason("Qwen/Qwen3-32B", {1, 1, 2, 1, 1}) ==
        "attention_dp is for MoE models; a dense model takes more replicas");
  CHECK(reason("Qwen/Qwen3-32B", {2, 1, 1, 1, 2}) == "the model has no experts: moe_tp and ep must be 1");
  CHECK(reason("deepseek-ai/DeepSeek-R1", {8, 1, 1, 1, 1}) == "moe_tp 1 x ep 1 must be tp 8 x attention_dp 1");
  CHECK(reason("deepseek-ai/DeepSeek-R1", {1, 1, 48, 1, 48}) == "256 experts do not divide over ep 48");
  // Blocks of 128 can't be cut: 18432 / 32 = 576 and 1536 / 16 = 96.
  CHECK(reason("Qwen/Qwen3-235B-A22B-FP8", {16, 1, 1, 16, 1}) ==
        "expert width of 1536 does not divide over 16 in blocks of 128");
  CHECK(reason("deepseek-ai/DeepSeek-R1", {32, 1, 1, 32, 1}) ==
        "FFN width of 18432 does not divide over 32 in blocks of 128");
  CHECK(reason("deepseek-ai/DeepSeek-R1", {32, 1, 1, 32, 1}, "bf16") == "legal");
  // 65536 x 65536 does not wrap around to 0.
  CHECK(reason("deepseek-ai/DeepSeek-R1", {1, 1, 1, 65536, 65536}) ==
        "moe_tp 65536 x ep 65536 must be tp 1 x attention_dp 1");
}

TEST_CASE("what a backend has no way to run is said in one line") {
  using models::Backend;
  CHECK(models::why_not_on(Backend::trtllm, {2, 1, 8, 1, 16}, 8).value_or("") ==
        "attention_dp 8 with tp 2: with attention DP TensorRT-LLM keeps attention whole on every GPU, so tp must be 1");
  CHECK(!models::why_not_on(Backend::trtllm, {1, 1, 16, 2, 8}, 8));
  CHECK(models::why_not_on(Backend::vllm, {8, 1, 1, 4, 2}, 8).value_or("") ==
        "ep 2 with moe_tp 4: vLLM spreads experts over all of tp x attention_dp, or cuts each by them");
  CHECK(!models::why_not_on(Backend::vllm, {2, 1, 4, 8, 1}, 8));
  CHECK(!models::why_not_on(Backend::vllm, {2, 1, 4, 1, 8}, 8));
  CHECK(!models::why_not_on(Backend::sglang, {2, 1, 8, 4, 4}, 8));
  CHECK(models::why_not_on(Backend::sglang, {4, 3, 1, 1, 1}, 8).value_or("") ==
        "pp 3 over 2 nodes: SGLang puts as many stages on every node, or every stage on as many nodes");
  CHECK(!models::why_not_on(Backend::sglang, {8, 3, 1, 1, 1}, 8));
  CHECK(!models::why_not_on(Backend::sglang, {4, 6, 1, 1, 1}, 8));
  CHECK(!models::why_not_on(Backend::sglang, {8, 2, 2, 1, 16}, 8));
  CHECK(!models::why_not_on(Backend::sglang, {1, 3, 1, 1, 1}, 8));
  // Two ranks of 3 GPUs a node of 8: two nodes hold four ranks, not the five whose GPUs would fit.
  CHECK(models::why_not_on(Backend::vllm, {1, 3, 5, 5, 1}, 8).value_or("") ==
        "2 nodes of 8 GPUs hold 4 attention-DP ranks of 3 GPUs, not 5, as none spans two");
  CHECK(models::why_not_on(Backend::vllm, {1, 16, 2, 2, 1}, 8).value_or("") ==
        "an attention-DP rank of 16 GPUs is wider than a node of 8");
  CHECK(!models::why_not_on(Backend::vllm, {1, 16, 1, 1, 1}, 8));
  CHECK(!models::why_not_on(Backend::drydock, {8, 1, 1, 8, 1}, 8));
  CHECK(models::why_not_on(Backend::drydock, {8, 1, 1, 1, 8}, 8).value_or("") ==
        "the bundled runtime's engines compute with tp alone: want pp, attention_dp and ep 1");
  CHECK(models::why_not_on(Backend::drydock, {8, 1, 1, 8, 1}, 4).value_or("") ==
        "the bundled runtime keeps a worker's 8 GPUs in one machine, which has 4");
}
