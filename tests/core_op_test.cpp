#include <doctest/doctest.h>

#include "core/error.h"
#include "core/hardware.h"
#include "core/op.h"

using namespace drydock::core;

namespace {

constexpr Dtype kBf16 = Dtype::bf16, kFp8 = Dtype::fp8;

Hardware h200() {
  Hardware h;
  h.memory_bytes_per_s = 4.8e12;
  h.flops_per_s[static_cast<size_t>(kBf16)] = 989e12;
  h.flops_per_s[static_cast<size_t>(kFp8)] = 1979e12;
  h.nvlink_bytes_per_s = 450e9;
  h.nvlink_domain = 8;
  h.pcie_bytes_per_s = 64e9;
  h.network_bytes_per_s = 50e9;
  return h;
}

}  // namespace

TEST_CASE("the key of every kind reads back") {
  for (int k = 0; k < kOpKinds; ++k) {
    Op op{static_cast<OpKind>(k), kBf16, k % 2 ? kFp8 : kBf16, {}};
    for (size_t i = 0; i < dimension_names(op.kind).size(); ++i) op.shape[i] = static_cast<int64_t>(i) * 1000 + 7;
    CHECK(parse_op_key(key(op)) == op);
  }
  CHECK(key(make_op(OpKind::gemm, kFp8, kFp8, {1, 2, 3})) == "gemm/fp8/m=1,n=2,k=3");
  CHECK(key(make_op(OpKind::all_reduce, kBf16, kBf16, {64, 8})) == "all_reduce/bf16/bytes=64,gpus=8");
}

TEST_CASE("a key that is not one is refused") {
  for (const char* text : {"", "gem/fp8/m=1,n=2,k=3", "gemm/f8/m=1,n=2,k=3", "gemm/fp8/m=1,n=2", "gemm/fp8/m=1,n=2,k=x",
                           "gemm/fp8/m=-1,n=2,k=3", "gemm/fp8/m=1,n=2,k=3,l=4", "gemm/fp8/n=1,m=2,k=3",
                           "gemm/fp8/m=99999999999999999999,n=2,k=3", "gemm/fp8", "gemm/fp8/m=0,n=2,k=3",
                           "all_reduce/bf16/bytes=64,gpus=0", "gemm/fp8+f8/m=1,n=2,k=3"})
    CHECK_THROWS_AS(parse_op_key(text), Error);
}

TEST_CASE("arithmetic of each kind, by hand") {
  CHECK(flops(make_op(OpKind::gemm, kBf16, kBf16, {2, 3, 5})) == 60);
  CHECK(flops(make_op(OpKind::batched_gemm, kBf16, kBf16, {2, 3, 5, 4})) == 240);
  // 4 tokens x 2 experts each, half of them on this GPU: 4 expert passes of 3 products 8 x 16.
  CHECK(flops(make_op(OpKind::moe, kBf16, kBf16, {4, 8, 16, 4, 2, 2})) == 4 * 3 * 2 * 8 * 16);
  // Causal over 3 new tokens after 2 cached: 3 + 4 + 5 pairs, two products of head_dim 8, 2 heads.
  CHECK(flops(make_op(OpKind::prefill_attention, kBf16, kBf16, {1, 3, 2, 2, 1, 8, 0})) == 12 * 4 * 2 * 8);
  // Window 2: token 1 sees itself, the others two each.
  CHECK(flops(make_op(OpKind::prefill_attention, kBf16, kBf16, {1, 3, 0, 1, 1, 8, 2})) == 5 * 4 * 8);
  // Window 2 after 10 cached tokens: two keys each.
  CHECK(flops(make_op(OpKind::prefill_attention, kBf16, kBf16, {1, 3, 10, 1, 1, 8, 2})) == 6 * 4 * 8);
  CHECK(flops(make_op(OpKind::decode_attention, kBf16, kBf16, {2, 100, 4, 1, 8, 0})) == 2 * 100 * 4 * 4 * 8);
  CHECK(flops(make_op(OpKind::decode_attention, kBf16, kBf16, {2, 100, 4, 1, 8, 10})) == 2 * 10 * 4 * 4 * 8);
  CHECK(flops(make_op(OpKind::mla_decode, kBf16, kBf16, {1, 10, 2, 512, 64})) == 10 * 2 * 2 * (512 + 64 + 512));
  // Decompressed: 1 + 2 + 3 pairs, a product of 192 and one of 128 for each of 2 heads.
  CHECK(flops(make_op(OpKind::mla_prefill, kBf16, kBf16, {1, 3, 0, 2, 192, 128})) == 6 * 2 * 2 * (192 + 128));
  CHECK(flops(make_op(OpKind::sparse_mla, kBf16, kBf16, {3, 10, 2, 512, 64})) == 3 * 10 * 2 * 2 * (512 + 64 + 512));
  // 2 new tokens at the end of a context of 5 see 4 and 5 keys; 3 heads of 8.
  CHECK(flops(make_op(OpKind::index_score, kFp8, kFp8, {1, 2, 5, 3, 8})) == 9 * 2 * 3 * 8);
  // Each token: state times key, rank-one update, state times query; 4 heads with 8 x 16 states.
  CHECK(flops(make_op(OpKind::gated_delta, kBf16, kBf16, {1, 2, 2, 4, 8, 16})) == 2 * 3 * 2 * 4 * 8 * 16);
  CHECK(flops(make_op(OpKind::mamba2, kBf16, kBf16, {1, 2, 4, 8, 16, 1})) == 2 * 3 * 2 * 4 * 8 * 16);
  for (int k = static_cast<int>(OpKind::all_reduce); k < kOpKinds; ++k)
    CHECK(flops({static_cast<OpKind>(k), kBf16, kBf16, {8, 8, 8, 8, 8}}) == 0);
  CHECK(flops(make_op(OpKind::elementwise, kBf16, kBf16, {8, 4, 4})) == 0);
}

TEST_CASE("traffic of each kind, by hand") {
  CHECK(bytes(make_op(OpKind::gemm, kFp8, kFp8, {2, 3, 5})) == 2 * 5 + 3 * 5 + 2 * 2 * 3);
  CHECK(bytes(make_op(OpKind::gemm, kBf16, kBf16, {2, 3, 5})) == 2 * (10 + 15 + 6));
  // One token on 4 experts of which it uses all: every weight of both local experts.
  const double moe = bytes(make_op(OpKind::moe, kBf16, kBf16, {1, 8, 16, 4, 4, 2}));
  CHECK(moe == doctest::Approx(2 * 3 * 8 * 16 * 2 + 2 * (8 * 4 + 2 * 16 * 2)));
  CHECK(bytes(make_op(OpKind::decode_attention, kBf16, kFp8, {2, 100, 4, 2, 8, 0})) ==
        2 * (2 * 4 * 8 * 2 + 2 * 100 * 2 * 8));
  CHECK(bytes(make_op(OpKind::mla_decode, kBf16, kBf16, {1, 10, 2, 512, 64})) == 2 * (512 * 2 + 64) * 2 + 10 * 576 * 2);
  CHECK(bytes(make_op(OpKind::batched_gemm, kBf16, kBf16, {2, 3, 5, 4})) == 4 * 2 * (10 + 15 + 6));
  // 3 queries and outputs of 2 heads; keys and values of all 5 tokens, 1 KV head in fp8.
  CHECK(bytes(make_op(OpKind::prefill_attention, kBf16, kFp8, {1, 3, 2, 2, 1, 8, 0})) == 2 * 3 * 2 * 8 * 2 + 2 * 5 * 8);
  // A window of 10 keys of the 100.
  CHECK(bytes(make_op(OpKind::decode_attention, kBf16, kBf16, {2, 100, 4, 2, 8, 10})) ==
        2 * (2 * 4 * 8 * 2 + 2 * 10 * 2 * 8 * 2));
  // q and k of 192, v and output of 128: 3 new tokens, 5 keys, 2 heads, bf16.
  CHECK(bytes(make_op(OpKind::mla_prefill, kBf16, kBf16, {1, 3, 2, 2, 192, 128})) ==
        2 * 2 * (3 * (192 + 128) + 5 * (192 + 128)));
  CHECK(bytes(make_op(OpKind::sparse_mla, kBf16, kFp8, {3, 10, 2, 512, 64})) ==
        3 * (2 * (512 * 2 + 64) * 2 + 10 * 576));
  CHECK(bytes(make_op(OpKind::index_score, kFp8, kFp8, {1, 2, 5, 3, 8})) == 5 * 8 + 2 * 3 * 8);
  // The fp32 state comes and goes; q, k (2 heads of 8), v and output (4 heads of 16) in bf16.
  CHECK(bytes(make_op(OpKind::gated_delta, kBf16, kBf16, {1, 2, 2, 4, 8, 16})) ==
        2 * 4 * 4 * 8 * 16 + 2 * 2 * (2 * 2 * 8 + 2 * 4 * 16));
  // x and output (4 heads of 8), B and C (1 group of 16).
  CHECK(bytes(make_op(OpKind::mamba2, kBf16, kBf16, {1, 2, 4, 8, 16, 1})) ==
        2 * 4 * 4 * 8 * 16 + 2 * 2 * (2 * 4 * 8 + 2 * 16));
  CHECK(bytes(make_op(OpKind::reduce_scatter, kBf16, kBf16, {800, 8})) == 700);
  CHECK(bytes(make_op(OpKind::all_to_all, kBf16, kBf16, {800, 8})) == 700);
  CHECK(bytes(make_op(OpKind::send_recv, kBf16, kBf16, {800, 9})) == 800);
  // Summed results come back in bf16 whatever the experts' format.
  CHECK(bytes(make_op(OpKind::moe_combine, kFp8, kFp8, {1, 100, 8, 64, 8})) ==
        doctest::Approx(2 * 100 * 7 * (1 - 0.34360892)));
  CHECK(bytes(make_op(OpKind::elementwise, kBf16, kBf16, {8, 4, 2})) == 48);
  CHECK(bytes(make_op(OpKind::all_reduce, kBf16, kBf16, {800, 8})) == 1400);  // 2 (n - 1) / n
  CHECK(bytes(make_op(OpKind::all_gather, kBf16, kBf16, {800, 8})) == 700);
  // 8 experts of 8 ranks: one token reaches 7 (1 - (7/8)^8) other ranks on average.
  CHECK(bytes(make_op(OpKind::moe_dispatch, kFp8, kFp8, {1, 100, 8, 64, 8})) ==
        doctest::Approx(100 * 7 * (1 - 0.34360892)));
}

TEST_CASE("the roofline takes the slower of memory and arithmetic, and the right link") {
  const Hardware h = h200();
  // 8192^3 in bf16 is bound by arithmetic: 2 * 8192^3 / 989e12 s.
  CHECK(roofline_us(make_op(OpKind::gemm, kBf16, kBf16, {8192, 8192, 8192}), h) ==
        doctest::Approx(1111.74).epsilon(1e-4));
  // One row is bound by the weights: 8192 * 8192 * 2 bytes and little else over 4.8 TB/s.
  CHECK(roofline_us(make_op(OpKind::gemm, kBf16, kBf16, {1, 8192, 8192}), h) == doctest::Approx(27.97).epsilon(2e-3));
  CHECK(link_bytes_per_s(h, 8) == 450e9);
  CHECK(link_bytes_per_s(h, 16) == 50e9);
  CHECK(roofline_us(make_op(OpKind::all_reduce, kBf16, kBf16, {450'000'000, 1}), h) == 0);
  CHECK(roofline_us(make_op(OpKind::all_gather, kBf16, kBf16, {450'000'000, 8}), h) == doctest::Approx(875));
  // No fp4 tensor cores: NVFP4 runs at the fp8 rate, weight-only int4 at bf16's.
  CHECK(peak_flops_per_s(h, Dtype::nvfp4) == 1979e12);
  CHECK(peak_flops_per_s(h, Dtype::int4) == 989e12);
}

TEST_CASE("formats are named, parsed and sized with their scales") {
  for (int i = 0; i < kDtypes; ++i) CHECK(*parse_dtype(name(static_cast<Dtype>(i))) == static_cast<Dtype>(i));
  CHECK(*parse_dtype("fp4") == Dtype::nvfp4);
  CHECK(!parse_dtype("fp5"));
  CHECK(bytes_per_element(Dtype::nvfp4) == 0.5625);   // 4 bits and one byte of scale per 16
  CHECK(bytes_per_element(Dtype::mxfp4) == 0.53125);  // 4 bits and one byte of scale per 32
}
