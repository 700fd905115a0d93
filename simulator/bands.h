#pragma once
// Figures with their bands, and what the closed forms and the simulator both take a benchmark's client to be.
#include <cmath>

#include "core/estimate.h"

namespace drydock::simulator {

// Requests a benchmark sends per user of a closed loop, as the common clients do.
inline constexpr double kPromptsPerSlot = 10;

// A value whose 80 % band joins two independent half-widths of ln: the kernel times', and the one left when they are
// exact.
inline core::Figure banded(double value, double kernel_spread, double model_spread) {
  const double width = std::exp(std::hypot(kernel_spread, model_spread));
  return {value, value / width, value * width};
}

// `figure` with another independent half-width of ln joined to its own.
inline core::Figure widened(const core::Figure& figure, double spread) {
  const auto wider = [&](double end) { return std::exp(std::hypot(std::log(end), spread)); };
  if (figure.value <= 0 || figure.low <= 0) return figure;
  return {figure.value, figure.value / wider(figure.value / figure.low),
          figure.value * wider(figure.high / figure.value)};
}

}  // namespace drydock::simulator
