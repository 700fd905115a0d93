#include "scheduler/forecast.h"

#include <algorithm>
#include <cmath>
#include <deque>

namespace drydock::scheduler {
namespace {

constexpr std::string_view kForecastNames[] = {"constant", "arima", "kalman"};

class Constant : public Forecaster {
 public:
  void observe(double value) override { last_ = value; }
  double forecast() const override { return last_; }

 private:
  double last_ = 0;
};

class Arima : public Forecaster {
 public:
  void observe(double value) override {
    if (seen_) differences_.push_back(value - last_);
    if (differences_.size() > kWindow - 1) differences_.pop_front();
    last_ = value;
    seen_ = true;
  }

  double forecast() const override {
    double most = 0;
    for (const double d : differences_) most = std::max(most, std::abs(d));
    return last_ + std::clamp(next_difference(), -2 * most, 2 * most);
  }

 private:
  static constexpr size_t kWindow = 50;

  // Normal equations [xx xy; xy yy] (a, b) = (xz, yz) for z = d_t, x = d_{t-1}, y = d_{t-2}.
  double next_difference() const {
    const size_t n = differences_.size();
    if (n == 0) return 0;
    double xx = 0, xy = 0, yy = 0, xz = 0, yz = 0;
    for (size_t t = 2; t < n; ++t) {
      const double z = differences_[t], x = differences_[t - 1], y = differences_[t - 2];
      xx += x * x;
      xy += x * y;
      yy += y * y;
      xz += x * z;
      yz += y * z;
    }
    const double determinant = xx * yy - xy * xy;
    // On a straight line x = y always, and one of the two has to go; with too few values neither can be had.
    if (determinant > 1e-9 * xx * yy)
      return ((xz * yy - yz * xy) * differences_[n - 1] + (yz * xx - xz * xy) * differences_[n - 2]) / determinant;
    return xx > 0 ? std::clamp(xz / xx, -1.0, 1.0) * differences_[n - 1] : 0;
  }

  std::deque<double> differences_;
  double last_ = 0;
  bool seen_ = false;
};

// State (level, slope), transition [1 1; 0 1]. p are the covariances of the state predicted for the next value.
class LocalLinearTrend : public Forecaster {
 public:
  void observe(double value) override {
    if (!seen_) level_ = value;
    seen_ = true;
    const double innovation = value - level_;
    const double variance = p_level_ + kNoise;
    const double gain_level = p_level_ / variance, gain_slope = p_cross_ / variance;
    const double level = level_ + gain_level * innovation, slope = slope_ + gain_slope * innovation;
    // The filtered covariances, P - K F K'.
    const double q_level = p_level_ * (1 - gain_level), q_cross = p_cross_ * (1 - gain_level);
    const double q_slope = p_slope_ - gain_slope * p_cross_;
    level_ = level + slope;
    slope_ = slope;
    p_level_ = q_level + 2 * q_cross + q_slope + kLevelNoise;
    p_cross_ = q_cross + q_slope;
    p_slope_ = q_slope + kSlopeNoise;
  }

  double forecast() const override { return level_; }

 private:
  static constexpr double kNoise = 1, kLevelNoise = 1, kSlopeNoise = 0.1;
  static constexpr double kDiffuse = 1e7;  // stands for an infinite variance: forgets the start to 1 in 1e7

  bool seen_ = false;
  double level_ = 0, slope_ = 0;  // predicted for the next value
  double p_level_ = kDiffuse, p_cross_ = 0, p_slope_ = kDiffuse;
};

}  // namespace

std::string_view name(ForecastKind kind) { return kForecastNames[static_cast<size_t>(kind)]; }

std::optional<ForecastKind> parse_forecast_kind(std::string_view text) {
  const auto found = std::find(std::begin(kForecastNames), std::end(kForecastNames), text);
  if (found == std::end(kForecastNames)) return std::nullopt;
  return static_cast<ForecastKind>(found - std::begin(kForecastNames));
}

std::unique_ptr<Forecaster> make_forecaster(ForecastKind kind) {
  switch (kind) {
    case ForecastKind::arima:
      return std::make_unique<Arima>();
    case ForecastKind::kalman:
      return std::make_unique<LocalLinearTrend>();
    case ForecastKind::constant:
      break;
  }
  return std::make_unique<Constant>();
}

}  // namespace drydock::scheduler
