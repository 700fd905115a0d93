#include <doctest/doctest.h>

#include "core/error.h"
#include "kernels/moe.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

struct Routing {
  std::vector<int32_t> experts;
  std::vector<float> weights;
  Route op;

  Routing(Numbers& logits, int64_t tokens, int64_t count, int64_t top_k, bool renormalize)
      : experts(static_cast<size_t>(tokens * top_k), -7), weights(experts.size(), NAN) {
    op = {matrix(logits, tokens, count), experts.data(), weights.data(), top_k, renormalize};
  }
  Routing(const Routing&) = delete;
  Routing& operator=(const Routing&) = delete;
};

void check_routing(Routing& routing) {
  cpu::Threads threads(2);
  cpu::route(routing.op, threads);
  const reference::Routed want = reference::route(routing.op);
  CHECK(routing.experts == want.experts);
  // Every weight is a quotient of exp (2 units each) and a sum of at most 300 of them.
  for (size_t i = 0; i < want.weights.size(); ++i)
    CHECK(std::abs(routing.weights[i] - want.weights[i]) <= 320 * 0x1p-24 * want.weights[i] + 1e-37);
}

}  // namespace

TEST_CASE("routing agrees with the reference") {
  core::Random random(21);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const auto& [tokens, experts, top_k] :
         {std::array<int64_t, 3>{1, 1, 1}, {5, 8, 2}, {7, 256, 8}, {3, 60, 4}, {2, 5, 5}}) {
      for (const bool renormalize : {false, true}) {
        Numbers logits = random_numbers(random, Dtype::fp32, tokens * experts);
        Routing routing(logits, tokens, experts, top_k, renormalize);
        check_routing(routing);
      }
    }
  });
}

TEST_CASE("routing: ties go to the lower index, NaN is chosen last") {
  Numbers logits(Dtype::fp32, 8);  // poison: all NaN
  float* x = static_cast<float*>(logits.data());
  for (const int i : {1, 2, 5}) x[i] = 3;
  x[6] = 2;
  Routing routing(logits, 1, 8, 6, true);
  check_routing(routing);
  CHECK(routing.experts == std::vector<int32_t>{1, 2, 5, 6, 0, 3});
  CHECK(routing.weights[4] == 0);
  CHECK(std::abs(routing.weights[0] - 1 / (3 + std::exp(-1.0))) < 1e-6);
}

TEST_CASE("permute, gather and combine bring every local token back with its weight") {
  core::Random random(22);
  cpu::Threads threads(2);
  for (const int64_t first : {0, 3}) {
    const int64_t tokens = 37, top_k = 3, all_experts = 10, local = first == 0 ? 10 : 4, hidden = 33;
    std::vector<int32_t> experts(tokens * top_k);
    for (int32_t& e : experts) e = static_cast<int32_t>(random.integer(0, all_experts - 1));
    std::vector<int32_t> starts(local + 1, -5), sources(experts.size(), -5), rows(experts.size(), -5);
    cpu::permute({experts.data(), tokens, top_k, first, local, starts.data(), sources.data(), rows.data()});
    const reference::Permuted want =
        reference::permute({experts.data(), tokens, top_k, first, local, nullptr, nullptr, nullptr});
    CHECK(starts == want.starts);
    CHECK(rows == want.rows);
    CHECK(std::equal(want.sources.begin(), want.sources.end(), sources.begin()));

    Numbers in = random_numbers(random, Dtype::bf16, tokens * hidden), sorted(Dtype::bf16, tokens * top_k * hidden);
    const Gather gather{matrix(in, tokens, hidden), matrix(sorted, tokens * top_k, hidden), sources.data(),
                        &starts[local], top_k};
    cpu::gather(gather, threads);
    CHECK(mismatch(sorted, reference::gather(gather), hidden, 0, 0) == "");
    CHECK((starts[local] == tokens * top_k || std::isnan(sorted[starts[local] * hidden])));

    const std::vector<float> weights = random_scales(random, tokens * top_k);
    Numbers out(Dtype::fp32, tokens * hidden);
    const Combine combine{matrix(sorted, starts[local], hidden), matrix(out, tokens, hidden), rows.data(),
                          weights.data(), top_k};
    cpu::combine(combine, threads);
    // Three products and sums of numbers up to 1.
    CHECK(mismatch(out, reference::combine(combine), hidden, 6 * 0x1p-24, 0x1p-24) == "");
  }
}

TEST_CASE("more experts chosen than there are is an error") {
  core::Random random(23);
  cpu::Threads threads(1);
  Numbers logits = random_numbers(random, Dtype::fp32, 4);
  Routing routing(logits, 1, 4, 5, true);
  CHECK_THROWS_AS(cpu::route(routing.op, threads), core::Error);
}
