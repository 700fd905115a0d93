#pragma once
// Least squares on a lattice: values whose multilinear interpolation meets scattered samples and bends little between.
#include <cstdint>
#include <span>
#include <vector>

#include "perfdb/surface.h"

namespace drydock::perfdb {

struct LatticePoint {
  Coordinates at{};
  float log_ratio = 0;
  int fold = 0;  // for cross-validation
};

// Minimises sum_i w_i (interpolated(x_i) - y_i)^2 + smoothness by conjugate gradients on the normal equations, without
// forming them. The w_i are set by three rounds of reweighting: residuals beyond the median count linearly, so that a
// few odd kernels do not bend the surface. Keeps references to its arguments.
class LatticeFit {
 public:
  // Only the knots of `lattice` are read, and the length of its values.
  LatticeFit(const Surface& lattice, std::span<const LatticePoint> points);

  // Points of fold `held_out` take no part; -1: all do.
  std::vector<double> solve(int held_out);

  double predict(const std::vector<double>& values, size_t point) const;
  const Cell& cell(size_t point) const { return cells_[point]; }
  std::vector<uint8_t> support() const;  // knots with a sample in a neighbouring cell

 private:
  void reweight(const std::vector<double>& values, int held_out);
  void apply(const std::vector<double>& in, std::vector<double>& out) const;
  std::vector<double> diagonal() const;
  void conjugate_gradients(std::vector<double>& values) const;

  const Surface& lattice_;
  std::span<const LatticePoint> points_;
  std::vector<Cell> cells_;
  std::vector<double> weights_;
};

}  // namespace drydock::perfdb
