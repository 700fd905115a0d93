#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "simulator/metrics.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

RequestRecord record(double arrival_us, double first_us, double last_us, int64_t output) {
  RequestRecord r;
  r.arrival_us = arrival_us;
  r.started_us = arrival_us;
  r.first_us = first_us;
  r.last_us = last_us;
  r.prompt_tokens = 10;
  r.output_tokens = output;
  return r;
}

}  // namespace

TEST_CASE("a histogram's quantiles are within 1 % of the values'") {
  core::Random random(1);
  for (const double cv : {0.1, 1.0, 5.0}) {
    LogHistogram h;
    std::vector<double> values;
    for (int i = 0; i < 20'000; ++i) values.push_back(random.lognormal(20, cv)), h.add(values.back());
    std::sort(values.begin(), values.end());
    for (const double q : {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      const double want = values[static_cast<size_t>(std::ceil(q * 20'000)) - 1];
      CHECK(std::abs(h.quantile(q) / want - 1) < 0.01);  // half of a bucket 2 % wide
    }
    CHECK(h.most() == values.back());
    CHECK(h.count() == 20'000);
  }
}

TEST_CASE("histograms merge in any order") {
  core::Random random(2);
  LogHistogram parts[3], all, forth, back;
  for (int i = 0; i < 3000; ++i) {
    const double value = random.exponential(7), count = 1 + i % 4;
    parts[i % 3].add(value, count);
    all.add(value, count);
  }
  for (int i = 0; i < 3; ++i) forth.merge(parts[i]), back.merge(parts[2 - i]);
  for (const double q : {0.0, 0.25, 0.5, 0.95, 1.0}) {
    CHECK(forth.quantile(q) == back.quantile(q));
    CHECK(forth.quantile(q) == all.quantile(q));
  }
  CHECK(forth.count() == all.count());
  CHECK(forth.mean() == doctest::Approx(all.mean()));
  CHECK(LogHistogram().quantile(0.5) == 0);
  LogHistogram empty;
  empty.merge(LogHistogram());
  CHECK(empty.count() == 0);
}

TEST_CASE("quantiles of a few values, as numpy has them") {
  std::vector<double> v{40, 10, 30, 20};
  CHECK(quantile(v, 0) == 10);
  CHECK(quantile(v, 1) == 40);
  CHECK(quantile(v, 0.5) == 25);                   // at 1.5 of 0..3
  CHECK(quantile(v, 0.9) == doctest::Approx(37));  // at 2.7
  CHECK(quantile(v, 0.25) == 17.5);
  std::vector<double> one{5}, none;
  CHECK(quantile(one, 0.99) == 5);
  CHECK(quantile(none, 0.5) == 0);
}

TEST_CASE("batch means cover the true mean about 95 times in 100") {
  // Of 400 seeds a binomial number covers: 380 expected, standard deviation 4.4; exponential values in batches of 50
  // are close to normal and lose under 1 %. 18 = 4 standard deviations.
  int covered = 0, quantiles = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    core::Random random(seed);
    std::vector<double> values(1000);
    for (double& v : values) v = random.exponential(3);
    const Distribution d = distribution(values);
    covered += std::abs(d.mean - 3) <= d.mean_half_width;
    quantiles += std::abs(d.p50 - 3 * std::log(2)) <= quantile_half_width(values, 0.5);
  }
  CHECK(std::abs(covered - 378) <= 18);
  CHECK(std::abs(quantiles - 378) <= 18);
}

TEST_CASE("too few values have no interval") {
  CHECK(mean_half_width(std::vector<double>(39, 1.0)) == 0);
  CHECK(quantile_half_width(std::vector<double>(399, 1.0), 0.5) == INFINITY);
  CHECK(distribution({}).count == 0);
}

TEST_CASE("the client's view of a request") {
  Recorder::Options options;
  options.client = {5, 1};
  const auto r = record(1000, 11'000, 31'000, 11);
  Recorder plain(options);
  CHECK(plain.ttft_ms_of(r) == doctest::Approx(10 + 5));
  CHECK(plain.tpot_ms_of(r) == doctest::Approx(2));  // 20 ms for ten steps
  options.client.stream_interval = 3;
  Recorder chunks(options);
  // The first chunk comes with its third token, two steps of 2 ms later; 16 ms are left for ten steps.
  CHECK(chunks.ttft_ms_of(r) == doctest::Approx(15 + 4));
  CHECK(chunks.tpot_ms_of(r) == doctest::Approx(1.6));
  CHECK(plain.tpot_ms_of(record(0, 10, 10, 1)) == 0);
}

TEST_CASE("answers of one token have no time per output token") {
  Recorder recorder({});
  recorder.done(record(0, 10, 10, 1));
  recorder.done(record(0, 10, 3010, 2));
  CHECK(recorder.ttft_ms().size() == 2);
  REQUIRE(recorder.tpot_ms().size() == 1);
  CHECK(recorder.tpot_ms().front() == doctest::Approx(3));
}

TEST_CASE("lost, rejected and warm-up requests are not among the figures") {
  Recorder recorder({});
  auto r = record(0, 10, 20, 3);
  recorder.done(r);
  r.lost = true;
  recorder.done(r);
  r.lost = false, r.rejected = true;
  recorder.done(r);
  r.rejected = false, r.warmup = true;
  recorder.done(r);
  CHECK(recorder.requests() == 1);
  CHECK(recorder.output_tokens() == 3);
  CHECK(recorder.good() == 1);
}

// Hopeless: the quantile's lower neighbour among the sorted values is late, whatever is still to come. With n requests
// and k = floor(q (n - 1)) that is so from the (n - k)th late one on.
TEST_CASE("hopeless is never wrong and never late") {
  int cases = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    core::Random random(seed);
    const int64_t n = random.integer(1, 200);
    Recorder::Options options;
    options.targets.ttft_ms = 10;
    options.targets.quantile = static_cast<double>(random.integer(0, 100)) * 0.01;
    options.expected_requests = n;
    Recorder recorder(options);
    const double late_share = random.uniform() * 0.3;
    const auto k = static_cast<int64_t>(*options.targets.quantile * static_cast<double>(n - 1));
    int64_t late = 0;
    bool said = false;
    for (int64_t i = 0; i < n; ++i) {
      const bool is_late = random.uniform() < late_share, lost = random.uniform() < 0.02;
      auto r = record(0, is_late ? 20'000 : 5000, 30'000, 2);
      r.lost = lost;
      recorder.done(r);
      late += is_late && !lost;
      CHECK(recorder.hopeless() == (late >= n - k));
      CHECK(recorder.enough() == recorder.hopeless());
      said |= recorder.hopeless();
    }
    cases += said;
    std::vector<double> values = recorder.ttft_ms();
    if (said) CHECK(quantile(values, *options.targets.quantile) > 10);
  }
  CHECK(cases > 50);
}

TEST_CASE("looking at requests in flight is never wrong either, and sees a miss sooner") {
  int said_early = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    core::Random random(seed);
    const int64_t n = random.integer(2, 100);
    Recorder::Options options;
    options.client = {2, random.integer(1, 8)};
    options.targets = {10 + 20 * random.uniform(), 1 + random.uniform(), 50 + 100 * random.uniform(),
                       0.5 + 0.49 * random.uniform()};
    options.expected_requests = n;
    std::vector<RequestRecord> all;
    for (int64_t i = 0; i < n; ++i) {
      const double at_us = random.uniform() * 1e5, first_us = at_us + random.exponential(1e4);
      const int64_t output = random.integer(1, 60);
      const double step_us = 500 + random.exponential(500);
      all.push_back(record(at_us, first_us, first_us + step_us * static_cast<double>(output - 1), output));
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.last_us < b.last_us; });
    Recorder looking(options), waiting(options);
    for (const RequestRecord& r : all) {
      const double now_us = r.last_us;
      looking.begin_look();
      for (RequestRecord other : all) {
        if (other.arrival_us > now_us || other.last_us < now_us) continue;
        if (other.first_us > now_us) other.first_us = -1;
        other.last_us = 0;
        looking.look(other, now_us);
      }
      const bool before = looking.hopeless();
      said_early += looking.end_look() && !before && !waiting.hopeless();
      looking.done(r);
      waiting.done(r);
    }
    std::vector<double> ttft = waiting.ttft_ms(), tpot = waiting.tpot_ms(), latency = waiting.latency_ms();
    const Targets& t = options.targets;
    const bool missed = quantile(ttft, *t.quantile) > *t.ttft_ms || quantile(tpot, *t.quantile) > *t.tpot_ms ||
                        quantile(latency, *t.quantile) > *t.latency_ms;
    if (looking.hopeless() || looking.enough()) CHECK(missed);
    if (waiting.hopeless()) CHECK(looking.enough());
  }
  CHECK(said_early > 20);
}

TEST_CASE("a recorder that wants some precision stops when it has it") {
  Recorder::Options options;
  options.precision = 0.02;
  Recorder recorder(options);
  core::Random random(1);
  int64_t i = 0;
  while (!recorder.enough() && i < 1'000'000) recorder.done(record(0, random.exponential(1e4), 1e6, 10)), ++i;
  // Half-width 1.96 / sqrt(n) = 0.02 takes about 9600 values; it looks at 1000 and then half as many again each time.
  CHECK(i > 4000);
  CHECK(i < 40'000);
  CHECK(mean_half_width(recorder.ttft_ms()) <= 0.02 * distribution(recorder.ttft_ms()).mean);
}
