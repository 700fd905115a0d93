#pragma once
// The next value of a series of measurements, for planning capacity ahead.
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace drydock::scheduler {

enum class ForecastKind : uint8_t {
  constant,  // the last value
  arima,     // autoregression of order 2 on differences, ARIMA(2, 1, 0)
  kalman,    // local linear trend
};
std::string_view name(ForecastKind kind);
std::optional<ForecastKind> parse_forecast_kind(std::string_view text);

// Fed one measurement an interval; forecasts the next interval's. 0 before the first measurement.
class Forecaster {
 public:
  virtual ~Forecaster() = default;
  virtual void observe(double value) = 0;  // finite
  virtual double forecast() const = 0;     // not clamped: a falling trend goes below 0
};

// ARIMA(2, 1, 0) fits d_t = a d_{t-1} + b d_{t-2}, d the differences, by least squares over the last 50 values (Box and
// Jenkins 1970); a moving-average term is left to the autoregression, which approximates it. Exact on constants,
// straight lines and sampled sines about 0. The forecast step is at most twice the largest difference seen. Kalman:
// level and slope as random walks seen through noise, the standard filter from a diffuse start (Durbin and Koopman
// 2012, "Time Series Analysis by State Space Methods", 3.2 and 4.3), with variances of level and slope of 1 and 0.1
// times that of the noise; only the ratios matter.
std::unique_ptr<Forecaster> make_forecaster(ForecastKind kind);

}  // namespace drydock::scheduler
