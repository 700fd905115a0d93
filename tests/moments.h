#pragma once
// Whether random numbers have the mean and variance of theory.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace drydock {

struct Moments {
  double mean, variance;
};

inline Moments moments(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double x : values) sum += x;
  for (const double x : values) squares += (x - sum / n) * (x - sum / n);
  return {sum / n, squares / n};
}

// Five standard errors of n independent values: of the mean sqrt(variance / n), of the variance
// sqrt((kurtosis - 1) / n) of it.
inline void check_moments(const std::vector<double>& values, Moments want, double kurtosis) {
  const Moments got = moments(values);
  const auto n = static_cast<double>(values.size());
  CHECK(std::abs(got.mean - want.mean) < 5 * std::sqrt(want.variance / n));
  CHECK(std::abs(got.variance / want.variance - 1) < 5 * std::sqrt((kurtosis - 1) / n));
}

}  // namespace drydock
