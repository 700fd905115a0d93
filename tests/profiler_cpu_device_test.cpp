#include <doctest/doctest.h>

#include <algorithm>

#include "core/json.h"
#include "kernels/cpu.h"
#include "models/system.h"
#include "profiler/cpu_device.h"
#include "profiler/cpu_launch.h"
#include "profiler/host_memory.h"
#include "profiler/measure.h"
#include "profiler/system_json.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::profiler;

namespace {

StopRule cpu_rule() {
  StopRule rule;
  rule.most_samples = 12;
  rule.most_seconds = 0.5;  // on a busy machine; 12 samples take 12 ms
  return rule;
}

}  // namespace

TEST_CASE("every kind of op that the host has runs and takes time") {
  CpuDevice device(1);
  for (const char* key :
       {"gemm/bf16/m=4,n=96,k=64",
        "gemm/fp8/m=4,n=96,k=64",
        "gemm/fp8_block/m=20,n=256,k=192",
        "gemm/fp32/m=1,n=33,k=64",
        "batched_gemm/bf16/m=3,n=32,k=16,heads=4",
        "moe/bf16/tokens=6,hidden=32,inter=16,experts=8,top_k=2,ep=1",
        "moe/bf16/tokens=6,hidden=32,inter=16,experts=8,top_k=2,ep=4",
        "prefill_attention/bf16/batch=2,new_tokens=5,cached_tokens=7,heads=4,kv_heads=2,head_dim=32,window=0",
        "prefill_attention/bf16+fp8/batch=1,new_tokens=40,cached_tokens=0,heads=4,kv_heads=1,head_dim=64,window=16",
        "decode_attention/bf16/batch=3,context=70,heads=4,kv_heads=2,head_dim=32,window=0",
        "decode_attention/bf16+fp8/batch=1,context=1,heads=2,kv_heads=2,head_dim=64,window=0",
        "mla_decode/bf16/batch=2,context=40,heads=4,latent=64,rope_dim=16",
        "mla_prefill/bf16/batch=2,new_tokens=5,cached_tokens=7,heads=3,qk_dim=96,v_dim=32",
        "mla_prefill/bf16+fp8/batch=1,new_tokens=3,cached_tokens=0,heads=2,qk_dim=48,v_dim=32",
        "sparse_mla/bf16/tokens=3,selected=20,heads=4,latent=64,rope_dim=16",
        "index_score/fp8/batch=2,new_tokens=2,context=50,heads=4,head_dim=32",
        "gated_delta/bf16/batch=2,new_tokens=3,k_heads=2,v_heads=4,k_dim=32,v_dim=48",
        "mamba2/bf16/batch=2,new_tokens=1,heads=4,head_dim=16,state=32,groups=2",
        "elementwise/bf16/tokens=3,read_bytes=256,written_bytes=256",  // norm
        "elementwise/bf16/tokens=3,read_bytes=256,written_bytes=128",  // SiLU
        "elementwise/bf16/tokens=3,read_bytes=8000,written_bytes=4",   // sampling
        "elementwise/bf16/tokens=3,read_bytes=256,written_bytes=32"})  // routing, top 4 of 64
  {
    const core::Op op = core::parse_op_key(key);
    CAPTURE(key);
    const auto reason = device.why_not(op);
    REQUIRE_MESSAGE(!reason, reason.value_or(""));
    const auto experiment = device.prepare(op);
    const Measured m = measure(*experiment, cpu_rule());
    CHECK(m.summary.median > 0.01);  // [us]
    CHECK(m.summary.median < 1e6);
    const std::string set = kernels::cpu::instruction_set();
    CHECK(m.kernel.ends_with(" " + set));
    if (op.kind == core::OpKind::gemm) CHECK(m.kernel == "gemm " + set);
    CHECK((m.kernel.find('+') != std::string::npos) == (op.kind == core::OpKind::moe));
  }
}

TEST_CASE("what the host has no kernel or no memory for is refused in one line") {
  CpuDevice device(1);
  const auto reason = [&](const char* key) { return device.why_not(core::parse_op_key(key)).value_or(""); };
  CHECK(reason("all_reduce/bf16/bytes=1024,gpus=2").find("one host is one rank") != std::string::npos);
  CHECK(reason("gemm/nvfp4/m=1,n=64,k=64").find("nvfp4") != std::string::npos);
  CHECK(reason("mamba2/bf16/batch=1,new_tokens=1,heads=3,head_dim=64,state=16,groups=2") ==
        "3 heads share 2 keys: not a whole number");
  CHECK(reason("sparse_mla/bf16+fp8/tokens=1,selected=20,heads=4,latent=64,rope_dim=16") ==
        "no CPU kernel for MLA over a cache in fp8");
  CHECK(reason("gemm/bf16/m=1000000,n=1000000,k=1000").find("not enough memory") != std::string::npos);
  CHECK(reason("gemm/bf16/m=1,n=9000000000000000000,k=1").find("absurd") != std::string::npos);
}

TEST_CASE("more work takes longer") {
  CpuDevice device(1);
  const auto us = [&](const char* key) {
    return measure(*device.prepare(core::parse_op_key(key)), cpu_rule()).summary.median;
  };
  // 64 times the arithmetic.
  CHECK(us("gemm/bf16/m=256,n=256,k=256") > 4 * us("gemm/bf16/m=64,n=64,k=64"));
}

TEST_CASE("copies fill eight times the cache, and are random numbers") {
  const int64_t cache = last_level_cache_bytes();
  const Rotation rotation(core::Dtype::bf16, 1 << 20);
  CHECK(rotation.copies() * (1 << 20) > 8 * cache);
  CHECK(rotation.at(0) != rotation.at(1));
  CHECK(rotation.at(rotation.copies()) == rotation.at(0));
  const RandomMemory numbers(core::Dtype::fp32, 4000);
  const auto* x = reinterpret_cast<const float*>(numbers.data());
  double sum = 0, least = 1;
  for (int i = 0; i < 1000; ++i) sum += static_cast<double>(x[i]), least = std::min(least, static_cast<double>(x[i]));
  CHECK(std::abs(sum / 1000) < 0.1);  // deviation of the mean: 0.58 / sqrt(1000)
  CHECK(least < -0.9);
}

TEST_CASE("the host says who it is") {
  CpuDevice device;
  const Identity i = device.identity();
  CHECK(!i.gpu.empty());
  CHECK(i.driver.starts_with("Linux"));
  CHECK(i.clocks.find(" MHz, ") != std::string::npos);
  CHECK(i.units >= 1);
  CHECK(i.memory_bytes > 1e8);
  CHECK(i.version.starts_with("cpu-1 "));
}

TEST_CASE("a machine survives its file") {
  const models::System system = models::read_system(DRYDOCK_SOURCE_DIR "/models/data/systems/h200_sxm.json");
  const tests::Scratch scratch;
  const models::System back = models::read_system(scratch.write("system.json", to_json(system)));
  CHECK(back.hardware.name == system.hardware.name);
  CHECK(back.hardware.flops_per_s == system.hardware.flops_per_s);
  CHECK(back.hardware.memory_bytes_per_s == system.hardware.memory_bytes_per_s);
  CHECK(back.memory_bytes == system.memory_bytes);
  CHECK(back.power_w == system.power_w);
  CHECK(back.source == system.source);
}
