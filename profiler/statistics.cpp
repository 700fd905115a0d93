#include "profiler/statistics.h"

#include <algorithm>
#include <cmath>

namespace drydock::profiler {
namespace {

std::vector<double> sorted(std::span<const double> samples) {
  std::vector<double> out(samples.begin(), samples.end());
  std::sort(out.begin(), out.end());
  return out;
}

double quantile_of_sorted(const std::vector<double>& s, double share) {
  if (s.empty()) return 0;
  const double at = share * static_cast<double>(s.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, s.size() - 1);
  return s[below] + (at - static_cast<double>(below)) * (s[above] - s[below]);
}

// Sum over groups of equal values of t (t - 1) (2 t + 5), which ties take from the variance of the statistic.
double tie_term(std::span<const double> samples) {
  const std::vector<double> s = sorted(samples);
  double sum = 0;
  for (size_t i = 0; i < s.size();) {
    size_t j = i;
    while (j < s.size() && s[j] == s[i]) ++j;
    const auto t = static_cast<double>(j - i);
    sum += t * (t - 1) * (2 * t + 5);
    i = j;
  }
  return sum;
}

}  // namespace

double median(std::span<const double> samples) { return quantile(samples, 0.5); }

double quantile(std::span<const double> samples, double share) { return quantile_of_sorted(sorted(samples), share); }

double interquartile_range(std::span<const double> samples) {
  const std::vector<double> s = sorted(samples);
  return quantile_of_sorted(s, 0.75) - quantile_of_sorted(s, 0.25);
}

Interval median_interval(std::span<const double> samples, double confidence) {
  const std::vector<double> s = sorted(samples);
  const auto n = static_cast<int64_t>(s.size());
  if (n == 0) return {};
  // The k-th from either end: both tails hold the chance of fewer than k heads in n throws of a fair coin, which is
  // summed up as k grows.
  const auto throws = static_cast<double>(n);
  double log_chance = -throws * std::log(2.0);  // of exactly k - 1 heads
  double tail = std::exp(log_chance);
  int64_t k = 1;
  while (2 * (k + 1) <= n) {
    const auto heads = static_cast<double>(k);
    log_chance += std::log((throws - heads + 1) / heads);
    const double next = tail + std::exp(log_chance);
    if (2 * next > 1 - confidence) break;
    tail = next;
    ++k;
  }
  return {s[static_cast<size_t>(k - 1)], s[static_cast<size_t>(n - k)], std::max(0.0, 1 - 2 * tail)};
}

std::vector<double> without_outliers(std::span<const double> samples, double most) {
  constexpr double kNormal = 1.4826;
  const double middle = median(samples);
  std::vector<double> distances;
  for (const double x : samples) distances.push_back(std::abs(x - middle));
  const double limit = most * kNormal * median(distances);
  std::vector<double> out;
  for (const double x : samples)
    if (limit == 0 || std::abs(x - middle) <= limit) out.push_back(x);
  return out;
}

double trend(std::span<const double> samples) {
  const auto n = static_cast<double>(samples.size());
  if (samples.size() < 4) return 0;
  int64_t score = 0;
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t j = i + 1; j < samples.size(); ++j) score += (samples[j] > samples[i]) - (samples[j] < samples[i]);
  const double variance = (n * (n - 1) * (2 * n + 5) - tie_term(samples)) / 18;
  if (score == 0 || variance <= 0) return 0;
  const double s = static_cast<double>(score);
  return (s - std::copysign(1.0, s)) / std::sqrt(variance);  // one towards 0: the statistic is discrete
}

bool drifts(std::span<const double> samples) {
  constexpr double kOnceInThousand = 3.29, kLeastShift = 0.01;
  if (samples.size() < 9 || std::abs(trend(samples)) < kOnceInThousand) return false;
  const size_t third = samples.size() / 3;
  const double shift = median(samples.last(third)) - median(samples.first(third));
  return std::abs(shift) > kLeastShift * std::abs(median(samples));
}

bool is_bimodal(std::span<const double> samples) {
  constexpr size_t kFewest = 16;
  constexpr double kMostLeft = 0.18, kLeastApart = 0.02;
  if (samples.size() < kFewest) return false;
  const std::vector<double> s = sorted(samples);
  const auto n = static_cast<double>(s.size());
  const double middle = quantile_of_sorted(s, 0.5);
  double total = 0, squares = 0;  // about the median, for precision
  for (const double x : s) {
    total += x - middle;
    squares += (x - middle) * (x - middle);
  }
  const double variance = squares - total * total / n;
  double best = 0, apart = 0, below = 0;
  for (size_t i = 1; i < s.size(); ++i) {
    below += s[i - 1] - middle;
    const auto left = static_cast<double>(i);
    if (left < n / 10 || n - left < n / 10) continue;
    const double distance = (total - below) / (n - left) - below / left;
    const double between = left * (n - left) / n * distance * distance;
    if (between > best) best = between, apart = distance;
  }
  return variance > 0 && variance - best < kMostLeft * variance && apart > kLeastApart * std::abs(middle);
}

bool is_enough(std::span<const double> samples, double seconds, const StopRule& rule) {
  const auto n = static_cast<int64_t>(samples.size());
  if (n >= rule.most_samples) return true;
  if (n < rule.least_samples) return n > 0 && seconds >= rule.most_seconds;
  if (seconds >= rule.most_seconds) return true;
  if (seconds < rule.least_seconds) return false;
  const Interval interval = median_interval(samples);
  return interval.high - interval.low <= 2 * rule.noise * median(samples);
}

Summary summarize(std::span<const double> samples) {
  const std::vector<double> kept = without_outliers(samples);
  Summary out;
  out.median = median(kept);
  out.spread = interquartile_range(kept);
  out.interval = median_interval(kept);
  out.samples = static_cast<int64_t>(kept.size());
  out.outliers = static_cast<int64_t>(samples.size()) - out.samples;
  out.drifts = drifts(kept);
  // Outliers may be the second mode.
  out.bimodal = is_bimodal(samples);
  return out;
}

}  // namespace drydock::profiler
