// The work model of the attention kernels against counts by hand.
#include <doctest/doctest.h>

#include "kernels/cuda/attention_work.h"

namespace drydock::tests {
namespace {

using core::Dtype;
using core::OpKind;
using kernels::cuda::AttentionWork;
using kernels::cuda::PrefillPath;

TEST_CASE("decode attention: the cache once, partial results twice, rows filled up to 16") {
  // Llama-3-8B's heads, 8192 tokens: cache 8 * 8192 * 2 * 128 * 2 bytes, q and out 2 * 32 * 128 * 2.
  const core::Op op = core::make_op(OpKind::decode_attention, Dtype::bf16, Dtype::bf16, {1, 8192, 32, 8, 128, 0});
  const AttentionWork one = kernels::cuda::decode_work(op, 1);
  CHECK(one.moved_bytes == 33554432 + 16384);
  CHECK(one.moved_bytes == one.floor_bytes);
  CHECK(one.floor_flops == 4.0 * 8192 * 32 * 128);
  CHECK(one.issued_flops == 4 * one.floor_flops);  // 4 of 16 rows
  // 33 splits: 2 * 32 * 33 * (128 + 2) * 4 bytes, 3 % of the cache.
  CHECK(kernels::cuda::decode_work(op, 33).moved_bytes == one.moved_bytes + 1098240);
}

TEST_CASE("decode attention: a window, fp8 and groups beyond 16") {
  const core::Op op = core::make_op(OpKind::decode_attention, Dtype::bf16, Dtype::fp8, {2, 1000, 20, 1, 64, 100});
  const AttentionWork work = kernels::cuda::decode_work(op, 1);
  CHECK(work.moved_bytes == 2.0 * (2 * 100 * 2 * 64 + 2 * 20 * 64 * 2));  // two tiles of heads
  CHECK(work.issued_flops == 2.0 * 2 * 16 * 112 * 64 * 4);                // 100 tokens are 7 tiles of 16
}

TEST_CASE("prefill attention: tiles of rows see up to their last token") {
  // 64 new tokens of 4 heads on one: two tiles of 128 rows, 32 tokens each, that see 32 and 64 tokens.
  const core::Op op = core::make_op(OpKind::prefill_attention, Dtype::bf16, Dtype::bf16, {1, 64, 0, 4, 1, 128, 0});
  const AttentionWork any = kernels::cuda::prefill_work(op, PrefillPath::any);
  CHECK(any.floor_flops == 4.0 * (64 * 65 / 2) * 4 * 128);
  CHECK(any.issued_flops == 4.0 * 128 * (64 + 64) * 128);  // in tiles of 64 tokens
  CHECK(any.moved_bytes == (32 + 64) * 2.0 * 128 * 2 + 2.0 * 64 * 4 * 128 * 2);
  CHECK(kernels::cuda::prefill_work(op, PrefillPath::hopper).issued_flops == 4.0 * 128 * (128 + 128) * 128);
}

TEST_CASE("prefill attention: long prompts come close to the floor") {
  // 8192 tokens: the last tile of tokens of each tile of rows is half hidden, 1 % of the work.
  const core::Op op = core::make_op(OpKind::prefill_attention, Dtype::bf16, Dtype::bf16, {1, 8192, 0, 32, 8, 128, 0});
  const AttentionWork work = kernels::cuda::prefill_work(op, PrefillPath::any);
  CHECK(work.issued_flops > work.floor_flops);
  CHECK(work.issued_flops < 1.01 * work.floor_flops);
}

TEST_CASE("MLA decode: once per tile of heads") {
  const core::Op op = core::make_op(OpKind::mla_decode, Dtype::bf16, Dtype::bf16, {1, 4096, 128, 512, 64});
  const AttentionWork work = kernels::cuda::mla_work(op, 1, 64);
  CHECK(work.moved_bytes == 2.0 * 4096 * 576 * 2 + 128.0 * (576 + 512) * 2);
  CHECK(work.issued_flops == work.floor_flops);
  CHECK(work.floor_flops == 2.0 * 4096 * 128 * (576 + 512));
}

}  // namespace
}  // namespace drydock::tests
