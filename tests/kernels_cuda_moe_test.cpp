#include <doctest/doctest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/cuda/moe.h"
#include "kernels/reference.h"
#include "tests/simt/on_device.h"
#include "tests/simt/random_numbers.h"

namespace drydock::tests {
namespace {

using kernels::Bf16;

void test_route(int64_t tokens, int64_t experts, int64_t top_k, bool renormalize) {
  std::vector<float> logits = random_floats(tokens * experts, 31);
  for (float& x : logits) x = std::round(8 * x) / 2;  // many ties
  logits[0] = NAN;
  const kernels::reference::Routed want =
      kernels::reference::route({matrix(logits.data(), tokens, experts), nullptr, nullptr, top_k, renormalize});
  OnDevice<float> device_logits(logits), weights(static_cast<size_t>(tokens * top_k));
  OnDevice<int32_t> chosen(static_cast<size_t>(tokens * top_k));
  kernels::cuda::route(
      {matrix(device_logits.data(), tokens, experts), chosen.data(), weights.data(), top_k, renormalize}, nullptr);
  REQUIRE(chosen.read() == want.experts);
  const std::vector<float> got = weights.read();
  // expf to 2^-22, sums of up to 1024 terms in fp32, of which a warp adds 32 in a chain: below 2^-16.
  for (size_t i = 0; i < got.size(); ++i) REQUIRE(std::abs(got[i] - want.weights[i]) <= 0x1p-16 * want.weights[i]);
}

TEST_CASE("route agrees with the reference, ties and NaN included") {
  in_every_order([] {
    test_route(9, 8, 2, true);
    test_route(3, 128, 8, true);
    test_route(2, 256, 8, false);
    test_route(2, 1000, 6, true);
    test_route(1, 5, 5, false);
  });
}

void test_permute(int64_t tokens, int64_t top_k, int64_t experts, int64_t first, int64_t local) {
  std::vector<int32_t> chosen;
  for (const float x : random_floats(tokens * top_k, 32))
    chosen.push_back(static_cast<int32_t>((x + 1) / 2 * static_cast<float>(experts)));
  kernels::Permute op{chosen.data(), tokens, top_k, first, local, nullptr, nullptr, nullptr};
  const kernels::reference::Permuted want = kernels::reference::permute(op);
  OnDevice<int32_t> device_chosen(chosen), starts(static_cast<size_t>(local + 1)), sources(chosen.size()),
      rows(chosen.size());
  op = {device_chosen.data(), tokens, top_k, first, local, starts.data(), sources.data(), rows.data()};
  const size_t bytes = kernels::cuda::permute_workspace_bytes(op);
  OnDevice<int32_t> counts(bytes / sizeof(int32_t));
  kernels::cuda::permute(op, {nullptr, counts.data(), bytes}, nullptr);
  REQUIRE(starts.read() == want.starts);
  std::vector<int32_t> filled = sources.read();
  filled.resize(want.sources.size());
  REQUIRE(filled == want.sources);
  REQUIRE(rows.read() == want.rows);
}

TEST_CASE("permute sorts by expert, stably") {
  in_every_order([] {
    test_permute(1, 2, 8, 0, 8);
    test_permute(100, 2, 8, 0, 8);
    test_permute(700, 8, 128, 32, 32);  // several blocks; a quarter of the experts is local
    test_permute(64, 6, 160, 0, 160);
    test_permute(5, 1, 4, 4, 2);  // none is local
  });
}

TEST_CASE("gather and combine agree with the reference") {
  in_every_order([] {
    for (const int64_t hidden : {int64_t{64}, int64_t{2056}, int64_t{77}}) {
      const int64_t tokens = 5, top_k = 2;
      const std::vector<int32_t> sources = {1, 4, 9, 2, 7, 0}, rows = {5, 0, 3, -1, 1, -1, -1, 4, -1, 2};
      std::vector<Bf16> x = random_bf16(tokens * hidden, 33), y = random_bf16(6 * hidden, 34);
      std::vector<float> weights = random_floats(tokens * top_k, 35);
      const int32_t count = 6;
      kernels::Gather gather{matrix(x.data(), tokens, hidden), matrix(y.data(), 10, hidden), sources.data(), &count,
                             top_k};
      const std::vector<double> want_rows = kernels::reference::gather(gather);
      kernels::Combine combine{matrix(y.data(), 6, hidden), matrix(x.data(), tokens, hidden), rows.data(),
                               weights.data(), top_k};
      const std::vector<double> want_sums = kernels::reference::combine(combine);
      OnDevice<Bf16> device_x(x), device_y(y), gathered(static_cast<size_t>(10 * hidden)), sums(x.size());
      OnDevice<int32_t> device_sources(sources), device_rows(rows), device_count(std::vector<int32_t>{count});
      OnDevice<float> device_weights(weights);
      kernels::cuda::gather({matrix(device_x.data(), tokens, hidden), matrix(gathered.data(), 10, hidden),
                             device_sources.data(), device_count.data(), top_k},
                            nullptr);
      kernels::cuda::combine({matrix(device_y.data(), 6, hidden), matrix(sums.data(), tokens, hidden),
                              device_rows.data(), device_weights.data(), top_k},
                             nullptr);
      const std::vector<Bf16> got_rows = gathered.read(), got_sums = sums.read();
      for (size_t i = 0; i < want_rows.size(); ++i) REQUIRE(kernels::to_float(got_rows[i]) == want_rows[i]);
      for (size_t i = want_rows.size(); i < got_rows.size(); ++i) REQUIRE(got_rows[i].bits == 0);
      // bf16: half a step is 2^-9 of the number.
      for (size_t i = 0; i < want_sums.size(); ++i)
        REQUIRE(std::abs(kernels::to_float(got_sums[i]) - want_sums[i]) <= std::abs(want_sums[i]) / 256 + 1e-6);
    }
  });
}

TEST_CASE("routing refuses shapes that it does not know") {
  std::vector<float> logits(2048);
  CHECK_THROWS_AS(kernels::cuda::route({matrix(logits.data(), 1, 2048), nullptr, nullptr, 2, true}, nullptr),
                  core::Error);
  CHECK_THROWS_AS(kernels::cuda::route({matrix(logits.data(), 1, 4), nullptr, nullptr, 5, true}, nullptr), core::Error);
  CHECK_THROWS_AS(kernels::cuda::permute({nullptr, 4, 2, 0, 8, nullptr, nullptr, nullptr}, {}, nullptr), core::Error);
}

}  // namespace
}  // namespace drydock::tests
