#include "perfdb/significance.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace drydock::perfdb {
namespace {

constexpr size_t kMostPaired = 1000, kMostExact = 25;

// Magnitudes ranked from 1; doubled, so that the mean rank of a tie is whole.
struct Ranks {
  std::vector<int64_t> twice;  // in the order of the differences
  double ties = 0;             // sum of t^3 - t over groups of t equal ones
};

Ranks ranks_of(const std::vector<double>& differences) {
  const size_t n = differences.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  const auto size = [&](size_t i) { return std::abs(differences[order[i]]); };
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return std::abs(differences[a]) < std::abs(differences[b]); });
  Ranks out;
  out.twice.resize(n);
  for (size_t from = 0, to = 0; from < n; from = to) {
    while (to < n && size(to) == size(from)) ++to;
    for (size_t i = from; i < to; ++i) out.twice[order[i]] = static_cast<int64_t>(from + 1 + to);
    const auto tied = static_cast<double>(to - from);
    out.ties += tied * tied * tied - tied;
  }
  return out;
}

// Share of the 2^n choices of signs whose sum of positive ranks is at least `sum`: each rank in turn is in or out.
double exact_p(const std::vector<int64_t>& ranks, int64_t sum) {
  std::vector<double> ways(static_cast<size_t>(std::accumulate(ranks.begin(), ranks.end(), int64_t{0})) + 1, 0.0);
  ways[0] = 1;
  size_t reached = 0;
  for (const int64_t rank : ranks) {
    const auto step = static_cast<size_t>(rank);
    for (size_t at = reached + 1; at-- > 0;) {
      ways[at + step] += ways[at] / 2;
      ways[at] /= 2;
    }
    reached += step;
  }
  return std::min(1.0, std::accumulate(ways.begin() + sum, ways.end(), 0.0));
}

double approximate_p(double n, double sum, double ties) {
  const double mean = n * (n + 1) / 4, variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48;
  return std::erfc((sum - mean - 0.5) / std::sqrt(2 * variance)) / 2;
}

// Regularised incomplete beta function for x below (a + 1) / (a + b + 2): the continued fraction of DLMF 8.17.22, from
// its far end, which converges there within a number of terms of the order of sqrt(max(a, b)).
double incomplete_beta(double a, double b, double x) {
  double below = 1;
  for (int m = 12 + static_cast<int>(3 * std::sqrt(std::max(a, b))); m > 0; --m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1));
    below = 1 + odd / (1 + even / below);
  }
  return std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x)) /
         (a * below);
}

}  // namespace

double median(std::vector<double> values) {
  assert(!values.empty());
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

double hodges_lehmann(const std::vector<double>& values) {
  if (values.size() > kMostPaired) return median(values);
  std::vector<double> means;
  means.reserve(values.size() * (values.size() + 1) / 2);
  for (size_t i = 0; i < values.size(); ++i)
    for (size_t j = i; j < values.size(); ++j) means.push_back((values[i] + values[j]) / 2);
  return median(std::move(means));
}

double scale_qn(const std::vector<double>& values) {
  const size_t n = values.size();
  assert(n >= 2);
  std::vector<double> distances;
  distances.reserve(n * (n - 1) / 2);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < i; ++j) distances.push_back(std::abs(values[i] - values[j]));
  const size_t half = n / 2 + 1, quartile = half * (half - 1) / 2;
  const auto at = distances.begin() + static_cast<std::ptrdiff_t>(quartile - 1);
  std::nth_element(distances.begin(), at, distances.end());
  constexpr std::array<double, 10> kSmall = {0, 0, 0.399, 0.994, 0.512, 0.844, 0.611, 0.857, 0.669, 0.872};
  const auto count = static_cast<double>(n);
  const double factor = n < kSmall.size() ? kSmall[n] : n % 2 == 1 ? count / (count + 1.4) : count / (count + 3.8);
  return 2.2219 * factor * *at;
}

double signed_rank_p(const std::vector<double>& differences) {
  std::vector<double> kept;
  for (const double d : differences)
    if (d != 0) kept.push_back(d);
  if (kept.empty()) return 1;
  const Ranks ranks = ranks_of(kept);
  int64_t sum = 0;
  for (size_t i = 0; i < kept.size(); ++i)
    if (kept[i] > 0) sum += ranks.twice[i];
  if (kept.size() <= kMostExact) return exact_p(ranks.twice, sum);
  return approximate_p(static_cast<double>(kept.size()), static_cast<double>(sum) / 2, ranks.ties);
}

// I_x(freedom / 2, 1 / 2) / 2 with x = freedom / (freedom + t^2), DLMF 8.17; beyond where the fraction converges, from
// the other side.
double student_t_p(double t, double freedom) {
  if (t < 0) return 1 - student_t_p(-t, freedom);
  if (t == 0) return 0.5;
  const double x = freedom / (freedom + t * t), a = freedom / 2, b = 0.5;
  if (x < (a + 1) / (a + b + 2)) return incomplete_beta(a, b, x) / 2;
  return (1 - incomplete_beta(b, a, t * t / (freedom + t * t))) / 2;
}

std::vector<double> false_discovery_rates(std::span<const double> p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<double> out(p.size());
  double least = 1;
  for (size_t rank = p.size(); rank-- > 0;) {
    least = std::min(least, p[order[rank]] * static_cast<double>(p.size()) / static_cast<double>(rank + 1));
    out[order[rank]] = least;
  }
  return out;
}

}  // namespace drydock::perfdb
