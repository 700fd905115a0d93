#pragma once
// What a series of timings says, and when there are enough of them. No assumption about their distribution.
#include <cstdint>
#include <span>
#include <vector>

namespace drydock::profiler {

struct Interval {
  double low = 0, high = 0;
  double coverage = 0;  // that it has when samples are independent
};

// Of a series in any order; the mean of the middle two for an even number. 0 for an empty one.
double median(std::span<const double> samples);

// Linear between order statistics (Hyndman and Fan 1996, type 7); `share` in [0, 1].
double quantile(std::span<const double> samples, double share);
double interquartile_range(std::span<const double> samples);

// Between the order statistics whose ranks a fair coin allows (David and Nagaraja, Order Statistics, 7.1): holds the
// true median with at least `confidence`, whatever the distribution; the extremes where samples are too few for that.
Interval median_interval(std::span<const double> samples, double confidence = 0.95);

// Without those further from the median than `most` scaled median absolute deviations (1.4826 x MAD is the standard
// deviation of a normal distribution; Iglewicz and Hoaglin 1993). In the order given; nothing goes where the MAD is 0.
std::vector<double> without_outliers(std::span<const double> samples, double most = 6);

// z of the Mann-Kendall rank trend test over the order of the samples (Kendall 1975, ties corrected): standard normal
// when there is no trend, positive when they grow.
double trend(std::span<const double> samples);

// A trend that chance alone gives once in 1000 series, and that moves the median by over 1 % from the first third to
// the last.
bool drifts(std::span<const double> samples);

// Two modes: the best cut in two (Otsu 1979) leaves under 0.18 of the variance (a normal distribution 0.36, a
// uniform one 0.25), each part holds a tenth of the samples, and their means are 2 % apart. Needs 16 samples.
bool is_bimodal(std::span<const double> samples);

struct StopRule {
  double noise = 0.005;        // half of the median's 95 % interval, over the median
  double least_seconds = 0.0;  // of measuring, so that clocks settle
  double most_seconds = 1.0;   // of measuring
  int64_t least_samples = 7;   // 6 are the fewest for a 95 % interval
  int64_t most_samples = 400;
};

// Has the series said enough, `seconds` after its first sample?
bool is_enough(std::span<const double> samples, double seconds, const StopRule& rule);

// A series in short. Times are those of the samples.
struct Summary {
  double median = 0, spread = 0;  // spread: interquartile range
  Interval interval;
  int64_t samples = 0;   // that count
  int64_t outliers = 0;  // left out of the rest
  bool drifts = false, bimodal = false;
};
Summary summarize(std::span<const double> samples);

}  // namespace drydock::profiler
