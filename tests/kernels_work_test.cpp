#include <doctest/doctest.h>

#include "kernels/work.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

double bytes_of(const Numbers& numbers) { return static_cast<double>(numbers.bytes.size()); }

}  // namespace

TEST_CASE("a gemm's bytes are its operands'") {
  const int64_t m = 3, n = 256, k = 384;
  Numbers a(Dtype::bf16, m * k), b(Dtype::bf16, n * k), out(Dtype::bf16, m * n);
  Gemm op{matrix(a, m, k), matrix(b, n, k), matrix(out, m, n)};
  CHECK(core::bytes(op_of(op)) == bytes_of(a) + bytes_of(b) + bytes_of(out));
  CHECK(core::flops(op_of(op)) == 2.0 * m * n * k);
  CHECK(core::key(op_of(op)) == "gemm/bf16/m=3,n=256,k=384");

  // Block-scaled weights: one fp32 scale per 128 x 128.
  Numbers a8(Dtype::fp8, m * k), b8(Dtype::fp8, n * k);
  std::vector<float> scales(2 * 3);
  op.a = matrix(a8, m, k), op.b = matrix(b8, n, k);
  op.a.scaling = op.b.scaling = Scaling::block;
  op.b.scales = scales.data();
  CHECK(op_of(op).dtype == Dtype::fp8_block);
  const double read = bytes_of(a8) + bytes_of(b8) + 4.0 * static_cast<double>(scales.size()) + bytes_of(out);
  CHECK(std::abs(core::bytes(op_of(op)) - read) <= 4 * m * 3);  // the activations' scales at most
}

TEST_CASE("decode attention's bytes are those of the queries, the results and the tokens seen") {
  core::Random random(51);
  for (const int64_t window : {0, 40}) {
    const std::vector<int32_t> contexts = {100, 100};
    PagedCache cache(random, Dtype::fp8, contexts, 2, 64, 16);
    Numbers q = random_numbers(random, Dtype::bf16, 2 * 8 * 64), out(Dtype::bf16, 2 * 8 * 64);
    DecodeAttention op{q.data(), out.data(), Dtype::bf16, cache.kv, contexts.data(), 2, 8, 100, window};
    const double seen = window > 0 ? 40 : 100;
    CHECK(core::bytes(op_of(op)) == bytes_of(q) + bytes_of(out) + 2 * seen * 2 * (2 * 64));
    CHECK(core::flops(op_of(op)) == 2 * 8 * seen * 2 * (64 + 64));
    // Really touched: NaN in any token seen shows in the result, in others not.
    cpu::Threads threads(1);
    for (const int64_t token : {0, 59, 60, 99}) {
      const int64_t slot = cache.blocks[token / 16] * 16 + token % 16;
      unsigned char& element = cache.v.bytes[slot * 2 * 64];
      const unsigned char kept = element;
      element = 0x7F;
      cpu::decode_attention(op, threads);
      CHECK(std::isnan(out[0]) == (window == 0 || token >= 60));
      element = kept;
    }
  }
}

TEST_CASE("prefill, MLA and the small ops: figures worked out by hand") {
  PrefillAttention prefill;
  prefill.kv.kv_heads = 2, prefill.kv.head_dim = 64, prefill.heads = 4, prefill.batch = 1, prefill.most_new = 3;
  // Tokens see 11, 12 and 13: 36 pairs of 4 heads, 64 multiply-adds for the logit and 64 for the value.
  CHECK(core::flops(op_of(prefill, 10)) == 36 * 4 * 2 * (64 + 64));
  MlaDecode mla;
  mla.batch = 2, mla.most_context = 10, mla.heads = 16, mla.latent = 512, mla.rope = 64;
  CHECK(core::flops(op_of(mla)) == 2.0 * 10 * 16 * 2 * (576 + 512));
  CHECK(core::bytes(op_of(mla)) == 2 * 2 * (16 * (576 + 512) + 10 * 576));

  Numbers x(Dtype::bf16, 5 * 200), out(Dtype::fp8, 5 * 200);
  AddRmsNorm norm{matrix(x, 5, 200), matrix(x, 5, 200), nullptr, matrix(out, 5, 200), nullptr};
  norm.out.scaling = Scaling::block;  // 2 scales a row
  CHECK(core::bytes(op_of(norm)) == 5 * (3 * 400 + 200 + 8));
  const Quantize quantize{norm.x, norm.out, nullptr};
  CHECK(core::bytes(op_of(quantize)) == 5 * (400 + 200 + 8));
  const SiluMul silu{matrix(x, 5, 200), matrix(out, 5, 100), nullptr};
  CHECK(core::bytes(op_of(silu)) == 5 * (400 + 100));
  RopeAppend rope;
  rope.tokens = 7, rope.heads = 4, rope.kv.kv_heads = 2, rope.kv.head_dim = 64, rope.kv.dtype = Dtype::fp8;
  CHECK(core::bytes(op_of(rope)) == 7 * 64 * (2 * 8 + 2 * 6 + 4));
}
