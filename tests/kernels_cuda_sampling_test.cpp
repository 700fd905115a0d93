#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/cuda/sampling.h"
#include "kernels/reference.h"
#include "tests/simt/on_device.h"
#include "tests/simt/random_numbers.h"

namespace drydock::tests {
namespace {

struct Rows {
  int64_t vocabulary;
  std::vector<float> logits, temperatures, top_p;
  std::vector<int32_t> top_k;
  std::vector<uint64_t> seeds, counters;

  void add(float temperature, int32_t k, float p, uint64_t seed, uint64_t counter) {
    temperatures.push_back(temperature);
    top_k.push_back(k);
    top_p.push_back(p);
    seeds.push_back(seed);
    counters.push_back(counter);
  }
  int64_t count() const { return static_cast<int64_t>(temperatures.size()); }
};

std::vector<int32_t> sampled(const Rows& rows) {
  OnDevice<float> logits(rows.logits), temperatures(rows.temperatures), top_p(rows.top_p);
  OnDevice<int32_t> top_k(rows.top_k), tokens(rows.temperatures.size());
  OnDevice<uint64_t> seeds(rows.seeds), counters(rows.counters);
  kernels::cuda::sample({matrix(logits.data(), rows.count(), rows.vocabulary), temperatures.data(), top_k.data(),
                         top_p.data(), seeds.data(), counters.data(), tokens.data()},
                        nullptr);
  return tokens.read();
}

kernels::Sample on_host(Rows& rows) {
  return {matrix(rows.logits.data(), rows.count(), rows.vocabulary),
          rows.temperatures.data(),
          rows.top_k.data(),
          rows.top_p.data(),
          rows.seeds.data(),
          rows.counters.data(),
          nullptr};
}

// Ties at the edges: logits are multiples of 1/4, so that top-k and top-p cut through equal ones.
Rows tied_rows(int64_t vocabulary) {
  Rows rows{vocabulary, {}, {}, {}, {}, {}, {}};
  uint64_t seed = 1;
  for (const float temperature : {0.0F, 0.5F, 1.0F, 2.0F})
    for (const int32_t k : {0, 1, 7, 50})
      for (const float p : {1.0F, 0.9F, 0.3F}) rows.add(temperature, k, p, seed * 0x9e3779b97f4a7c15U, seed), ++seed;
  rows.logits = random_floats(rows.count() * vocabulary, 41);
  for (float& x : rows.logits) x = std::round(16 * x) / 4;
  rows.logits[3] = NAN;
  rows.logits[4] = -INFINITY;
  return rows;
}

TEST_CASE("sampling draws what the reference draws") {
  in_every_order([] {
    for (const int64_t vocabulary : {int64_t{1}, int64_t{5}, int64_t{100}, int64_t{1500}}) {
      Rows rows = tied_rows(vocabulary);
      const std::vector<int32_t> got = sampled(rows), want = kernels::reference::sample(on_host(rows));
      // Sums in double and in fixed point differ by some 2^-24 of the whole, which moves the draw, in steps of 2^-24,
      // to a neighbour in less than one of 10^5 rows; these seeds have none.
      REQUIRE(got == want);
    }
  });
}

TEST_CASE("sampling follows the reference's chances") {
  Rows rows{8, {}, {}, {}, {}, {}, {}};
  const std::vector<float> logits = {0, 1, 2, 3, 2, 1, 0, -1};
  constexpr int kDraws = 1000;
  for (int i = 0; i < kDraws; ++i) {
    rows.add(1, 5, 0.9F, 7, static_cast<uint64_t>(i));
    rows.logits.insert(rows.logits.end(), logits.begin(), logits.end());
  }
  const std::vector<double> chances = kernels::reference::chances(on_host(rows), 0);
  std::vector<int> counts(8);
  for (const int32_t token : sampled(rows)) ++counts[static_cast<size_t>(token)];
  // 5 standard deviations of a binomial count, sqrt(n p (1 - p)).
  for (size_t i = 0; i < 8; ++i)
    CHECK(std::abs(counts[i] - kDraws * chances[i]) <= 5 * std::sqrt(kDraws * chances[i] * (1 - chances[i])));
}

TEST_CASE("a row of NaN gives its first token") {
  Rows rows{40, std::vector<float>(40, NAN), {}, {}, {}, {}, {}};
  rows.add(1, 5, 0.5F, 1, 1);
  CHECK(sampled(rows) == std::vector<int32_t>{0});
}

TEST_CASE("sampling refuses logits that are not fp32") {
  std::vector<kernels::Bf16> logits(8);
  CHECK_THROWS_AS(kernels::cuda::sample(
                      {matrix(logits.data(), 1, 8), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr}, nullptr),
                  core::Error);
}

}  // namespace
}  // namespace drydock::tests
