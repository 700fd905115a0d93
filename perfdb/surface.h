#pragma once
// A smooth correction on a regular lattice: log(measured time / baseline) over the axes of perfdb/features.h.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "perfdb/features.h"

namespace drydock::perfdb {

inline constexpr int kBands = 4;  // equal parts of the first axis' knots

// Deciles of log(actual / predicted) over shapes held out of the fit.
struct Band {
  float low = 0, high = 0;  // low <= 0 <= high
};

// Immutable once filled; safe to read from many threads.
struct Surface {
  int axes = 0;
  std::array<std::vector<float>, kMaxAxes> knots;  // ascending, at least one each
  std::vector<float> values;                       // first axis slowest; natural logarithm
  std::vector<uint8_t> supported;                  // was there a sample in a cell around the knot
  std::array<Band, kBands> bands{};

  size_t stride(int axis) const;
  const Band& band(size_t knot) const;  // of the part of the first axis that knot `knot` lies in
};

// The lattice cell around a point.
struct Cell {
  std::array<uint32_t, 1 << kMaxAxes> knot;  // indices into Surface::values
  std::array<float, 1 << kMaxAxes> weight;   // sum to 1
  int corners = 0;
  float outside = 0;  // how far the point lies beyond the lattice, summed over axes [octaves]
};
Cell locate(const Surface& surface, const Coordinates& at);

struct Correction {
  float log_ratio = 0;  // multilinear in the cell; a point outside takes the value of the nearest edge
  float support = 0;    // share of the weight on supported knots
  float outside = 0;    // octaves beyond the lattice
  Band band;
};
Correction evaluate(const Surface& surface, const Coordinates& at);

// Text of one line: version of the baseline, axes, knots, bands, then the logarithm at each supported knot in steps of
// 0.004, one character where it is near that of the knot before and three where not, and the lengths of the runs
// without support. Decoding gives supported values back to within 0.002; the others take that of the nearest supported
// knot, along the last axis first.
std::string encode(const Surface& surface);
// Throws core::Error naming `origin` on anything encode() does not write.
Surface decode(std::string_view text, std::string_view origin);

}  // namespace drydock::perfdb
