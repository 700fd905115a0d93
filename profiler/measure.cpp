#include "profiler/measure.h"

#include <chrono>
#include <cmath>

#include "core/error.h"

namespace drydock::profiler {

Measured measure(Experiment& experiment, const StopRule& rule) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  // A throttled device gets as long again to cool, and more samples.
  const double patience = 2 * rule.most_seconds;
  Measured out;
  std::vector<double> samples;
  while (!is_enough(samples, elapsed(), rule)) {
    const Reading reading = experiment.sample();
    if (!std::isfinite(reading.us) || reading.us <= 0) throw core::Error("the device gave a time that can't be");
    if (!reading.throttled) {
      samples.push_back(reading.us);
      continue;
    }
    ++out.throttled;
    if (elapsed() <= patience && out.throttled <= 4 * rule.most_samples) continue;
    if (std::ssize(samples) >= rule.least_samples) break;  // noisier than asked for, and its spread says so
    throw core::Error("the device is throttled: " + std::to_string(out.throttled) + " samples dropped");
  }
  out.summary = summarize(samples);
  out.seconds = elapsed();
  out.joules = experiment.joules();
  out.kernel = experiment.kernel();
  return out;
}

}  // namespace drydock::profiler
