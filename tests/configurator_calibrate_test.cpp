#include <doctest/doctest.h>

#include <cmath>

#include "configurator/calibrate.h"
#include "configurator/predict.h"
#include "core/error.h"

using namespace drydock;
using namespace drydock::configurator;

namespace {

Resources& calibrate_resources() {
  static Resources shared;
  return shared;
}

models::Plan plan(int tp, double concurrency, int64_t isl = 2000, int64_t osl = 200) {
  models::Plan p;
  p.model = "Qwen/Qwen3-32B";
  p.precision = "fp8";
  p.backend = models::Backend::vllm;
  models::Pool pool;
  pool.role = models::Role::worker;
  pool.system = "h200_sxm";
  pool.parallelism = {tp, 1, 1, 1, 1};
  pool.max_batch = 512;
  pool.max_tokens = 8192;
  p.pools = {pool};
  p.workload.isl = isl;
  p.workload.osl = osl;
  p.workload.concurrency = concurrency;
  return p;
}

// What a deployment would measure whose arithmetic takes 1.3 times and whose memory 1.2 times as long as we think.
std::vector<MeasuredPoint> measured_elsewhere() {
  const std::vector<simulator::BackendModel> ours = calibrate_resources().backends();
  auto theirs = ours;
  for (auto& b : theirs) b.compute = 1.3, b.bandwidth = 1.2;
  calibrate_resources().set_backends(theirs);
  std::vector<MeasuredPoint> out;
  for (const auto& [tp, users] : {std::pair{1, 4.0}, {1, 32.0}, {2, 8.0}, {4, 64.0}, {8, 16.0}}) {
    MeasuredPoint p{plan(tp, users), 0, 0, std::to_string(out.size()), std::nullopt, 0};
    const auto got = predict(p.plan, calibrate_resources(), Fit::assumed);
    p.ttft_ms = got->ttft_ms.value;
    p.tpot_ms = got->tpot_ms.value;
    out.push_back(p);
  }
  calibrate_resources().set_backends(ours);
  return out;
}

double mean_size(const std::vector<PointError>& errors) {
  double sum = 0;
  for (const PointError& e : errors) sum += std::abs(std::log(e.ttft)) + std::abs(std::log(e.tpot));
  return sum / static_cast<double>(2 * errors.size());
}

constexpr uint8_t kVllm = 1 << static_cast<int>(models::Backend::vllm);

}  // namespace

TEST_CASE("a few points of a deployment move the scales towards the truth, and points left out gain from it") {
  const auto points = measured_elsewhere();
  const auto knobs = user_knobs(kVllm);
  const Calibration c = fit(points, knobs, calibrate_resources());
  REQUIRE(c.values.size() == 4);
  CHECK(c.values[0] > 1.1);  // compute; the prior holds it back from 1.3
  CHECK(c.values[0] < 1.4);
  CHECK(c.values[1] > 1.08);  // bandwidth
  CHECK(c.values[1] < 1.3);
  CHECK(mean_size(c.after) < 0.5 * mean_size(c.before));
  const auto held = left_out(points, knobs, c, calibrate_resources(), 20);
  CHECK(held.size() == points.size());
  CHECK(mean_size(held) < 0.7 * mean_size(c.before));
  for (const auto& b : calibrate_resources().backends()) CHECK(b.compute == 1);  // what was lent is given back
}

TEST_CASE("without a reason the figures stay at their priors") {
  auto points = measured_elsewhere();
  for (MeasuredPoint& p : points) {
    const auto ours = predict(p.plan, calibrate_resources(), Fit::assumed);
    p.ttft_ms = ours->ttft_ms.value;
    p.tpot_ms = ours->tpot_ms.value;
  }
  for (const double value : fit(points, user_knobs(kVllm), calibrate_resources()).values)
    CHECK(value == doctest::Approx(1).epsilon(0.01));
}

TEST_CASE("points that no engine can have produced are told, with the reason") {
  MeasuredPoint p{plan(1, 8), 500, 20, "", std::nullopt, 0};
  CHECK(!why_not_physical(p, 0, calibrate_resources()));
  // 32.8 GB of fp8 weights at 4.8 TB/s are 6.8 ms a step.
  p.tpot_ms = 3;
  REQUIRE(why_not_physical(p, 0, calibrate_resources()));
  CHECK(why_not_physical(p, 0, calibrate_resources())->find("reading weights") != std::string::npos);
  // 64 prompts of 2,000 tokens in half a second: 2 x 32 G FLOP x 128,000 tokens / 0.5 s is eight times an H200's fp8
  // peak.
  MeasuredPoint fast{plan(1, 64, 2000, 2), 480, 20, "", std::nullopt, 0};
  REQUIRE(why_not_physical(fast, 0, calibrate_resources()));
  CHECK(why_not_physical(fast, 0, calibrate_resources())->find("of the GPUs' peak") != std::string::npos);
  // 8 in flight for 500 + 199 x 20 ms are 1.8 requests/s.
  p.tpot_ms = 20;
  CHECK(!why_not_physical(p, 1.8, calibrate_resources()));
  REQUIRE(why_not_physical(p, 5, calibrate_resources()));
  CHECK(why_not_physical(p, 5, calibrate_resources())->find("Little's law") != std::string::npos);
}

TEST_CASE("refused points are not fitted") {
  auto points = measured_elsewhere();
  MeasuredPoint wild = points.front();
  wild.tpot_ms /= 100;
  wild.doubt = "too fast";
  const Calibration without = fit(points, user_knobs(kVllm), calibrate_resources());
  points.push_back(wild);
  const Calibration with = fit(points, user_knobs(kVllm), calibrate_resources());
  for (size_t i = 0; i < with.values.size(); ++i) CHECK(with.values[i] == without.values[i]);
}
