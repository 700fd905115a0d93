#pragma once
// A number with where it came from and how sure it is.
#include <cstdint>
#include <string_view>

namespace drydock::core {

// Best first. A figure made of several parts is as good as its worst part weighed by time; see simulator.
enum class Provenance : uint8_t { measured, interpolated, extrapolated, analytic };
inline constexpr int kProvenances = 4;

std::string_view name(Provenance provenance);

// `low`..`high` is meant to hold the truth four times in five.
struct Figure {
  double value = 0, low = 0, high = 0;
};

}  // namespace drydock::core
