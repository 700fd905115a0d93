// Multi-head latent attention on the CPU, not absorbed and over picked tokens, against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/work.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

// As attention_tolerance in kernels_attention_test.cpp: a logit's rounding, exp and the sum over the context, twice.
double mla_tolerance(int64_t dim, double scale, int64_t context) {
  return 2 * (static_cast<double>(dim * dim) * scale + static_cast<double>(context) + 16) * 0x1p-24;
}

struct MlaChunks {
  std::vector<int32_t> starts, key_starts;
  Numbers q, kv, rope, out;
  MlaPrefill op;

  MlaChunks(core::Random& random, Dtype dtype, int64_t heads, std::array<int64_t, 3> dims,
            const std::vector<std::array<int32_t, 2>>& chunks)  // fresh, cached
      : starts{0}, key_starts{0} {
    const auto [nope, rotated, value] = dims;
    int32_t most = 0;
    for (const auto& [fresh, cached] : chunks) {
      starts.push_back(starts.back() + fresh);
      key_starts.push_back(key_starts.back() + fresh + cached);
      most = std::max(most, fresh);
    }
    const int64_t tokens = starts.back(), keys = key_starts.back(), stride = rotated + 24;
    q = random_numbers(random, dtype, tokens * heads * (nope + rotated));
    kv = random_numbers(random, dtype, keys * heads * (nope + value));
    rope = random_numbers(random, dtype, keys * stride);
    out = Numbers(dtype, tokens * heads * value);
    op = {q.data(), out.data(), dtype, kv.data(), rope.data(), stride, starts.data(), key_starts.data()};
    op.tokens = tokens, op.batch = static_cast<int64_t>(chunks.size()), op.heads = heads;
    op.nope = nope, op.rope = rotated, op.value_dim = value, op.most_new = most;
    op.scale = 1 / std::sqrt(static_cast<float>(nope + rotated));
  }
};

}  // namespace

TEST_CASE("MLA prefill agrees with the reference: chunks after a prefix, empty chunks, any dims") {
  core::Random random(21);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16})
      for (const auto& dims : {std::array<int64_t, 3>{128, 64, 128}, {17, 5, 40}, {32, 0, 16}}) {
        MlaChunks c(random, dtype, dims[0] == 128 ? 10 : 3, dims, {{40, 0}, {0, 7}, {1, 30}, {66, 21}});
        const auto want = reference::mla_prefill(c.op);
        std::vector<unsigned char> first;
        for (const int count : {1, 3}) {
          cpu::Threads threads(count);
          cpu::mla_prefill(c.op, threads);
          if (first.empty()) first = c.out.bytes;
          REQUIRE(c.out.bytes == first);
        }
        REQUIRE(mismatch(c.out, want, dims[2], mla_tolerance(dims[0] + dims[1], c.op.scale, 87), half_step(dtype)) ==
                "");
      }
  });
}

TEST_CASE("MLA prefill: work by hand, later tokens do not count, and refusals") {
  core::Random random(22);
  cpu::Threads threads(1);
  MlaChunks c(random, Dtype::bf16, 4, {16, 8, 16}, {{3, 10}});
  // Tokens see 11, 12 and 13: 36 pairs of 4 heads, 24 multiply-adds for the logit and 16 for the value.
  CHECK(core::flops(op_of(c.op, 10)) == 36 * 4 * 2 * (24 + 16));
  // q and out of 3 tokens, keys and values of 13, the rotated part of a key once a head.
  CHECK(core::bytes(op_of(c.op, 10)) == 2 * 4 * (3 * (24 + 16) + 13 * (24 + 16)));
  // A NaN in the last value shows in the last token only.
  const uint16_t nan = 0x7FC0;
  std::memcpy(c.kv.bytes.data() + ((12 * 4 + 1) * 32 + 16) * 2, &nan, 2);
  cpu::mla_prefill(c.op, threads);
  CHECK(std::isnan(c.out[(2 * 4 + 1) * 16]));
  CHECK(!std::isnan(c.out[(1 * 4 + 1) * 16]));
  CHECK(!std::isnan(c.out[(2 * 4 + 2) * 16]));
  c.op.rope_stride = 7;
  CHECK_THROWS_WITH_AS(cpu::mla_prefill(c.op, threads), "mla_prefill: rope_stride has to be at least rope",
                       core::Error);
  c.op.dtype = Dtype::fp8;
  CHECK_THROWS_WITH_AS(cpu::mla_prefill(c.op, threads), "mla_prefill: q has to be fp32 or bf16", core::Error);
}

TEST_CASE("sparse MLA agrees with the reference: lists in any order, of none, of all") {
  core::Random random(23);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16})
      for (const auto& [heads, latent, rope] : {std::array<int64_t, 3>{20, 128, 64}, {3, 17, 5}}) {
        const std::vector<int32_t> contexts = {70, 1, 130}, sequences = {2, 0, 0, 1, 2, 2},
                                   counts = {40, 17, 70, 1, 0, 130};
        const int64_t width = latent + rope, tokens = 6, most = 130;
        PagedCache cache(random, dtype, contexts, 1, width, 16);
        std::vector<int32_t> selected(static_cast<size_t>(tokens * most), -1);
        for (int64_t t = 0; t < tokens; ++t) {
          std::vector<int32_t> all(static_cast<size_t>(contexts[sequences[t]]));
          std::iota(all.begin(), all.end(), 0);
          for (size_t i = all.size(); i-- > 1;) std::swap(all[i], all[random.integer(0, static_cast<int64_t>(i))]);
          std::copy_n(all.begin(), counts[t], selected.begin() + t * most);
        }
        Numbers q = random_numbers(random, dtype, tokens * heads * width), out(dtype, tokens * heads * latent);
        SparseMla op{
            q.data(), out.data(), dtype, cache.k.data(), 16, cache.blocks.data(), cache.kv.blocks_per_sequence};
        op.sequences = sequences.data(), op.selected = selected.data(), op.counts = counts.data();
        op.tokens = tokens, op.most_selected = most, op.heads = heads, op.latent = latent, op.rope = rope;
        op.scale = 1 / std::sqrt(static_cast<float>(width));
        cpu::Threads threads(2);
        cpu::sparse_mla(op, threads);
        REQUIRE(mismatch(out, reference::sparse_mla(op), latent, mla_tolerance(width, op.scale, most),
                         half_step(dtype)) == "");
        CHECK(core::key(op_of(op)) == "sparse_mla/" + std::string(core::name(dtype)) +
                                          "/tokens=6,selected=130,heads=" + std::to_string(heads) +
                                          ",latent=" + std::to_string(latent) + ",rope_dim=" + std::to_string(rope));
      }
  });
}
