// Measuring on a real GPU: that times are possible ones, and the memory what was planned. Figures are for sanity only.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/hardware.h"
#include "kernels/element.h"
#include "profiler/cuda/device.h"
#include "profiler/cuda/random_fill.h"

namespace drydock::profiler::cuda {
namespace {

CudaDevice& device() {
  static CudaDevice one(0);
  return one;
}

const core::Hardware& hardware() {
  static const models::System system = device().system();
  return system.hardware;
}

core::Op parse(const char* key) { return core::parse_op_key(key); }

struct Taken {
  double us = 0;
  std::string kernel;
};

// The median of a few samples, each of at least a millisecond of launches.
Taken take(const core::Op& op) {
  constexpr int kSamples = 9;
  const auto experiment = device().experiment(op);
  std::vector<double> us;
  for (int i = 0; i < kSamples; ++i) us.push_back(experiment->sample().us);
  std::sort(us.begin(), us.end());
  return {us[kSamples / 2], experiment->kernel()};
}

int64_t l2_bytes() {
  int bytes = 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0);
  return bytes;
}

bool is_possible(const char* key) {
  const auto reason = device().why_not(parse(key));
  if (reason) MESSAGE(key << ": " << *reason);
  return !reason;
}

TEST_CASE("the device tells who it is") {
  const Identity identity = device().identity();
  CHECK_FALSE(identity.gpu.empty());
  CHECK_FALSE(identity.driver.empty());
  CHECK(identity.clocks.find(" MHz, memory ") != std::string::npos);
  CHECK(identity.units > 0);
  CHECK(identity.memory_bytes > 1e9);
  for (const std::string& warning : identity.warnings) MESSAGE(warning);
}

TEST_CASE("random operands are spread over (-1, 1)") {
  constexpr size_t kCount = 1 << 20;
  std::vector<kernels::Bf16> numbers(kCount);
  void* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, kCount * 2) == cudaSuccess);
  fill_random(memory, core::Dtype::bf16, kCount * 2, 7, nullptr);
  REQUIRE(cudaMemcpy(numbers.data(), memory, kCount * 2, cudaMemcpyDeviceToHost) == cudaSuccess);
  cudaFree(memory);
  double sum = 0, squares = 0;
  for (const kernels::Bf16 x : numbers) {
    const double value = kernels::to_float(x);
    REQUIRE(std::abs(value) <= 1);
    sum += value;
    squares += value * value;
  }
  // A uniform distribution's mean 0 and variance 1/3, to six standard errors of a million.
  CHECK(std::abs(sum / kCount) < 6 * std::sqrt(1.0 / 3 / kCount));
  CHECK(squares / kCount == doctest::Approx(1.0 / 3).epsilon(0.01));
}

TEST_CASE("large products run near the roofline, and not beyond") {
  const core::Op op = parse("gemm/bf16/m=8192,n=8192,k=8192");
  const Taken taken = take(op);
  const double floor = core::roofline_us(op, hardware());
  MESSAGE(taken.kernel << ": " << taken.us << " us, roofline " << floor);
  CHECK(taken.us >= floor);
  CHECK(taken.us <= 2 * floor);  // half of the datasheet's rate is what any tuned library reaches
  CHECK(taken.kernel.starts_with("cublasLt "));
}

TEST_CASE("decode attention streams its cache, and from memory") {
  const core::Op op = parse("decode_attention/bf16/batch=32,context=8192,heads=32,kv_heads=8,head_dim=128,window=0");
  const Taken taken = take(op);
  const double floor = core::roofline_us(op, hardware());
  MESSAGE(taken.us << " us, roofline " << floor);
  CHECK(taken.us >= floor);
  CHECK(taken.us <= 2 * floor);
}

TEST_CASE("weights of a small product come from memory, not from L2") {
  // 32 MiB fit into the L2 of recent GPUs, whose bandwidth is more than twice the memory's.
  const core::Op op = parse("gemm/bf16/m=1,n=4096,k=4096");
  const Taken taken = take(op);
  MESSAGE(taken.kernel << ": " << taken.us << " us, roofline " << core::roofline_us(op, hardware()));
  CHECK(taken.us >= core::roofline_us(op, hardware()));
}

TEST_CASE("every kind of op that has a kernel can be measured in the memory planned") {
  for (const char* key :
       {"gemm/bf16/m=16,n=4096,k=4096",
        "gemm/fp8/m=256,n=4096,k=4096",
        "gemm/fp8_block/m=256,n=4096,k=4096",
        "gemm/fp8_block/m=8,n=4096,k=4096",
        "batched_gemm/bf16/m=32,n=512,k=128,heads=16",
        "moe/bf16/tokens=64,hidden=2048,inter=768,experts=64,top_k=8,ep=1",
        "moe/bf16/tokens=512,hidden=2048,inter=768,experts=64,top_k=8,ep=8",
        "moe/fp8/tokens=64,hidden=2048,inter=768,experts=64,top_k=8,ep=1",
        "moe/fp8_block/tokens=64,hidden=2048,inter=768,experts=64,top_k=8,ep=1",
        "prefill_attention/bf16/batch=2,new_tokens=1024,cached_tokens=512,heads=32,kv_heads=8,head_dim=128,window=0",
        "prefill_attention/bf16+fp8/batch=2,new_tokens=512,cached_tokens=0,heads=8,kv_heads=8,head_dim=64,window=128",
        "decode_attention/bf16+fp8/batch=8,context=4096,heads=32,kv_heads=8,head_dim=128,window=0",
        "decode_attention/bf16/batch=1,context=131072,heads=8,kv_heads=1,head_dim=128,window=0",
        "mla_decode/bf16/batch=8,context=4096,heads=128,latent=512,rope_dim=64",
        "mla_prefill/bf16/batch=2,new_tokens=1024,cached_tokens=512,heads=16,qk_dim=192,v_dim=128",
        "sparse_mla/bf16/tokens=64,selected=2048,heads=128,latent=512,rope_dim=64",
        "index_score/fp8/batch=4,new_tokens=64,context=8192,heads=64,head_dim=128",
        "gated_delta/bf16/batch=64,new_tokens=1,k_heads=16,v_heads=32,k_dim=128,v_dim=128",
        "gated_delta/bf16/batch=1,new_tokens=1024,k_heads=16,v_heads=32,k_dim=128,v_dim=128",
        "mamba2/bf16/batch=64,new_tokens=1,heads=64,head_dim=64,state=128,groups=8",
        "elementwise/bf16/tokens=64,read_bytes=16384,written_bytes=16384",
        "elementwise/bf16/tokens=64,read_bytes=16384,written_bytes=8192",
        "elementwise/bf16/tokens=64,read_bytes=1024000,written_bytes=4",
        "elementwise/bf16/tokens=64,read_bytes=512,written_bytes=64",
        "all_reduce/bf16/bytes=1048576,gpus=2",
        "all_gather/bf16/bytes=1048576,gpus=2",
        "reduce_scatter/bf16/bytes=1048576,gpus=2",
        "all_to_all/bf16/bytes=1048576,gpus=2",
        "send_recv/bf16/bytes=1048576,span=2",
        "moe_dispatch/bf16/tokens=64,hidden=2048,top_k=8,experts=64,ep=2",
        "moe_combine/bf16/tokens=64,hidden=2048,top_k=8,experts=64,ep=2"}) {
    if (!is_possible(key)) continue;
    INFO(key);
    size_t before = 0, after = 0, all = 0;
    REQUIRE(cudaMemGetInfo(&before, &all) == cudaSuccess);
    const auto experiment = device().experiment(parse(key));
    REQUIRE(cudaMemGetInfo(&after, &all) == cudaSuccess);
    const Reading reading = experiment->sample();
    MESSAGE(key << ": " << experiment->kernel().substr(0, 40) << " " << reading.us << " us");
    CHECK(std::isfinite(reading.us));
    CHECK(reading.us > 0.5);  // no kernel is shorter
    // Drivers round an allocation up to 2 MiB; an experiment has at most 32, and cuBLAS loads its code once.
    constexpr double kRounding = 32.0 * (2 << 20) + 512e6;
    const Gpu gpu{hardware().sm_version, hardware().sms, l2_bytes(), 2};
    CHECK(static_cast<double>(before) - static_cast<double>(after) <= bytes_needed(parse(key), gpu) + kRounding);
  }
}

TEST_CASE("what does not fit is refused before anything is allocated") {
  const auto reason = device().why_not(
      parse("decode_attention/bf16/batch=8192,context=131072,heads=32,kv_heads=8,head_dim=128,window=0"));
  REQUIRE(reason);
  CHECK(reason->starts_with("not enough memory: needs "));
}

TEST_CASE("a naming pass finds the kernels, and leaves timing as it was") {
  const core::Op op = parse("moe/bf16/tokens=256,hidden=2048,inter=768,experts=64,top_k=8,ep=1");
  const double before = take(op).us;
  const std::vector<KernelPart> parts = device().parts(op);
  double sum = 0;
  for (const KernelPart& part : parts) {
    MESSAGE(part.name << ": " << part.share);
    CHECK(part.share > 0);
    sum += part.share;
  }
  CHECK(parts.size() >= 5);  // permute is several; both grouped products have one name
  CHECK(sum == doctest::Approx(1));
  CHECK(take(op).us == doctest::Approx(before).epsilon(0.1));
}

}  // namespace
}  // namespace drydock::profiler::cuda
