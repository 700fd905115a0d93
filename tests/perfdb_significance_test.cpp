#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "perfdb/significance.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::perfdb;
using core::Random;
using tests::kLighter;

namespace {

// n differences of sizes 1..n; those in `negative` are below 0.
std::vector<double> ranks(int n, const std::vector<int>& negative) {
  std::vector<double> out;
  for (int i = 1; i <= n; ++i) out.push_back(std::find(negative.begin(), negative.end(), i) != negative.end() ? -i : i);
  return out;
}

// The definition: all choices of signs, one by one.
double counted_p(const std::vector<double>& d) {
  std::vector<double> rank;
  for (const double x : d) {
    double below = 0, equal = 0;
    for (const double y : d) {
      below += std::abs(y) < std::abs(x);
      equal += std::abs(y) == std::abs(x);
    }
    rank.push_back(below + (equal + 1) / 2);
  }
  double sum = 0, as_large = 0;
  for (size_t i = 0; i < d.size(); ++i) sum += d[i] > 0 ? rank[i] : 0;
  for (size_t signs = 0; signs < size_t{1} << d.size(); ++signs) {
    double other = 0;
    for (size_t i = 0; i < d.size(); ++i) other += (signs >> i & 1) ? rank[i] : 0;
    as_large += other >= sum;
  }
  return as_large / static_cast<double>(size_t{1} << d.size());
}

}  // namespace

TEST_CASE("signed ranks: published tables and data") {
  // P(T <= t) of Wilcoxon's table (Hollander and Wolfe, table A.4), here as its mirror image, the sum of ranks above 0.
  CHECK(signed_rank_p(ranks(5, {})) == doctest::Approx(1.0 / 32));
  CHECK(signed_rank_p(ranks(6, {2})) == doctest::Approx(0.0469).epsilon(1e-3));
  CHECK(signed_rank_p(ranks(8, {5})) == doctest::Approx(0.0391).epsilon(1e-3));
  CHECK(signed_rank_p(ranks(10, {10})) == doctest::Approx(0.0420).epsilon(2e-3));
  CHECK(signed_rank_p(ranks(12, {12, 5})) == doctest::Approx(0.0461).epsilon(2e-3));
  CHECK(signed_rank_p(ranks(15, {15, 14, 1})) == doctest::Approx(0.0473).epsilon(2e-3));
  CHECK(signed_rank_p(ranks(20, {20, 19, 18, 3})) == doctest::Approx(0.0487).epsilon(2e-3));
  // Darwin's maize, as in Fisher's Design of Experiments: T+ = 96 of 15 pairs, two-sided p = 0.0413.
  const std::vector<double> maize = {49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48};
  CHECK(2 * signed_rank_p(maize) == doctest::Approx(0.0413).epsilon(2e-3));
}

TEST_CASE("signed ranks: as counting all signs has it, ties and zeros included") {
  Random random(5);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<double> d(static_cast<size_t>(random.integer(1, 10)));
    for (double& x : d) {
      x = static_cast<double>(random.integer(1, 6));
      if (random.uniform() < 0.4) x = -x;
    }
    CHECK(signed_rank_p(d) == doctest::Approx(counted_p(d)));
    const double without = signed_rank_p(d);
    d.push_back(0);
    CHECK(signed_rank_p(d) == without);
  }
  CHECK(signed_rank_p({}) == 1);
  CHECK(signed_rank_p({0, 0}) == 1);
}

TEST_CASE("signed ranks: the approximation continues the exact values") {
  // 26 rather than 25 differences shift the p of the same signs little, and more for what is rarer.
  for (const std::vector<int>& negative :
       {std::vector<int>{20, 19, 18}, {25, 24, 23, 22}, {2, 9, 16, 21, 23, 24, 25}}) {
    const double exact = signed_rank_p(ranks(25, negative));
    std::vector<double> with_neutral = ranks(25, negative);
    with_neutral.push_back(0.5);  // smallest rank: moves mean and sum by a quarter of what it moves all other ranks
    const double approximate = signed_rank_p(with_neutral);
    CHECK(approximate > exact / 2);
    CHECK(approximate < exact * 2);
  }
}

TEST_CASE("Student's t: published quantiles") {
  CHECK(student_t_p(0, 3) == 0.5);
  CHECK(student_t_p(1, 1) == doctest::Approx(0.25));  // Cauchy: 1/2 - atan(1) / pi
  CHECK(student_t_p(6.314, 1) == doctest::Approx(0.05).epsilon(1e-3));
  CHECK(student_t_p(7.173, 4) == doctest::Approx(0.001).epsilon(1e-3));
  CHECK(student_t_p(2.228, 10) == doctest::Approx(0.025).epsilon(1e-3));
  CHECK(student_t_p(3.850, 20) == doctest::Approx(0.0005).epsilon(2e-3));
  CHECK(student_t_p(0.697, 11) == doctest::Approx(0.25).epsilon(1e-3));
  CHECK(student_t_p(-2.228, 10) == doctest::Approx(0.975).epsilon(1e-4));
  CHECK(student_t_p(1.959964, 1e7) == doctest::Approx(0.025).epsilon(1e-5));  // the normal distribution
  CHECK(student_t_p(2, 2) ==
        doctest::Approx(0.5 - 2 / (2 * std::sqrt(6.0))));  // closed form, 1/2 - t / 2 sqrt(2 + t^2)
}

TEST_CASE("false discovery rates: the example of Benjamini and Hochberg") {
  const std::vector<double> p = {0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
                                 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
  const std::vector<double> q = false_discovery_rates(p);
  CHECK(std::count_if(q.begin(), q.end(), [](double x) { return x <= 0.05; }) == 4);
  CHECK(q[0] == doctest::Approx(0.0001 * 15));
  CHECK(q[3] == doctest::Approx(0.0095 * 15 / 4));
  CHECK(q[5] == doctest::Approx(0.0298 * 15 / 7));  // its own, 0.0695, is above that of the next
  CHECK(q[14] == 1);
  CHECK(false_discovery_rates(std::vector<double>{0.5, 0.01}) == std::vector<double>{0.5, 0.02});
  CHECK(false_discovery_rates({}).empty());
}

TEST_CASE("robust estimates") {
  CHECK(median({3, 1, 2}) == 2);
  CHECK(median({4, 1, 2, 3}) == 2.5);
  CHECK(hodges_lehmann({1}) == 1);
  CHECK(hodges_lehmann({1, 2}) == 1.5);
  CHECK(hodges_lehmann({1, 2, 30}) == 8.75);  // pairs: 1 1.5 2 15.5 16 30; three values do not make a majority
  CHECK(hodges_lehmann({1, 1, 1, 1, 90}) == 1);
}

TEST_CASE("Qn: unbiased for normal values, blind to a third of outliers") {
  Random random(6);
  for (const int n : {2, 3, 4, 5, 9, 10, 21, 40}) {
    double sum = 0;
    const int trials = 4000 / kLighter;
    for (int t = 0; t < trials; ++t) {
      std::vector<double> values(static_cast<size_t>(n));
      for (double& x : values) x = 3 * random.normal();
      sum += scale_qn(values);
    }
    // Of two values the estimate spreads by 0.75 of itself: five standard errors over 4000 are 0.06.
    CHECK(sum / trials == doctest::Approx(3).epsilon(0.06 * std::sqrt(kLighter)));
  }
  std::vector<double> values;
  for (int i = 0; i < 60; ++i) values.push_back(random.normal() + (i % 3 == 0 ? 1e6 : 0));
  CHECK(scale_qn(values) < 3);
}
