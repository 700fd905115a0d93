#include "perfdb/fit.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <span>
#include <tuple>

#include "core/error.h"
#include "perfdb/lattice_fit.h"

namespace drydock::perfdb {
namespace {

constexpr int kFolds = 5;
constexpr size_t kFewestSamples = 16;

// Least distance between knots along each axis [octaves]: as fine as times vary, no finer.
std::array<float, kMaxAxes> knot_gaps(core::OpKind kind) {
  switch (kind) {
    case core::OpKind::moe_dispatch:
    case core::OpKind::moe_combine:
      return {0.5f, 0.9f};
    case core::OpKind::gemm:
      return {0.9f, 0.2f, 0.9f};
    case core::OpKind::moe:
      return {0.9f, 0.9f, 0.2f};
    case core::OpKind::prefill_attention:
      return {0.9f, 0.9f, 1.9f, 4.9f, 0.9f};
    case core::OpKind::decode_attention:
      return {0.9f, 0.9f, 0.9f, 4.9f};
    case core::OpKind::mla_prefill:
      return {0.9f, 0.9f, 1.9f, 0.9f};
    default:
      return {0.9f, 0.9f, 0.9f, 0.9f, 0.9f};
  }
}

// Knots are extents that occur, at least `gap` apart; among those just beyond the gap the most frequent wins, so that
// powers of two are preferred to their neighbours. With `jumps`, an extent just above a knot is one too: where a tile
// is full or a heuristic switches kernels, one row more costs a step.
std::vector<float> choose_knots(std::span<const LatticePoint> points, int axis, float gap, bool jumps) {
  constexpr float kMilli = 1000;  // extents are told apart to a thousandth of an octave
  std::map<int, int> counts;
  for (const LatticePoint& point : points) ++counts[static_cast<int>(std::lround(point.at[axis] * kMilli))];
  const int last = counts.rbegin()->first, step = static_cast<int>(gap * kMilli), window = 200, near = 100;
  int previous = counts.begin()->first;
  std::vector<float> knots{static_cast<float>(previous) / kMilli};
  while (previous + step / 2 < last) {
    auto best = counts.lower_bound(previous + step);
    for (auto it = best; it != counts.end() && it->first <= previous + step + window; ++it)
      if (it->second > best->second) best = it;
    previous = best == counts.end() || last - best->first < step / 2 ? last : best->first;
    knots.push_back(static_cast<float>(previous) / kMilli);
    if (const auto next = counts.upper_bound(previous); jumps && next != counts.end() && next->first < previous + near)
      knots.push_back(static_cast<float>(next->first) / kMilli);
  }
  return knots;
}

// FNV-1a of the shape: a fold does not depend on the order of the samples.
int fold_of(const core::Op& op) {
  uint64_t hash = 1469598103934665603u;
  for (const int64_t extent : op.shape) hash = (hash ^ static_cast<uint64_t>(extent)) * 1099511628211u;
  return static_cast<int>((hash ^ (hash >> 29)) % kFolds);
}

// First and last decile of the errors for which use(i) holds.
template <typename Use>
Band deciles(const std::vector<float>& errors, Use use) {
  constexpr size_t kFewest = 8;
  constexpr Band kUnknown{-0.1f, 0.1f};
  constexpr float kNarrowest = 0.005f;  // repeated measurements differ by no less
  std::vector<float> chosen;
  for (size_t i = 0; i < errors.size(); ++i)
    if (use(i)) chosen.push_back(errors[i]);
  if (chosen.size() < kFewest) return kUnknown;
  std::sort(chosen.begin(), chosen.end());
  const size_t tenth = (chosen.size() + 1) / 10 - (chosen.size() >= 9);  // of n samples n + 1 gaps: rounded outward
  return {std::min(chosen[tenth], -kNarrowest), std::max(chosen[chosen.size() - 1 - tenth], kNarrowest)};
}

void fill_bands(Surface& surface, const LatticeFit& fit, std::span<const LatticePoint> points, FitReport& report) {
  std::vector<const Band*> band;
  for (size_t i = 0; i < points.size(); ++i) band.push_back(&surface.band(fit.cell(i).knot[0]));
  int64_t covered = 0;
  for (Band& part : surface.bands) {
    for (int fold = 0; fold < kFolds; ++fold) {
      const Band others =
          deciles(report.log_errors, [&](size_t i) { return band[i] == &part && points[i].fold != fold; });
      for (size_t i = 0; i < points.size(); ++i)
        covered += band[i] == &part && points[i].fold == fold && report.log_errors[i] >= others.low &&
                   report.log_errors[i] <= others.high;
    }
    part = deciles(report.log_errors, [&](size_t i) { return band[i] == &part; });
  }
  report.covered = static_cast<double>(covered) / static_cast<double>(points.size());
}

// Whole prompts alone say nothing of context before them, and their surface then has no such axis.
int axes_of(core::OpKind kind, std::span<const LatticePoint> points) {
  const int context = context_axis(kind);
  const bool has_context = context >= 0 && std::any_of(points.begin(), points.end(), [&](const LatticePoint& point) {
                             return point.at[static_cast<size_t>(context)] > 0;
                           });
  return context >= 0 && !has_context ? context : axis_count(kind);
}

Surface empty_lattice(core::OpKind kind, std::span<const LatticePoint> points) {
  Surface surface;
  surface.axes = axes_of(kind, points);
  size_t count = 1;
  const auto gaps = knot_gaps(kind);
  for (int axis = 0; axis < surface.axes; ++axis) {
    surface.knots[axis] = choose_knots(points, axis, gaps[axis], kind == core::OpKind::gemm && axis == 0);
    count *= surface.knots[axis].size();
  }
  surface.values.resize(count);
  surface.supported.resize(count);
  return surface;
}

Surface fit_surface(core::OpKind kind, std::span<const LatticePoint> points, FitReport& report) {
  Surface surface = empty_lattice(kind, points);
  LatticeFit fit(surface, points);
  report.log_errors.resize(points.size());
  for (int fold = 0; fold < kFolds; ++fold) {
    const std::vector<double> values = fit.solve(fold);
    for (size_t i = 0; i < points.size(); ++i)
      if (points[i].fold == fold)
        report.log_errors[i] = points[i].log_ratio - static_cast<float>(fit.predict(values, i));
  }
  fill_bands(surface, fit, points, report);
  const std::vector<double> values = fit.solve(-1);
  std::transform(values.begin(), values.end(), surface.values.begin(), [](double v) { return static_cast<float>(v); });
  surface.supported = fit.support();
  return surface;
}

}  // namespace

FitResult fit_surfaces(std::vector<Sample> samples, const core::Hardware& hardware, const std::string& backend,
                       const std::string& version) {
  std::sort(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) {
    return std::tie(a.op, a.latency_us) < std::tie(b.op, b.latency_us);
  });
  using Key = std::tuple<core::OpKind, core::Dtype, core::Dtype, Variant>;
  std::map<Key, std::vector<LatticePoint>> groups;
  for (const Sample& sample : samples) {
    if (axis_count(sample.op.kind) == 0 || spans_network(sample.op, hardware)) continue;
    const double ratio = sample.latency_us / baseline_us(sample.op, hardware);
    groups[{sample.op.kind, sample.op.dtype, sample.op.kv_dtype, variant(sample.op)}].push_back(
        {coordinates(sample.op), static_cast<float>(std::log(ratio)), fold_of(sample.op)});
  }
  FitResult result;
  for (const auto& [key, points] : groups) {
    if (points.size() < kFewestSamples) continue;
    const auto& [kind, dtype, kv_dtype, shape] = key;
    FitReport report{hardware.name, backend, version, kind, dtype, kv_dtype, shape, std::ssize(points), {}, 0};
    const Surface surface = fit_surface(kind, points, report);
    result.surfaces.push_back(
        {hardware.name, backend, version, kind, dtype, kv_dtype, variant_text(shape), encode(surface)});
    result.reports.push_back(std::move(report));
  }
  return result;
}

std::string variant_text(const Variant& variant) {
  std::string text = std::to_string(variant[0]);
  for (size_t i = 1; i < variant.size(); ++i) (text += ',') += std::to_string(variant[i]);
  return text;
}

Variant parse_variant(std::string_view text) {
  Variant out{};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (size_t i = 0; i < out.size(); ++i) {
    const auto [next, status] = std::from_chars(at, end, out[i]);
    const bool last = i + 1 == out.size();
    if (status != std::errc{} || out[i] < 0 || (last ? next != end : next == end || *next != ','))
      throw core::Error("surface variant '" + std::string(text.substr(0, 60)) +
                        "' is not three whole numbers '128,0,0'");
    at = last ? next : next + 1;
  }
  return out;
}

}  // namespace drydock::perfdb
