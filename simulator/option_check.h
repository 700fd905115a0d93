#pragma once
// Refuses options out of range.
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/error.h"

namespace drydock::simulator {

inline std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

// Throws core::Error unless `value` is from `least` to `most`; NaN is not.
inline void check_range(std::string_view option, double value, double least, double most) {
  if (value >= least && value <= most) return;
  throw core::Error(std::string(option) + ": want " + number_text(least) + " to " + number_text(most) + ", found " +
                    number_text(value));
}

inline void check_range(std::string_view option, int64_t value, int64_t least, int64_t most) {
  check_range(option, static_cast<double>(value), static_cast<double>(least), static_cast<double>(most));
}

}  // namespace drydock::simulator
