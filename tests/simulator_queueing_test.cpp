#include <doctest/doctest.h>

#include <functional>

#include "models/catalogue.h"
#include "simulator/cluster.h"
#include "simulator/metrics.h"
#include "simulator/simulation.h"
#include "tests/effort.h"
#include "tests/simulator_bed.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

// A prompt token takes 1 us, a step of decode 100 us, whatever the batch.
struct ServicePrice : StepPrice {
  RankStep rank_step(const StepWork& work, double) override {
    RankStep out;
    out.own_us = work.decodes > 0 ? 100 : 0;
    out.has_prompts = !work.prompts.empty();
    for (const auto& c : work.prompts) out.own_us += static_cast<double>(c.tokens);
    return out;
  }
  StepLine line(std::span<const RankStep> ranks) override {
    return {ranks.front().own_us, 0, ranks.front().has_prompts ? 1 : INT64_MAX};
  }
};

// Poisson arrivals of mean gap 1 / `per_us`, with lengths from a rule.
class PoissonLoad : public Load {
 public:
  using Lengths = std::function<RequestLengths(core::Random&)>;
  PoissonLoad(double per_us, int64_t requests, Lengths lengths, uint64_t seed)
      : per_us_(per_us), left_(requests), lengths_(std::move(lengths)), random_(seed), sizes_(seed, 1) {
    at_us_ = random_.exponential(1 / per_us_);
  }
  double next_us() const override { return left_ > 0 ? at_us_ : kNever; }
  bool done() const override { return left_ == 0; }
  Arrival take() override {
    const RequestLengths l = lengths_(sizes_);
    const double at_us = at_us_;
    at_us_ += random_.exponential(1 / per_us_);
    --left_;
    return ask(at_us, l.prompt_tokens, l.output_tokens);
  }

 private:
  double per_us_, at_us_ = 0;
  int64_t left_;
  Lengths lengths_;
  core::Random random_, sizes_;
};

struct Waits : Observer {
  std::vector<double> waits_us, latencies_us;
  void done(const RequestRecord& r) override {
    waits_us.push_back(r.started_us - r.arrival_us);
    latencies_us.push_back(r.last_us - r.arrival_us);
  }
};

constexpr int64_t kRequests = 200'000 / drydock::tests::kLighter;
// Of the interval's half-width, as a share of the figure; it goes with the root of the number of requests.
const double kNarrow = 0.1 * std::sqrt(2.0 * drydock::tests::kLighter - 1);

Waits serve(scheduler::Policy policy, double per_us, PoissonLoad::Lengths lengths, uint64_t seed = 1) {
  ServicePrice price;
  ClusterSpec spec;
  spec.pools = {pool_of(Stage::whole, policy, price, 1, 1 << 20)};
  PoissonLoad load(per_us, kRequests, std::move(lengths), seed);
  Waits waits;
  CHECK(Cluster(spec).run(load, waits).unfinished == 0);
  return waits;
}

// One server: prompts of any length, one after the other.
Waits one_server(double per_us, std::function<double(core::Random&)> service_us) {
  return serve(scheduler::vllm(scheduler::kUnbounded, 1), per_us, [service_us](core::Random& random) {
    return RequestLengths{std::max<int64_t>(1, std::llround(service_us(random))), 1};
  });
}

// Law's batch means give 95 %; twice the interval is about 4 standard errors of the 20 batches.
void check_mean(const std::vector<double>& values, double want) {
  const Distribution d = distribution(values);
  CAPTURE(d.mean);
  CAPTURE(d.mean_half_width);
  CHECK(std::abs(d.mean - want) < 2 * d.mean_half_width);
  CHECK(d.mean_half_width < kNarrow * want);  // or it would say little
}

}  // namespace

// Mean service 10,000 us in whole us: rounding changes the mean of an exponential by 1e-9 of itself and its second
// moment by 1e-9, far below the interval.
TEST_CASE("M/M/1: mean wait rho / (1 - rho) services, and its 95th percentile") {
  for (const double rho : {0.5, 0.8}) {
    CAPTURE(rho);
    const Waits w = one_server(rho / 1e4, [](core::Random& r) { return r.exponential(1e4); });
    check_mean(w.waits_us, rho / (1 - rho) * 1e4);
    check_mean(w.latencies_us, 1e4 / (1 - rho));
    // P(W > t) = rho e^(-(1 - rho) t / s).
    std::vector<double> waits = w.waits_us;
    const double want = std::log(rho / 0.05) / (1 - rho) * 1e4;
    CHECK(std::abs(quantile(waits, 0.95) - want) < 2 * quantile_half_width(w.waits_us, 0.95));
    CHECK(quantile_half_width(w.waits_us, 0.95) < kNarrow * want);
  }
}

TEST_CASE("M/D/1: half the wait of M/M/1") {
  check_mean(one_server(0.8 / 1e4, [](core::Random&) { return 1e4; }).waits_us, 0.8 / 0.2 / 2 * 1e4);
}

TEST_CASE("M/G/1: Pollaczek and Khinchine's wait, rho (1 + cv^2) / (2 (1 - rho)) services") {
  const Waits even = one_server(0.7 / 1e4, [](core::Random& r) { return 2e4 * r.uniform(); });
  check_mean(even.waits_us, 0.7 * (1 + 1.0 / 3) / 2 / 0.3 * 1e4);
  const Waits two = one_server(0.6 / 1e4, [](core::Random& r) { return r.uniform() < 0.9 ? 2e3 : 82e3; });
  // Mean 0.9 x 2 + 0.1 x 82 = 10 ms; second moment 0.9 x 4 + 0.1 x 6724 = 676 ms^2: 1 + cv^2 = 6.76.
  check_mean(two.waits_us, 0.6 * 6.76 / 2 / 0.4 * 1e4);
}

// c slots; a request runs a geometric number of steps of 100 us, 100 on average, its prompt of 1 token takes 1 us.
// Steps start together, so a request waits for the end of the step under way: 0 to 100 us, and its slot is free up to
// then. Service has cv^2 = 1 - 1/100, and prompts lengthen others' steps by 1 us each: rho grows by at most
// c x 1 / 10,000. Together the wait of Erlang's formula is off by at most 100 us + (1 % + 2 % / (1 - rho)) of itself.
TEST_CASE("M/M/c: Erlang's wait") {
  constexpr int c = 8;
  const double rho = 0.85, service_us = 1e4;
  const Waits w = serve(scheduler::vllm(scheduler::kUnbounded, c), rho * c / service_us, [](core::Random& random) {
    const auto steps = 1 + static_cast<int64_t>(std::log(1 - random.uniform()) / std::log1p(-0.01));
    return RequestLengths{1, 1 + steps};
  });
  double term = 1, sum = 0;
  for (int k = 0; k < c; ++k) sum += term, term *= rho * c / (k + 1);
  const double queued = term / (1 - rho) / (sum + term / (1 - rho));
  const double want = queued * service_us / (c * (1 - rho));
  const Distribution d = distribution(w.waits_us);
  CAPTURE(d.mean);
  CAPTURE(want);
  CHECK(std::abs(d.mean - want) < 2 * d.mean_half_width + 100 + (0.01 + 0.02 / (1 - rho)) * want);
  CHECK(d.mean_half_width < kNarrow * want);
}

TEST_CASE("above capacity the queue grows evenly, and the run ends") {
  const Waits w = one_server(1.25 / 1e4, [](core::Random& r) { return r.exponential(1e4); });
  // Of n requests the last arrives at n x 8 ms and starts at n x 10 ms; the error of both is sqrt(n) x 10 ms.
  const double n = kRequests, error = 5 * 1e4 * std::sqrt(2 * n);
  CHECK(std::abs(w.waits_us.back() - n * 2e3) < error);
  CHECK(std::abs(w.waits_us[kRequests / 2] - n * 1e3) < error);
}

TEST_CASE("simulate() says which rates are more than a deployment can do") {
  const auto architecture = models::find_model("meta-llama/Llama-3.1-70B");
  const auto precision = models::choose_precision(architecture, "fp8");
  const auto system = models::find_system("h200_sxm");
  const perfdb::KernelTimes times(system.hardware);
  const BackendModel backend;
  const Engine engine(architecture, precision, {8, 1, 1, 1, 1}, system, times, backend, 8192);
  Deployment deployment;
  deployment.parts = {{&engine, models::Role::worker, 1, 64}};
  models::Workload w;
  w.isl = 1000;
  w.osl = 200;
  const auto at_rate = [&](double per_s) {
    w.rate = per_s;
    LoadOptions options;
    options.requests = 2000;
    const auto load = load_of(w, 0, options);
    Recorder recorder({});
    return simulate(deployment, w, {}, *load, recorder);
  };
  // What it can do at most, from a load far above.
  const Simulated over = at_rate(1e4);
  CHECK(over.saturated);
  CHECK(over.totals.unfinished == 0);
  const double most = over.totals.end_us > 0 ? 2000 / (over.totals.end_us * 1e-6) : 0;
  CHECK(at_rate(1.5 * most).saturated);
  const Simulated under = at_rate(0.5 * most);
  CHECK(!under.saturated);
  CHECK(under.output_tokens_per_s == doctest::Approx(0.5 * most * 200).epsilon(0.1));  // 2000 Poisson gaps: 2.2 %
}
