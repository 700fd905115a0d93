#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "perfdb/fit.h"

namespace drydock::perfdb {
namespace {

core::Hardware machine() {
  core::Hardware hardware;
  hardware.name = "test";
  hardware.architecture = "hopper";
  hardware.memory_bytes_per_s = 4e12;
  hardware.flops_per_s[static_cast<size_t>(core::Dtype::bf16)] = 1e15;
  hardware.nvlink_bytes_per_s = 4e11;
  hardware.nvlink_domain = 8;
  return hardware;
}

// Times that are baseline x exp(0.05 log2 m - 0.03 log2 n): linear in the coordinates, so a lattice can meet them.
std::vector<Sample> linear_samples() {
  std::vector<Sample> samples;
  for (int64_t m = 1; m <= 4096; m *= 2)
    for (int64_t n = 256; n <= 8192; n *= 2)
      for (int64_t k = 256; k <= 8192; k *= 2) {
        const core::Op op = core::make_op(core::OpKind::gemm, core::Dtype::bf16, core::Dtype::bf16, {m, n, k});
        const double log_ratio = 0.05 * std::log2(m) - 0.03 * std::log2(n);
        samples.push_back({op, baseline_us(op, machine()) * std::exp(log_ratio)});
      }
  return samples;
}

double median_size(const FitReport& report) {
  std::vector<double> sizes;
  for (const float error : report.log_errors) sizes.push_back(std::abs(error));
  std::nth_element(sizes.begin(), sizes.begin() + sizes.size() / 2, sizes.end());
  return sizes[sizes.size() / 2];
}

}  // namespace

TEST_CASE("a fit predicts held-out shapes of a smooth law") {
  const FitResult result = fit_surfaces(linear_samples(), machine(), "engine", "1.0");
  REQUIRE(result.surfaces.size() == 1);
  CHECK(result.surfaces[0].system == "test");
  CHECK(result.surfaces[0].backend == "engine");
  CHECK(result.surfaces[0].variant == "0,0,0");
  CHECK(result.reports[0].samples == 13 * 6 * 6);
  // The penalty on slopes, 4e-4 against 1 a sample, pulls a missing knot by well under 0.01 from the plane.
  CHECK(median_size(result.reports[0]) < 0.01);
  const Surface surface = decode(result.surfaces[0].body, "test");
  const core::Op between = core::make_op(core::OpKind::gemm, core::Dtype::bf16, core::Dtype::bf16, {96, 3000, 700});
  const double want = 0.05 * std::log2(96.0) - 0.03 * std::log2(3000.0);
  CHECK(std::abs(evaluate(surface, coordinates(between)).log_ratio - want) < 0.01);
}

TEST_CASE("a fit does not depend on the order of the samples") {
  std::vector<Sample> samples = linear_samples();
  const FitResult first = fit_surfaces(samples, machine(), "engine", "1.0");
  std::shuffle(samples.begin(), samples.end(), std::mt19937(7));
  const FitResult second = fit_surfaces(samples, machine(), "engine", "1.0");
  CHECK(first.surfaces[0].body == second.surfaces[0].body);
}

TEST_CASE("a few odd rows do not bend the surface") {
  std::vector<Sample> samples = linear_samples();
  for (size_t i = 0; i < samples.size(); i += 50) samples[i].latency_us *= 8;
  const FitResult result = fit_surfaces(samples, machine(), "engine", "1.0");
  // An unweighted fit would be off by some of ln 8 = 2.08 around each odd row; the weight of one falls to about 1/100.
  CHECK(median_size(result.reports[0]) < 0.02);
}

TEST_CASE("the bands hold four of five held-out rows") {
  std::vector<Sample> samples = linear_samples();
  std::mt19937 generator(3);
  std::normal_distribution<double> noise(0, 0.05);
  for (Sample& sample : samples) sample.latency_us *= std::exp(noise(generator));
  const FitResult result = fit_surfaces(samples, machine(), "engine", "1.0");
  // 468 rows: three standard deviations of a share of 0.8 are 0.055; the deciles of 117 rows a band add as much.
  CHECK(result.reports[0].covered > 0.70);
  CHECK(result.reports[0].covered < 0.90);
}

TEST_CASE("a step between neighbouring sizes of m is kept") {
  std::vector<Sample> samples;
  for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 65, 96, 128, 129, 192, 256})
    for (int64_t n = 256; n <= 8192; n *= 2)
      for (int64_t k = 256; k <= 8192; k *= 2) {
        const core::Op op = core::make_op(core::OpKind::gemm, core::Dtype::bf16, core::Dtype::bf16, {m, n, k});
        samples.push_back({op, baseline_us(op, machine()) * (m > 64 ? 1.5 : 1.0)});
      }
  const FitResult result = fit_surfaces(samples, machine(), "engine", "1.0");
  const Surface surface = decode(result.surfaces[0].body, "test");
  const auto ratio = [&](int64_t m) {
    const core::Op op = core::make_op(core::OpKind::gemm, core::Dtype::bf16, core::Dtype::bf16, {m, 1024, 1024});
    return evaluate(surface, coordinates(op)).log_ratio;
  };
  // ln 1.5 = 0.405 within one row of m; second differences of weight 0.01 round the corners a little.
  CHECK(ratio(65) - ratio(64) > 0.35);
  CHECK(std::abs(ratio(32)) < 0.05);
}

TEST_CASE("chunks after cached tokens have an axis of their own, where there are samples of them") {
  // Short chunks are slower than whole prompts of as many keys a query: exp(0.3) for each octave of context before.
  const auto law = [](const core::Op& op) {
    const double octaves = std::log2(1 + 2.0 * static_cast<double>(op.shape[2]) / static_cast<double>(op.shape[1]));
    return baseline_us(op, machine()) * std::exp(0.3 * octaves);
  };
  const auto chunk = [](int64_t fresh, int64_t cached) {
    return core::make_op(core::OpKind::prefill_attention, core::Dtype::bf16, core::Dtype::bf16,
                         {1, fresh, cached, 8, 2, 128, 0});
  };
  std::vector<Sample> whole, all;
  for (int64_t fresh = 64; fresh <= 8192; fresh *= 2) {
    for (const int64_t length : {fresh, fresh + fresh / 2}) whole.push_back({chunk(length, 0), law(chunk(length, 0))});
    for (int64_t cached = 512; cached <= 16384; cached *= 2)
      all.push_back({chunk(fresh, cached), law(chunk(fresh, cached))});
  }
  all.insert(all.end(), whole.begin(), whole.end());
  const Surface without = decode(fit_surfaces(whole, machine(), "engine", "1.0").surfaces[0].body, "test");
  const Surface with = decode(fit_surfaces(all, machine(), "engine", "1.0").surfaces[0].body, "test");
  CHECK(without.axes == 4);  // as surfaces were before there was the axis
  CHECK(with.axes == 5);
  const auto miss = [&](const Surface& surface, const core::Op& op) {
    return evaluate(surface, coordinates(op)).log_ratio - std::log(law(op) / baseline_us(op, machine()));
  };
  // 1 + 2 * 3000 / 300 = 21 is 4.39 octaves: 1.32 of the logarithm, of which whole prompts know nothing.
  CHECK(std::abs(miss(without, chunk(300, 3000))) > 1.2);
  CHECK(std::abs(miss(with, chunk(300, 3000))) < 0.05);
  // Whole prompts are answered as before.
  CHECK(std::abs(miss(without, chunk(3000, 0))) < 0.01);
  CHECK(std::abs(miss(with, chunk(3000, 0))) < 0.02);
}

TEST_CASE("few samples, kinds without axes and groups over the network make no surface") {
  std::vector<Sample> samples = linear_samples();
  samples.resize(10);
  for (int64_t tokens = 1; tokens < 100; ++tokens)
    samples.push_back(
        {core::make_op(core::OpKind::index_score, core::Dtype::bf16, core::Dtype::bf16, {1, tokens, 100, 16, 64}),
         2.0});
  for (int64_t bytes = 1; bytes < 100; ++bytes)
    samples.push_back(
        {core::make_op(core::OpKind::all_reduce, core::Dtype::bf16, core::Dtype::bf16, {bytes, 64}), 2.0});
  CHECK(fit_surfaces(samples, machine(), "engine", "1.0").surfaces.empty());
}

TEST_CASE("a variant's text reads back") {
  CHECK(variant_text({7168, 256, 8}) == "7168,256,8");
  CHECK(parse_variant("7168,256,8") == Variant{7168, 256, 8});
  for (const char* wrong : {"", "1,2", "1,2,3,4", "1,2,x", "1;2;3", "-1,2,3", "1,2,99999999999"}) {
    INFO(wrong);
    CHECK_THROWS_AS(parse_variant(wrong), core::Error);
  }
}

}  // namespace drydock::perfdb
