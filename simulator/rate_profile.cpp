#include <algorithm>
#include <cmath>
#include <numbers>

#include "simulator/arrivals.h"

namespace drydock::simulator {
namespace {

// Requests that a ramp has brought at t_s, up to its end.
double ramp_expected(const RateProfile& ramp, double t_s) {
  return t_s * (ramp.per_s + (ramp.end_per_s - ramp.per_s) * t_s / (2 * ramp.over_s));
}

double ramp_time(const RateProfile& ramp, double count) {
  const double whole = ramp_expected(ramp, ramp.over_s);
  if (count > whole) return ramp.end_per_s > 0 ? ramp.over_s + (count - whole) / ramp.end_per_s : kNever;
  // count = a t + b t^2, by the form of the root that loses no digits when b is small
  const double a = ramp.per_s, b = (ramp.end_per_s - ramp.per_s) / (2 * ramp.over_s);
  const double divisor = a + std::sqrt(std::max(0.0, a * a + 4 * b * count));
  return divisor > 0 ? 2 * count / divisor : 0;
}

double diurnal_expected(const RateProfile& day, double t_s) {
  const double turn = 2 * std::numbers::pi / day.period_s;
  return day.per_s * (t_s + day.amplitude / turn * (1 - std::cos(turn * t_s)));
}

// Newton's method, kept inside a bracket that shrinks: 0 <= expected - per_s t <= per_s amplitude period / pi.
double diurnal_time(const RateProfile& day, double count) {
  double high = count / day.per_s, low = std::max(0.0, high - day.amplitude * day.period_s / std::numbers::pi);
  double t = (low + high) / 2;
  for (int i = 0; i < 100 && high - low > 1e-15 * high; ++i) {
    const double over = diurnal_expected(day, t) - count;
    (over > 0 ? high : low) = t;
    const double newton = t - over / day.rate(t);
    const double next = newton > low && newton < high ? newton : (low + high) / 2;
    if (next == t) break;
    t = next;
  }
  return t;
}

}  // namespace

double RateProfile::rate(double t_s) const {
  if (kind == Kind::ramp) return t_s >= over_s ? end_per_s : per_s + (end_per_s - per_s) * t_s / over_s;
  if (kind == Kind::diurnal) return per_s * (1 + amplitude * std::sin(2 * std::numbers::pi * t_s / period_s));
  return per_s;
}

double RateProfile::expected(double t_s) const {
  if (kind == Kind::diurnal) return diurnal_expected(*this, t_s);
  if (kind == Kind::constant) return per_s * t_s;
  return t_s <= over_s ? ramp_expected(*this, t_s) : ramp_expected(*this, over_s) + end_per_s * (t_s - over_s);
}

double RateProfile::time_of(double count) const {
  if (kind == Kind::ramp) return ramp_time(*this, count);
  if (kind == Kind::diurnal) return diurnal_time(*this, count);
  return count / per_s;
}

}  // namespace drydock::simulator
