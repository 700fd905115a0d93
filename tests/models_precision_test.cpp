// What "fp8" and "fp4" mean for each family.
#include <doctest/doctest.h>

#include <string>

#include "core/error.h"
#include "models/catalogue.h"

using namespace drydock;
using core::Dtype;
using models::Precision;

namespace {

Precision chosen(std::string_view model, std::string_view precision, std::string_view kv = "auto") {
  return models::choose_precision(models::find_model(model), precision, kv);
}

std::string precision_error(std::string_view precision, std::string_view kv) {
  try {
    chosen("Qwen/Qwen3-32B", precision, kv);
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

// gemm, attention_gemm, moe, kv; attention arithmetic is bf16 unless chosen otherwise.
Precision formats(Dtype gemm, Dtype attention_gemm, Dtype moe, Dtype kv) {
  return {gemm, attention_gemm, moe, kv, Dtype::bf16};
}

}  // namespace

TEST_CASE("auto and nothing mean the published formats") {
  const Dtype bf16 = Dtype::bf16, block = Dtype::fp8_block, fp8 = Dtype::fp8, nvfp4 = Dtype::nvfp4;
  CHECK(chosen("Qwen/Qwen3-32B", "") == formats(bf16, bf16, bf16, bf16));
  CHECK(chosen("deepseek-ai/DeepSeek-R1", "auto") == formats(block, block, block, bf16));
  CHECK(chosen("openai/gpt-oss-120b", "auto") == formats(bf16, bf16, Dtype::mxfp4, bf16));
  CHECK(chosen("moonshotai/Kimi-K2.5", "auto") == formats(bf16, bf16, Dtype::int4, bf16));
  CHECK(chosen("nvidia/DeepSeek-R1-NVFP4", "") == formats(nvfp4, bf16, nvfp4, fp8));
  CHECK(chosen("nvidia/Llama-3.1-70B-Instruct-FP8", "") == formats(fp8, fp8, fp8, fp8));
  CHECK(chosen("neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8", "") == formats(fp8, fp8, fp8, bf16));
}

TEST_CASE("fp8 is per tensor for models published in bf16, by block for latent attention and models trained in fp8") {
  const Dtype bf16 = Dtype::bf16, block = Dtype::fp8_block, fp8 = Dtype::fp8;
  CHECK(chosen("Qwen/Qwen3-32B", "fp8") == formats(fp8, fp8, fp8, bf16));
  CHECK(chosen("meta-llama/Llama-3.1-70B", "FP8") == formats(fp8, fp8, fp8, bf16));
  CHECK(chosen("deepseek-ai/DeepSeek-R1", "fp8") == formats(block, block, block, bf16));
  CHECK(chosen("MiniMaxAI/MiniMax-M2.5", "fp8") == formats(block, block, block, bf16));
  CHECK(chosen("zai-org/GLM-5", "fp8") == formats(block, block, block, bf16));
  CHECK(chosen("Qwen/Qwen3-235B-A22B-FP8", "fp8") == formats(block, block, block, bf16));
  CHECK(chosen("Qwen/Qwen3-235B-A22B", "fp8_block") == formats(block, block, block, bf16));
}

TEST_CASE("fp4 quantizes what the NVFP4 checkpoints quantize, with an fp8 KV cache") {
  const Dtype bf16 = Dtype::bf16, fp8 = Dtype::fp8, nvfp4 = Dtype::nvfp4;
  CHECK(chosen("meta-llama/Llama-3.1-70B", "fp4") == formats(nvfp4, nvfp4, nvfp4, fp8));
  CHECK(chosen("Qwen/Qwen3-235B-A22B", "nvfp4") == formats(nvfp4, nvfp4, nvfp4, fp8));
  CHECK(chosen("deepseek-ai/DeepSeek-R1", "fp4") == formats(nvfp4, bf16, nvfp4, fp8));
  CHECK(chosen("MiniMaxAI/MiniMax-M2.5", "fp4") == formats(nvfp4, bf16, nvfp4, fp8));
  CHECK(chosen("Qwen/Qwen3.5-397B-A17B", "fp4") == formats(bf16, bf16, nvfp4, fp8));
}

TEST_CASE("gpt-oss keeps its MXFP4 experts unless bf16 is asked for") {
  const Dtype bf16 = Dtype::bf16;
  for (const std::string_view precision : {"fp4", "mxfp4", "fp8", "auto"})
    CHECK(chosen("openai/gpt-oss-120b", precision) == formats(bf16, bf16, Dtype::mxfp4, bf16));
  CHECK(chosen("openai/gpt-oss-120b", "bf16") == formats(bf16, bf16, bf16, bf16));
}

TEST_CASE("int4 is for experts alone where attention is latent") {
  CHECK(chosen("deepseek-ai/DeepSeek-V3", "int4") == formats(Dtype::bf16, Dtype::bf16, Dtype::int4, Dtype::bf16));
  CHECK(chosen("Qwen/Qwen3-32B", "int4") == formats(Dtype::int4, Dtype::int4, Dtype::int4, Dtype::bf16));
}

TEST_CASE("the KV format can be chosen apart") {
  CHECK(chosen("Qwen/Qwen3-32B", "fp8", "fp8").kv == Dtype::fp8);
  CHECK(chosen("nvidia/DeepSeek-R1-NVFP4", "auto", "bf16").kv == Dtype::bf16);
  CHECK(chosen("nvidia/Llama-3.1-70B-Instruct-FP8", "fp8").kv == Dtype::fp8);  // as the checkpoint says
  CHECK(chosen("nvidia/Llama-3.1-70B-Instruct-FP8", "bf16").kv == Dtype::bf16);
}

TEST_CASE("an unknown precision is refused with those that are right") {
  CHECK(precision_error("fp7", "auto").find("fp8_block") != std::string::npos);
  CHECK(precision_error("fp32", "auto").find("'fp32'") != std::string::npos);
  CHECK(precision_error("fp8", "nvfp4").find("auto, bf16, fp8") != std::string::npos);
  CHECK(precision_error(std::string(10000, 'z'), "auto").size() < 300);
}
