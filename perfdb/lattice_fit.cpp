#include "perfdb/lattice_fit.h"

#include <algorithm>
#include <cmath>

namespace drydock::perfdb {
namespace {

constexpr double kCurvature = 0.1 * 0.1;  // weight of squared second differences against samples
constexpr double kSlope = 0.02 * 0.02;    // of first ones: corners without samples fade to the nearest value
constexpr double kRidge = 1e-9;           // keeps the equations definite
constexpr int kReweightings = 3;
constexpr double kLeastScale = 0.01;  // of residuals: the noise of repeated measurements
constexpr int kMaxIterations = 400;
constexpr double kTolerance = 1e-5;  // of the residual, relative

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Calls first(a, b) for neighbouring knots and second(a, b, c) for three in a row, along every axis.
template <typename First, typename Second>
void each_difference(const Surface& lattice, First first, Second second) {
  for (int axis = 0; axis < lattice.axes; ++axis) {
    const size_t count = lattice.knots[axis].size(), stride = lattice.stride(axis);
    for (size_t i = 0; i < lattice.values.size(); ++i) {
      const size_t index = i / stride % count;
      if (index + 1 < count) first(i, i + stride);
      if (index > 0 && index + 1 < count) second(i - stride, i, i + stride);
    }
  }
}

}  // namespace

LatticeFit::LatticeFit(const Surface& lattice, std::span<const LatticePoint> points)
    : lattice_(lattice), points_(points) {
  cells_.reserve(points.size());
  for (const LatticePoint& point : points) cells_.push_back(locate(lattice, point.at));
}

std::vector<double> LatticeFit::solve(int held_out) {
  std::vector<double> values(lattice_.values.size(), 0.0);
  weights_.assign(points_.size(), 1.0);
  for (int round = 0; round < kReweightings; ++round) {
    for (size_t i = 0; i < points_.size(); ++i)
      if (points_[i].fold == held_out) weights_[i] = 0;
    conjugate_gradients(values);
    reweight(values, held_out);
  }
  return values;
}

double LatticeFit::predict(const std::vector<double>& values, size_t point) const {
  const Cell& cell = cells_[point];
  double sum = 0;
  for (int c = 0; c < cell.corners; ++c) sum += static_cast<double>(cell.weight[c]) * values[cell.knot[c]];
  return sum;
}

std::vector<uint8_t> LatticeFit::support() const {
  std::vector<uint8_t> out(lattice_.values.size(), 0);
  for (const Cell& cell : cells_)
    for (int c = 0; c < cell.corners; ++c) out[cell.knot[c]] = 1;
  return out;
}

void LatticeFit::reweight(const std::vector<double>& values, int held_out) {
  std::vector<double> sizes, used;
  for (size_t i = 0; i < points_.size(); ++i) {
    sizes.push_back(std::abs(predict(values, i) - static_cast<double>(points_[i].log_ratio)));
    if (points_[i].fold != held_out) used.push_back(sizes.back());
  }
  if (used.empty()) return;
  const auto middle = used.begin() + static_cast<std::ptrdiff_t>(used.size() / 2);
  std::nth_element(used.begin(), middle, used.end());
  const double scale = std::max(*middle, kLeastScale);
  for (size_t i = 0; i < points_.size(); ++i) weights_[i] = 1 / std::max(1.0, sizes[i] / scale);
}

void LatticeFit::apply(const std::vector<double>& in, std::vector<double>& out) const {
  for (size_t i = 0; i < in.size(); ++i) out[i] = kRidge * in[i];
  for (size_t p = 0; p < cells_.size(); ++p) {
    if (weights_[p] == 0) continue;
    const double value = weights_[p] * predict(in, p);
    const Cell& cell = cells_[p];
    for (int c = 0; c < cell.corners; ++c) out[cell.knot[c]] += static_cast<double>(cell.weight[c]) * value;
  }
  each_difference(
      lattice_,
      [&](size_t a, size_t b) {
        const double d = kSlope * (in[b] - in[a]);
        out[b] += d;
        out[a] -= d;
      },
      [&](size_t a, size_t b, size_t c) {
        const double d = kCurvature * (in[a] - 2 * in[b] + in[c]);
        out[a] += d;
        out[b] -= 2 * d;
        out[c] += d;
      });
}

std::vector<double> LatticeFit::diagonal() const {
  std::vector<double> out(lattice_.values.size(), kRidge);
  for (size_t p = 0; p < cells_.size(); ++p)
    for (int c = 0; c < cells_[p].corners; ++c) {
      const auto weight = static_cast<double>(cells_[p].weight[c]);
      out[cells_[p].knot[c]] += weights_[p] * weight * weight;
    }
  each_difference(
      lattice_,
      [&](size_t a, size_t b) {
        out[a] += kSlope;
        out[b] += kSlope;
      },
      [&](size_t a, size_t b, size_t c) {
        out[a] += kCurvature;
        out[b] += 4 * kCurvature;
        out[c] += kCurvature;
      });
  return out;
}

void LatticeFit::conjugate_gradients(std::vector<double>& values) const {
  const size_t n = values.size();
  std::vector<double> residual(n, 0.0), product(n), scaled(n);
  for (size_t p = 0; p < cells_.size(); ++p)
    for (int c = 0; c < cells_[p].corners; ++c)
      residual[cells_[p].knot[c]] +=
          weights_[p] * static_cast<double>(cells_[p].weight[c]) * static_cast<double>(points_[p].log_ratio);
  const double target = kTolerance * std::sqrt(dot(residual, residual));
  apply(values, product);
  for (size_t i = 0; i < n; ++i) residual[i] -= product[i];
  const std::vector<double> scale = diagonal();
  const auto precondition = [&] {
    for (size_t i = 0; i < n; ++i) scaled[i] = residual[i] / scale[i];
  };
  precondition();
  std::vector<double> direction = scaled;
  double energy = dot(residual, scaled);
  for (int i = 0; i < kMaxIterations && std::sqrt(dot(residual, residual)) > target; ++i) {
    apply(direction, product);
    const double step = energy / dot(direction, product);
    for (size_t j = 0; j < n; ++j) {
      values[j] += step * direction[j];
      residual[j] -= step * product[j];
    }
    precondition();
    const double next = dot(residual, scaled);
    for (size_t j = 0; j < n; ++j) direction[j] = scaled[j] + next / energy * direction[j];
    energy = next;
  }
}

}  // namespace drydock::perfdb
