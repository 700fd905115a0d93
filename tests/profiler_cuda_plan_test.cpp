#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "profiler/cuda/cupti.h"
#include "profiler/cuda/experts.h"
#include "profiler/cuda/plan.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::make_op;
using core::Op;
using core::OpKind;

constexpr Gpu kH200{90, 132, 50 << 20, 1};
constexpr Gpu kA100{80, 108, 40 << 20, 1};
constexpr double kWorkspaces = 256e6;

Op parse(const char* key) { return core::parse_op_key(key); }

TEST_CASE("a rotation fills twice the L2, and one more") {
  constexpr int64_t kL2 = 50 << 20;
  CHECK(stride_of(1) == 256);
  CHECK(stride_of(256) == 256);
  CHECK(stride_of(257) == 512);
  CHECK(copies_of(1 << 20, kL2) == 101);
  CHECK(copies_of(kL2, kL2) == 3);
  CHECK(copies_of(4 * int64_t{kL2}, kL2) == 1);
  CHECK(copies_of(64, kL2) == 4096);  // the most
  for (const int64_t bytes : {40'000LL, 1'000'000LL, 77'777'777LL, 300'000'000LL})
    CHECK((copies_of(bytes, kL2) == 1 ? 2 : copies_of(bytes, kL2)) * stride_of(bytes) >= 2 * kL2);
}

TEST_CASE("a replay takes a millisecond and each copy equally often") {
  for (const double us : {1.5, 2.0, 13.0, 75.0, 990.0})
    for (const int64_t copies : {1, 3, 7}) {
      const int64_t launches = launches_of(us, copies);
      CHECK(launches % copies == 0);
      CHECK(static_cast<double>(launches) * us >= 1000);
      CHECK(static_cast<double>(launches - copies) * us < 1000);
    }
  CHECK(launches_of(2, 4096) == 4096);
  CHECK(launches_of(5000, 1) == 1);
  CHECK(launches_of(5000, 3) == 3);
  CHECK(launches_of(5000, 50) == 4);    // 20 ms rather than 250
  CHECK(launches_of(500'000, 8) == 2);  // never one set of a rotation only
  CHECK(launches_of(0, 1) == 10'000);   // a time that can't be
}

TEST_CASE("what measuring takes covers the op's own bytes, each copy, and little more") {
  for (const char* key :
       {"gemm/bf16/m=8192,n=8192,k=8192", "gemm/fp8/m=4096,n=8192,k=16384", "gemm/fp8_block/m=4096,n=7168,k=2048",
        "batched_gemm/bf16/m=128,n=512,k=128,heads=128",
        "moe/bf16/tokens=4096,hidden=4096,inter=14336,experts=8,top_k=2,ep=1",
        "moe/fp8_block/tokens=8192,hidden=7168,inter=2048,experts=256,top_k=8,ep=8",
        "prefill_attention/bf16/batch=4,new_tokens=8192,cached_tokens=0,heads=32,kv_heads=8,head_dim=128,window=0",
        "decode_attention/bf16/batch=64,context=16384,heads=32,kv_heads=8,head_dim=128,window=0",
        "decode_attention/bf16+fp8/batch=64,context=16384,heads=32,kv_heads=8,head_dim=128,window=0",
        "mla_decode/bf16/batch=64,context=16384,heads=128,latent=512,rope_dim=64",
        "index_score/fp8/batch=64,new_tokens=1,context=16384,heads=64,head_dim=128",
        "elementwise/bf16/tokens=8192,read_bytes=16384,written_bytes=16384"}) {
    const double need = bytes_needed(parse(key), kH200) - kWorkspaces;
    INFO(key);
    // Results of both products of moe and SiLU's are counted once by the op, and written and read here.
    CHECK(need >= core::bytes(parse(key)) * 0.99);
    CHECK(need <= 2.5 * core::bytes(parse(key)) + 8 * static_cast<double>(kH200.l2_bytes));
  }
}

TEST_CASE("what measuring takes, to the byte") {
  // Weights of 128 MiB stay alone beside an L2 of 50 MiB; activations are m * (k + n).
  CHECK(bytes_needed(parse("gemm/bf16/m=16,n=8192,k=8192"), kH200) ==
        kWorkspaces + 8192.0 * 8192 * 2 + 2 * 16 * 8192 * 2);
  // 2 MiB of weights: 51 copies.
  CHECK(bytes_needed(parse("gemm/bf16/m=16,n=1024,k=1024"), kH200) ==
        kWorkspaces + 51 * 1024.0 * 1024 * 2 + 2 * 16 * 1024 * 2);
  // Blocks of 32 tokens: 33 tokens take 64. 64 KiB a copy of one sequence, 1601 of them, and a table of 2.
  CHECK(bytes_needed(parse("decode_attention/bf16/batch=1,context=33,heads=2,kv_heads=1,head_dim=256,window=0"),
                     kH200) == kWorkspaces + 2 * 2 * 256 * 2 + 1601.0 * 65536 + 8);
  // q and out of 2 tokens and 2 heads, keys and values of 3 tokens with one rotated part, two lists of 2.
  CHECK(bytes_needed(parse("mla_prefill/bf16/batch=1,new_tokens=2,cached_tokens=1,heads=2,qk_dim=192,v_dim=128"),
                     kH200) == kWorkspaces + 2 * 2 * 320 * 2 + 3 * (2 * 256 + 64) * 2 + 16);
  // A cache of 4 x 64 tokens, 356 copies of 8 blocks; 3 tokens of q and out, their lists, rows and counts.
  CHECK(bytes_needed(parse("sparse_mla/bf16/tokens=3,selected=64,heads=16,latent=512,rope_dim=64"), kH200) ==
        kWorkspaces + 3 * 16 * 1088 * 2 + 356.0 * 256 * 576 * 2 + 4 * 8 + 4 * 3 * 66);
  // One state of 64 KiB, 1601 copies; 5 tokens of q, k, v, out and two gates; decays and places.
  CHECK(bytes_needed(parse("gated_delta/bf16/batch=1,new_tokens=5,k_heads=1,v_heads=1,k_dim=128,v_dim=128"), kH200) ==
        kWorkspaces + 5 * (4 * 128 + 2) * 2 + 1601.0 * 65536 + 8 * 3);
  CHECK(bytes_needed(parse("all_reduce/bf16/bytes=1048576,gpus=2"), kH200) == kWorkspaces + 5 * 1048576);
  CHECK(bytes_needed(parse("all_gather/bf16/bytes=1048576,gpus=2"), kH200) == kWorkspaces + 2 * 1048576);
}

TEST_CASE("an op too large for any GPU needs more than one has") {
  constexpr double kMemory = 150e9;
  CHECK(bytes_needed(parse("gemm/bf16/m=8192,n=262144,k=262144"), kH200) > 130e9);
  CHECK(bytes_needed(parse("decode_attention/bf16/batch=4096,context=131072,heads=32,kv_heads=8,head_dim=128,window=0"),
                     kH200) > kMemory);
  CHECK(bytes_needed(parse("moe/bf16/tokens=65536,hidden=7168,inter=2048,experts=256,top_k=8,ep=1"), kH200) < kMemory);
}

TEST_CASE("what has no kernel is told in a line") {
  const auto reason = [](const char* key, const Gpu& gpu) { return why_no_kernel(parse(key), gpu).value_or(""); };
  CHECK(reason("gemm/bf16/m=1,n=4096,k=4096", kA100).empty());
  CHECK(reason("gemm/fp8/m=1,n=4096,k=4096", kA100) == "fp8 products need sm_89 or later, this is sm_80");
  CHECK(reason("gemm/fp8/m=1,n=4096,k=4096", kH200).empty());
  CHECK(reason("gemm/fp8/m=1,n=4096,k=4100", kH200) == "an extent of 4100 in fp8: rows must be multiples of 16 bytes");
  CHECK(reason("gemm/nvfp4/m=1,n=4096,k=4096", kH200) ==
        "no CUDA kernel for weights in nvfp4; bf16, fp8 and fp8_block have one");
  CHECK(reason("moe/bf16/tokens=8,hidden=4096,inter=1024,experts=2048,top_k=8,ep=1", kH200) ==
        "2048 experts; the kernels take 1024 at most");
  CHECK(reason("moe/bf16/tokens=8,hidden=4096,inter=1024,experts=10,top_k=2,ep=4", kH200) ==
        "10 experts on 4 ranks: not a whole number");
  CHECK(reason("decode_attention/bf16/batch=1,context=9,heads=8,kv_heads=8,head_dim=96,window=0", kH200) ==
        "no CUDA kernel for head_dim 96; 64, 128 and 256 have one");
  CHECK(reason("decode_attention/bf16+int8/batch=1,context=9,heads=8,kv_heads=8,head_dim=64,window=0", kH200) ==
        "no CUDA kernel for a KV cache in int8; bf16 and fp8 have one");
  CHECK(reason("prefill_attention/bf16/batch=1,new_tokens=9,cached_tokens=0,heads=9,kv_heads=2,head_dim=64,window=0",
               kH200) == "9 heads on 2 KV heads: not a whole number");
  CHECK(reason("mla_decode/bf16+fp8/batch=1,context=9,heads=16,latent=512,rope_dim=64", kH200) ==
        "no CUDA kernel for MLA over a cache in fp8; bf16 has one");
  CHECK(
      reason("mla_prefill/bf16+fp8/batch=1,new_tokens=9,cached_tokens=0,heads=16,qk_dim=192,v_dim=128", kH200).empty());
  CHECK(reason("mla_prefill/bf16/batch=1,new_tokens=9,cached_tokens=0,heads=16,qk_dim=96,v_dim=64", kH200) ==
        "no CUDA kernel for MLA prefill with keys of 96 and values of 64; 192 and 128 have one, and 256 and 256");
  CHECK(reason("sparse_mla/bf16/tokens=70000,selected=2048,heads=16,latent=512,rope_dim=64", kH200) ==
        "70000 tokens of sparse MLA; the kernel takes 65535 at most");
  CHECK(reason("index_score/fp8/batch=1,new_tokens=1,context=9,heads=64,head_dim=128", kH200).empty());
  CHECK(reason("index_score/fp8/batch=1,new_tokens=1,context=9,heads=8,head_dim=128", kH200) ==
        "no CUDA kernel for an indexer of 8 heads of 128; a multiple of 16 up to 64 of 128 have one");
  CHECK(reason("mamba2/bf16/batch=1,new_tokens=1,heads=16,head_dim=64,state=128,groups=1", kH200).empty());
  CHECK(reason("mamba2/bf16/batch=1,new_tokens=1,heads=16,head_dim=64,state=96,groups=1", kH200) ==
        "no CUDA kernel for a state of 96 by 64; 64 or 128 by a multiple of 32 have one");
  CHECK(reason("gated_delta/bf16/batch=1,new_tokens=1,k_heads=3,v_heads=4,k_dim=128,v_dim=128", kH200) ==
        "4 heads share 3 keys: not a whole number");
  CHECK(reason("elementwise/bf16/tokens=1,read_bytes=200000,written_bytes=200000", kH200) ==
        "rows of 50000 columns: the norm kernel takes 28672 at most");
  CHECK(reason("all_reduce/bf16/bytes=1024,gpus=8", kH200) == "needs 8 GPUs, 1 is here");
  CHECK(reason("all_reduce/bf16/bytes=1024,gpus=8", {90, 132, 50 << 20, 8}).empty());
  CHECK(reason("moe_dispatch/fp8/tokens=8,hidden=4096,top_k=8,experts=256,ep=4", {90, 132, 50 << 20, 2}) ==
        "needs 4 GPUs, 2 are here");
  Op huge = parse("gemm/bf16/m=1,n=4096,k=4096");
  huge.shape[1] = int64_t{1} << 40;
  CHECK(why_no_kernel(huge, kH200) == "an extent of 1099511627776 is absurd");
}

TEST_CASE("a driver of an older major version can't run this build") {
  CHECK(why_too_old(12040, 13000) ==
        "the driver is for CUDA 12.4, this build for CUDA 13.0: want a newer driver (580 or later for CUDA 13)");
  CHECK(why_too_old(0, 13000) == "libcuda.so.1 is there but tells no version: is the NVIDIA driver loaded?");
  CHECK_FALSE(why_too_old(13000, 13000));
  CHECK_FALSE(why_too_old(13000, 13010));
  CHECK_FALSE(why_too_old(14000, 13000));
}

TEST_CASE("GPUs by the driver's name, and only with the memory of the datasheet") {
  CHECK(known_system("NVIDIA H200", 150.1e9) == "h200_sxm");
  CHECK(known_system("NVIDIA H100 80GB HBM3", 84.9e9) == "h100_sxm");
  CHECK(known_system("NVIDIA H200", 100e9).empty());
  CHECK(known_system("NVIDIA H200 NVL", 150.1e9).empty());
  CHECK(known_system("NVIDIA GeForce RTX 4090", 25e9).empty());
}

TEST_CASE("experts are drawn without repeats and nearly evenly") {
  constexpr int64_t kTokens = 4096, kTopK = 8, kExperts = 64;
  const std::vector<int32_t> chosen = random_experts(kTokens, kTopK, kExperts);
  REQUIRE(chosen.size() == kTokens * kTopK);
  std::vector<int64_t> count(kExperts);
  for (int64_t t = 0; t < kTokens; ++t) {
    std::vector<int32_t> own(chosen.begin() + t * kTopK, chosen.begin() + (t + 1) * kTopK);
    for (const int32_t expert : own) ++count[static_cast<size_t>(expert)];
    std::sort(own.begin(), own.end());
    CHECK(std::adjacent_find(own.begin(), own.end()) == own.end());
  }
  // 512 expected, standard deviation 21: five of them.
  for (const int64_t n : count) CHECK(std::abs(n - 512) < 107);
  CHECK(std::accumulate(count.begin(), count.begin() + 8, int64_t{0}) <= most_local_pairs(kTokens, kTopK, 8));
  CHECK(most_local_pairs(kTokens, kTopK, 1) == kTokens * kTopK);
}

TEST_CASE("a token goes once to each rank that has one of its experts, and comes back once") {
  // 4 experts on 2 ranks; rank 0 has 0 and 1.
  const std::vector<int32_t> chosen = {2, 3, 0, 1, 3, 0};
  const Exchange e = exchange_of(chosen, 2, 4, 0, 2);
  CHECK(e.tokens == std::vector<int64_t>{0, 2});
  CHECK(e.sources == std::vector<int32_t>{0, 2});
  CHECK(e.rows == std::vector<int32_t>{0, -1, -1, -1, 1, -1});
}

TEST_CASE("tokens sent are those that the op's bytes count") {
  constexpr int64_t kTokens = 2048, kTopK = 8, kExperts = 256, kRanks = 8;
  const Exchange e = exchange_of(random_experts(kTokens, kTopK, kExperts), kTopK, kExperts, 3, kRanks);
  const Op op = make_op(OpKind::moe_combine, Dtype::bf16, Dtype::bf16, {kTokens, 1024, kTopK, kExperts, kRanks});
  // The op takes choices for independent; without repeats a little more ranks are met: (224/256)^8 against 7/8 a draw.
  CHECK(static_cast<double>(e.sources.size()) * 1024 * 2 == doctest::Approx(core::bytes(op)).epsilon(0.03));
  CHECK(e.tokens[3] == 0);
}

TEST_CASE("kernels by name: sums of a launch, longest first") {
  const std::vector<KernelRecord> records = {
      {"void drydock::kernels::cuda::(anonymous namespace)::count_kernel(int const*, long)", 1000, 3000},
      {"void drydock::kernels::cuda::(anonymous namespace)::tile_kernel<__nv_bfloat16, (int)3>(float*)", 4000, 14000},
      {"nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT", 20000, 21000},
      {"void drydock::kernels::cuda::(anonymous namespace)::count_kernel(int const*, long)", 30000, 34000}};
  const std::vector<KernelSum> parts = sums_of(records, 2);
  REQUIRE(parts.size() == 3);
  CHECK(parts[0] == KernelSum{"tile_kernel", 5, 0.5});
  CHECK(parts[1] == KernelSum{"count_kernel", 3, 1});
  CHECK(parts[2].name == "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT");
}

TEST_CASE("a kernel that ends before it begins is not believed") {
  CHECK_THROWS_WITH_AS(sums_of({{"k", 5, 5}}, 1), "CUPTI: k ends before it begins; the records can't be used",
                       core::Error);
}

}  // namespace
}  // namespace drydock::profiler::cuda
