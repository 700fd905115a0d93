#include "profiler/design_surfaces.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "perfdb/fit.h"
#include "perfdb/surface.h"

namespace drydock::profiler {
namespace {

constexpr double kTenth = 1.2816;        // standard deviations from the mean to a normal distribution's first decile
constexpr float kNarrowest = 0.005F;     // as perfdb::fit_surfaces has it
constexpr size_t kMostPerFamily = 4000;  // candidates that a surface is fitted to

bool has_surface(const FamilyDesign& family) {
  return perfdb::axis_count(family.family().key.kind) > 0 && family.points() >= family.fewest_points();
}

// Mean deviation of the model over the candidates in each part of the surface.
std::array<perfdb::Band, perfdb::kBands> bands(const FamilyDesign& family, const perfdb::Surface& surface,
                                               const std::vector<core::Op>& ops, double lattice) {
  std::array<double, perfdb::kBands> sum{}, count{};
  const std::vector<double> deviations = family.deviations(ops);
  for (size_t i = 0; i < ops.size(); ++i) {
    const perfdb::Cell cell = perfdb::locate(surface, perfdb::coordinates(ops[i]));
    const auto part = static_cast<size_t>(&surface.band(cell.knot[0]) - surface.bands.data());
    sum[part] += deviations[i];
    count[part] += 1;
  }
  std::array<perfdb::Band, perfdb::kBands> out;
  for (size_t part = 0; part < out.size(); ++part) {
    const double mean = count[part] > 0 ? sum[part] / count[part] : family.error();
    const auto half = std::max(kNarrowest, static_cast<float>(kTenth * std::hypot(mean, lattice)));
    out[part] = {-half, half};
  }
  return out;
}

double root_mean_square(const std::vector<float>& errors) {
  // The lattice's misses have a few large ones where the model bends; the median is what most ops see.
  std::vector<float> sizes;
  for (const float e : errors) sizes.push_back(std::abs(e));
  if (sizes.empty()) return 0;
  std::nth_element(sizes.begin(), sizes.begin() + std::ssize(sizes) / 2, sizes.end());
  constexpr double kDeviationPerMedian = 1.4826;
  return kDeviationPerMedian * static_cast<double>(sizes[sizes.size() / 2]);
}

}  // namespace

std::vector<perfdb::StoredSurface> surfaces_of(const Design& design, const core::Hardware& hardware,
                                               const std::string& backend, const std::string& version) {
  std::vector<perfdb::StoredSurface> out;
  for (const FamilyDesign& family : design.families()) {
    if (!has_surface(family)) continue;
    const std::vector<core::Op> ops = family.spread_candidates(kMostPerFamily);
    std::vector<perfdb::Sample> samples;
    for (const core::Op& op : ops) samples.push_back({op, family.predict_us(op)});
    const perfdb::FitResult fit = perfdb::fit_surfaces(std::move(samples), hardware, backend, version);
    for (size_t i = 0; i < fit.surfaces.size(); ++i) {
      perfdb::Surface surface = perfdb::decode(fit.surfaces[i].body, "fitted surface");
      surface.bands = bands(family, surface, ops, root_mean_square(fit.reports[i].log_errors));
      out.push_back(fit.surfaces[i]);
      out.back().body = perfdb::encode(surface);
    }
  }
  return out;
}

}  // namespace drydock::profiler
