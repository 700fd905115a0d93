#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/random.h"
#include "profiler/statistics.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::profiler;

namespace {

using Series = std::vector<double>;

Series draw(size_t count, uint64_t stream, const std::function<double(core::Random&, size_t)>& one) {
  core::Random random(42, stream);
  Series out;
  for (size_t i = 0; i < count; ++i) out.push_back(one(random, i));
  return out;
}

Series normal(size_t count, uint64_t stream, double noise = 0.01) {
  return draw(count, stream, [&](core::Random& random, size_t) { return 10 * (1 + noise * random.normal()); });
}

// How often a rule holds over many series.
double share(int trials, const std::function<bool(uint64_t)>& holds) {
  int found = 0;
  for (int i = 0; i < trials; ++i) found += holds(static_cast<uint64_t>(i));
  return static_cast<double>(found) / trials;
}

}  // namespace

TEST_CASE("medians and quartiles by hand") {
  CHECK(median(Series{}) == 0);
  CHECK(median(Series{3}) == 3);
  CHECK(median(Series{5, 1, 3}) == 3);
  CHECK(median(Series{4, 1, 3, 2}) == 2.5);
  // 1 2 3 4 5: the quartiles are the second and the fourth; of 1 2 3 4 they lie at 1.75 and 3.25.
  CHECK(interquartile_range(Series{5, 3, 1, 2, 4}) == 2);
  CHECK(interquartile_range(Series{1, 2, 3, 4}) == doctest::Approx(1.5));
  CHECK(quantile(Series{1, 2, 3, 4}, 0) == 1);
  CHECK(quantile(Series{1, 2, 3, 4}, 1) == 4);
}

TEST_CASE("the interval of a median by order statistics") {
  // Of 10: the 2nd and the 9th, since P(0 or 1 heads in 10) = 11/1024, twice that 2.1 %; with the 3rd it is 10.9 %.
  Series ten;
  for (int i = 1; i <= 10; ++i) ten.push_back(i);
  const Interval interval = median_interval(ten);
  CHECK(interval.low == 2);
  CHECK(interval.high == 9);
  CHECK(interval.coverage == doctest::Approx(1 - 22.0 / 1024));
  // Five can't say it with 95 %: the extremes, and 1 - 2 / 32.
  const Interval five = median_interval(Series{5, 4, 3, 2, 1});
  CHECK(five.low == 1);
  CHECK(five.high == 5);
  CHECK(five.coverage == doctest::Approx(0.9375));
  CHECK(median_interval(Series{}).high == 0);
  CHECK(median_interval(Series{7}).low == 7);
}

TEST_CASE("the interval covers the median as often as it says, whatever the distribution") {
  const int trials = 4000 / tests::kLighter;
  // Medians: 10 of the normal; ln 2 of the exponential, which is skewed.
  for (const size_t count : {7, 20, 51}) {
    double claimed = 0;
    const double covered = share(trials, [&](uint64_t i) {
      const Interval interval = median_interval(normal(count, i));
      claimed = interval.coverage;
      return interval.low <= 10 && 10 <= interval.high;
    });
    const double skewed = share(trials, [&](uint64_t i) {
      const Interval interval =
          median_interval(draw(count, i, [](core::Random& random, size_t) { return random.exponential(1); }));
      return interval.low <= std::log(2.0) && std::log(2.0) <= interval.high;
    });
    // Four standard deviations of a share of 0.95 over the trials.
    const double tolerance = 4 * std::sqrt(0.05 * 0.95 / trials);
    CHECK(claimed >= 0.95);
    CHECK(std::abs(covered - claimed) < tolerance);
    CHECK(std::abs(skewed - claimed) < tolerance);
  }
}

TEST_CASE("outliers go, a long series of equal ones stays") {
  // Median 10, MAD 1: the limit is 6 x 1.4826 = 8.9.
  CHECK(without_outliers(Series{9, 10, 11, 18.8, 1.2, 10}).size() == 6);
  CHECK(without_outliers(Series{9, 10, 11, 30, 9, 11, 10}).size() == 6);
  CHECK(without_outliers(Series{5, 5, 5, 5, 6}).size() == 5);
  const Summary s = summarize(Series{9, 10, 11, 30, 9, 11, 10});
  CHECK(s.outliers == 1);
  CHECK(s.samples == 6);
  CHECK(s.median == 10);
}

TEST_CASE("drift is found, noise is not") {
  // Of three values that rise: S = 3, variance 3 * 2 * 11 / 18; too few to tell.
  CHECK(trend(Series{1, 2, 3}) == 0);
  // Ten that rise: S = 45, variance 10 * 9 * 25 / 18 = 125, z = 44 / sqrt(125).
  Series rising;
  for (int i = 0; i < 10; ++i) rising.push_back(i);
  CHECK(trend(rising) == doctest::Approx(44 / std::sqrt(125.0)));
  std::reverse(rising.begin(), rising.end());
  CHECK(trend(rising) == doctest::Approx(-44 / std::sqrt(125.0)));
  CHECK(trend(Series(20, 1.0)) == 0);
  const int trials = 1000 / tests::kLighter;
  // One in 1000 by chance; the shift of 1 % makes it rarer. 6 in 1000 has a probability below 1e-4 at 1 in 1000.
  CHECK(share(trials, [](uint64_t i) { return drifts(normal(60, i)); }) <= 0.005);
  // 6 % over the series under 1 % of noise.
  CHECK(share(trials, [](uint64_t i) {
          return drifts(draw(60, i, [](core::Random& random, size_t n) {
            return 10 * (1 + 0.001 * static_cast<double>(n) + 0.01 * random.normal());
          }));
        }) >= 0.99);
}

TEST_CASE("two modes are found, one is not") {
  const int trials = 1000 / tests::kLighter;
  CHECK(!is_bimodal(Series{1, 1, 1, 2, 2, 2}));
  CHECK(!is_bimodal(Series(50, 3.0)));
  CHECK(share(trials, [](uint64_t i) { return is_bimodal(normal(60, i)); }) <= 0.005);
  CHECK(share(trials, [](uint64_t i) { return is_bimodal(normal(16, i)); }) <= 0.02);
  // Skewed and long-tailed, as timings are.
  CHECK(share(trials, [](uint64_t i) {
          return is_bimodal(draw(60, i, [](core::Random& random, size_t) { return 10 + random.lognormal(0.1, 1.0); }));
        }) <= 0.01);
  // A third of the samples 8 % slower, noise 1 %: the cut leaves 1 / (1 + 2/9 * 64) = 7 % of the variance.
  CHECK(share(trials, [](uint64_t i) {
          return is_bimodal(draw(60, i, [](core::Random& random, size_t n) {
            return (n % 3 == 0 ? 10.8 : 10.0) * (1 + 0.01 * random.normal());
          }));
        }) >= 0.99);
  // Two modes within 2 % of one another matter to nobody.
  CHECK(!is_bimodal(draw(60, 0, [](core::Random& random, size_t n) {
    return (n % 2 == 0 ? 10.1 : 10.0) * (1 + 0.0001 * random.normal());
  })));
}

TEST_CASE("sampling stops at the noise, the time or the number") {
  StopRule rule;
  rule.noise = 0.005;
  rule.most_seconds = 1;
  rule.least_samples = 7;
  rule.most_samples = 50;
  CHECK(!is_enough(Series{}, 100, rule));
  CHECK(!is_enough(Series{10, 10, 10, 10, 10, 10}, 0.1, rule));  // even if equal: too few
  CHECK(is_enough(Series{10, 10, 10, 10, 10, 10, 10}, 0.1, rule));
  CHECK(is_enough(Series{10}, 1.5, rule));  // a slow op
  // Of 7 the interval is from the least to the largest: 10 .. 10.2 is 1 % of half-width.
  CHECK(!is_enough(Series{10, 10.2, 10, 10.1, 10.1, 10.1, 10.1}, 0.1, rule));
  CHECK(is_enough(Series{10, 10.2, 10, 10.1, 10.1, 10.1, 10.1}, 1.0, rule));
  CHECK(is_enough(normal(50, 1, 0.1), 0.1, rule));
  rule.least_seconds = 0.5;
  CHECK(!is_enough(Series{10, 10, 10, 10, 10, 10, 10}, 0.1, rule));
  CHECK(is_enough(Series{10, 10, 10, 10, 10, 10, 10}, 0.6, rule));
}

TEST_CASE("what the rule stops at is as precise as it claims") {
  StopRule rule;
  rule.most_samples = 2000;
  const int trials = 300 / tests::kLighter;
  double squares = 0;
  for (int i = 0; i < trials; ++i) {
    core::Random random(9, static_cast<uint64_t>(i));
    Series samples;
    while (!is_enough(samples, 0, rule)) samples.push_back(10 * (1 + 0.01 * random.normal()));
    squares += std::pow(median(samples) / 10 - 1, 2);
  }
  // A 95 % half-width of 0.5 % is a deviation of 0.26 %; stopping at the first series that looks good adds some.
  CHECK(std::sqrt(squares / trials) < 0.005);
}
