#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "kernels/attention.h"
#include "tests/effort.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

// With numbers up to 1 a logit is off by at most dim * 2^-24 * (dim * scale), a weight relatively by that and two units
// of exp, and the sum over the context by its length in units; values are at most 1, and both sums have the error.
double attention_tolerance(int64_t dim, double scale, int64_t context) {
  return 2 * (static_cast<double>(dim * dim) * scale + static_cast<double>(context) + 16) * 0x1p-24;
}

struct Shape {
  Dtype q = Dtype::fp32, kv = Dtype::fp32;
  int64_t kv_heads = 1, group = 1, dim = 64, block_tokens = 16, window = 0;
  bool sinks = false;
};

std::vector<float> random_sinks(core::Random& random, int64_t heads) {
  std::vector<float> sinks(static_cast<size_t>(heads));
  for (float& x : sinks) x = static_cast<float>(4 * random.uniform() - 2);
  return sinks;
}

struct Decode {
  int64_t heads;
  std::vector<int32_t> contexts;
  PagedCache cache;
  Numbers q, out;
  std::vector<float> sinks;
  DecodeAttention op;

  Decode(core::Random& random, const Shape& shape, const std::vector<int32_t>& lengths)
      : heads(shape.kv_heads * shape.group),
        contexts(lengths),
        cache(random, shape.kv, lengths, shape.kv_heads, shape.dim, shape.block_tokens),
        sinks(random_sinks(random, heads)) {
    const auto batch = static_cast<int64_t>(contexts.size());
    q = random_numbers(random, shape.q, batch * heads * shape.dim);
    out = Numbers(shape.q, q.count());
    op = {q.data(), out.data(), shape.q, cache.kv, contexts.data(), batch, heads};
    op.most_context = *std::max_element(contexts.begin(), contexts.end());
    op.window = shape.window, op.scale = 1 / std::sqrt(static_cast<float>(shape.dim));
    if (shape.sinks) op.sinks = sinks.data();
  }
  double tolerance() const { return attention_tolerance(op.kv.head_dim, op.scale, op.most_context); }
};

const std::vector<Shape> kShapes = {
    {},
    {.q = Dtype::bf16, .kv = Dtype::bf16, .kv_heads = 2, .group = 4, .dim = 128},
    {.q = Dtype::bf16, .kv = Dtype::fp8, .kv_heads = 2, .group = 3, .dim = 64, .block_tokens = 32},
    {.q = Dtype::fp32, .kv = Dtype::bf16, .kv_heads = 1, .group = 8, .dim = 256, .window = 33},
    {.q = Dtype::bf16, .kv = Dtype::bf16, .kv_heads = 3, .group = 1, .dim = 40, .block_tokens = 1, .sinks = true},
    {.q = Dtype::fp32, .kv = Dtype::fp32, .kv_heads = 2, .group = 5, .dim = 7, .block_tokens = 64, .window = 1},
    {.q = Dtype::fp32, .kv = Dtype::fp8, .kv_heads = 1, .group = 2, .dim = 128, .window = 100, .sinks = true},
};

}  // namespace

TEST_CASE("decode attention agrees with the reference: groups, formats, windows, sinks, empty contexts") {
  cpu::Threads threads(2);
  core::Random random(11);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (size_t i = 0; i < kShapes.size(); ++i) {
      CAPTURE(i);
      Decode decode(random, kShapes[i], {0, 1, 15, 16, 17, 64, 65, 131});
      cpu::decode_attention(decode.op, threads);
      const auto want = reference::decode_attention(decode.op);
      REQUIRE(mismatch(decode.out, want, kShapes[i].dim, decode.tolerance(), half_step(decode.op.dtype)) == "");
    }
  });
}

TEST_CASE("decode attention over several segments of one sequence, the same bits for any number of threads") {
  core::Random random(12);
  for (const bool sinks : {false, true}) {
    const Shape shape{.q = Dtype::fp32, .kv = Dtype::bf16, .kv_heads = 2, .group = 2, .dim = 64, .sinks = sinks};
    Decode decode(random, shape, {3000 / kLighter, 5, 1025});
    std::vector<unsigned char> first;
    for (const int count : {1, 2, 3, 5}) {
      cpu::Threads threads(count);
      cpu::decode_attention(decode.op, threads);
      if (first.empty()) first = decode.out.bytes;
      CHECK(decode.out.bytes == first);
    }
    CHECK(mismatch(decode.out, reference::decode_attention(decode.op), 64, decode.tolerance(), 0x1p-24) == "");
    // Of a batch every sequence gets what it gets alone.
    decode.op.batch = 1;
    decode.out = Numbers(Dtype::fp32, decode.q.count());
    decode.op.out = decode.out.data();
    cpu::Threads threads(2);
    cpu::decode_attention(decode.op, threads);
    CHECK(std::equal(first.begin(), first.begin() + 4 * 64 * 4, decode.out.bytes.begin()));
    CHECK(std::isnan(decode.out[4 * 64]));
  }
}

TEST_CASE("decode attention: large logits do not overflow, NaN in a value that counts goes through") {
  cpu::Threads threads(1);
  core::Random random(13);
  Decode decode(random, {.q = Dtype::fp32, .kv = Dtype::fp32, .dim = 16}, {80});
  decode.op.scale = 1000;
  cpu::decode_attention(decode.op, threads);
  // Off by a logit's rounding, 16 * 16 * 1000 * 2^-24 = 0.016, twice.
  CHECK(mismatch(decode.out, reference::decode_attention(decode.op), 16, 0.04, 0) == "");
  decode.op.scale = 1;
  reinterpret_cast<float*>(decode.cache.v.data())[(decode.cache.blocks[0] * 16 + 3) * 16] = NAN;
  cpu::decode_attention(decode.op, threads);
  CHECK(std::isnan(decode.out[0]));
  CHECK(!std::isnan(decode.out[1]));
  decode.op.window = 70;  // token 3 is out of it
  cpu::decode_attention(decode.op, threads);
  CHECK(!std::isnan(decode.out[0]));
}

TEST_CASE("prefill attention agrees with the reference: chunks after a prefix, empty chunks, windows, sinks") {
  core::Random random(14);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (size_t i = 0; i < kShapes.size(); ++i) {
      CAPTURE(i);
      const Shape& shape = kShapes[i];
      const std::vector<int32_t> starts = {0, 1, 1, 70, 75}, contexts = {40, 9, 69, 90};
      PagedCache cache(random, shape.kv, contexts, shape.kv_heads, shape.dim, shape.block_tokens);
      const int64_t heads = shape.kv_heads * shape.group;
      Numbers q = random_numbers(random, shape.q, 75 * heads * shape.dim), out(shape.q, q.count());
      const std::vector<float> sinks = random_sinks(random, heads);
      PrefillAttention op{q.data(), out.data(), shape.q, cache.kv, starts.data(), contexts.data(), 75, 4, heads, 69};
      op.window = shape.window, op.scale = 1 / std::sqrt(static_cast<float>(shape.dim));
      if (shape.sinks) op.sinks = sinks.data();
      const auto want = reference::prefill_attention(op);
      std::vector<unsigned char> first;
      for (const int count : {1, 3}) {
        cpu::Threads threads(count);
        cpu::prefill_attention(op, threads);
        if (first.empty()) first = out.bytes;
        REQUIRE(out.bytes == first);
      }
      const double tolerance = attention_tolerance(shape.dim, op.scale, 90);
      REQUIRE(mismatch(out, want, shape.dim, tolerance, half_step(shape.q)) == "");
    }
  });
}

TEST_CASE("a prefill of one token is a decode") {
  core::Random random(15);
  cpu::Threads threads(2);
  Decode decode(random, kShapes[1], {77, 3, 20});
  cpu::decode_attention(decode.op, threads);
  Numbers out(decode.op.dtype, decode.q.count());
  const std::vector<int32_t> starts = {0, 1, 2, 3};
  PrefillAttention op{
      decode.q.data(), out.data(), decode.op.dtype, decode.cache.kv, starts.data(), decode.op.contexts, 3, 3,
      decode.heads,    1};
  op.scale = decode.op.scale;
  cpu::prefill_attention(op, threads);
  CHECK(out.bytes == decode.out.bytes);
}

TEST_CASE("absorbed MLA agrees with the reference") {
  core::Random random(16);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16}) {
      for (const auto& [heads, latent, rope] : {std::array<int64_t, 3>{20, 128, 64}, {3, 17, 5}, {16, 512, 64}}) {
        const std::vector<int32_t> contexts = {0, 1, 70, 1030 / kLighter};
        const int64_t width = latent + rope, batch = 4;
        PagedCache cache(random, dtype, contexts, 1, width, 16);
        Numbers q = random_numbers(random, dtype, batch * heads * width), out(dtype, batch * heads * latent);
        MlaDecode op{
            q.data(), out.data(), dtype, cache.k.data(), 16, cache.blocks.data(), cache.kv.blocks_per_sequence};
        op.contexts = contexts.data(), op.batch = batch, op.heads = heads, op.latent = latent, op.rope = rope;
        op.most_context = 1030, op.scale = 1 / std::sqrt(static_cast<float>(width));
        cpu::Threads threads(2);
        cpu::mla_decode(op, threads);
        const double tolerance = attention_tolerance(width, op.scale, 1030);
        REQUIRE(mismatch(out, reference::mla_decode(op), latent, tolerance, half_step(dtype)) == "");
      }
    }
  });
}

TEST_CASE("attention refuses what it cannot compute, in one line") {
  core::Random random(17);
  cpu::Threads threads(1);
  Decode decode(random, kShapes[1], {5});
  decode.op.heads = 7;
  CHECK_THROWS_WITH_AS(cpu::decode_attention(decode.op, threads),
                       "decode_attention: heads have to be a multiple of the cache's heads", core::Error);
  decode.op.heads = 8, decode.op.dtype = Dtype::fp8;
  CHECK_THROWS_WITH_AS(cpu::decode_attention(decode.op, threads), "decode_attention: q has to be fp32 or bf16",
                       core::Error);
}
