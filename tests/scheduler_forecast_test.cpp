#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "scheduler/forecast.h"

using namespace drydock::scheduler;

namespace {

constexpr ForecastKind kKinds[] = {ForecastKind::constant, ForecastKind::arima, ForecastKind::kalman};

// Largest error of one-step forecasts of value(t), t from `from` up to `to`, after feeding all values before.
template <class Value>
double worst_error(ForecastKind kind, int from, int to, Value value) {
  const auto forecaster = make_forecaster(kind);
  double worst = 0;
  for (int t = 0; t < to; ++t) {
    if (t >= from) worst = std::max(worst, std::abs(forecaster->forecast() - value(t)));
    forecaster->observe(value(t));
  }
  return worst;
}

}  // namespace

TEST_CASE("forecasts are known by name") {
  for (const ForecastKind kind : kKinds) CHECK(parse_forecast_kind(name(kind)) == kind);
  CHECK_FALSE(parse_forecast_kind("prophet"));
}

TEST_CASE("a constant series is forecast exactly from its first value") {
  for (const ForecastKind kind : kKinds) {
    CHECK(make_forecaster(kind)->forecast() == 0);
    CHECK(worst_error(kind, 1, 200, [](int) { return 7.5; }) == 0);
  }
}

TEST_CASE("a straight line is forecast by those that see trends") {
  const auto line = [](int t) { return 100 + 3.0 * t; };
  // Four values give two pairs of differences, of which ARIMA needs one.
  CHECK(worst_error(ForecastKind::arima, 4, 200, line) < 1e-9);
  // Two values fix level and slope, but for the diffuse start's 1 in 1e7 of either.
  CHECK(worst_error(ForecastKind::kalman, 2, 200, line) < 1e-4);
  // The last value lags by one slope.
  CHECK(worst_error(ForecastKind::constant, 1, 200, line) == doctest::Approx(3).epsilon(1e-12));
}

TEST_CASE("ARIMA continues a sine, whose differences obey d_t = 2 cos w d_{t-1} - d_{t-2}") {
  const double w = 2 * M_PI / 24;  // a day of hours
  const auto sine = [w](int t) { return 50 + 20 * std::sin(w * t); };
  // The determinant is of the order of 1e-2 of xx yy, so rounding of 1e-16 x 70 grows to 1e-12 or so.
  CHECK(worst_error(ForecastKind::arima, 6, 200, sine) < 1e-9);
  // The last value is off by up to 2 A sin(w / 2).
  CHECK(worst_error(ForecastKind::constant, 6, 200, sine) > 0.98 * 40 * std::sin(w / 2));
}

TEST_CASE("the Kalman filter follows a sine with the error of its steady state") {
  // Gains of the steady state, by iterating the Riccati equation of the header's variances (1, 1, 0.1).
  double level = 1, cross = 0, slope = 1, a = 0, b = 0;
  for (int i = 0; i < 1000; ++i) {
    a = level / (level + 1);
    b = cross / (level + 1);
    const double l = level * (1 - a), c = cross * (1 - a), s = slope - b * cross;
    level = l + 2 * c + s + 1;
    cross = c + s;
    slope = s + 0.1;
  }
  // With these gains the innovations obey e_t - (2 - a - b) e_{t-1} + (1 - a) e_{t-2} = y_t - 2 y_{t-1} + y_{t-2}, so
  // a sine of amplitude A comes out with A |1 - z|^2 / |1 - (2 - a - b) z + (1 - a) z^2|, z = exp(-i w).
  const double w = 2 * M_PI / 24, amplitude = 20;
  const double real = 1 - (2 - a - b) * std::cos(w) + (1 - a) * std::cos(2 * w);
  const double imaginary = (2 - a - b) * std::sin(w) - (1 - a) * std::sin(2 * w);
  const double want = amplitude * (2 - 2 * std::cos(w)) / std::hypot(real, imaginary);
  const double got = worst_error(ForecastKind::kalman, 200, 1000, [w](int t) { return 50 + 20 * std::sin(w * t); });
  // The samples, 24 a period, come within 1 - cos(w / 2) = 0.9 % of the peak.
  CHECK(got <= want * 1.000001);
  CHECK(got >= want * std::cos(w / 2));
}

TEST_CASE("an outlier does not make ARIMA explode") {
  const auto forecaster = make_forecaster(ForecastKind::arima);
  for (const double value : {1.0, 1.0, 1.001, 1.0, 1.0, 500.0}) forecaster->observe(value);
  // At most twice the largest difference, 499, from the last value.
  CHECK(std::abs(forecaster->forecast() - 500) <= 998);
}
