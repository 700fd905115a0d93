#pragma once
// One experiment sampled until it says enough.
#include <optional>
#include <string>

#include "profiler/device.h"
#include "profiler/statistics.h"

namespace drydock::profiler {

struct Measured {
  Summary summary;               // [us]
  int64_t throttled = 0;         // samples dropped because clocks were held down
  double seconds = 0;            // it took
  std::optional<double> joules;  // of one launch
  std::string kernel;            // as Experiment::kernel
};

// Samples under throttling do not count; when too few are left, throws core::Error.
Measured measure(Experiment& experiment, const StopRule& rule);

}  // namespace drydock::profiler
