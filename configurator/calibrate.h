#pragma once
// Fits a few physical figures of the backends to measured points, held by priors, and says what error to expect
// elsewhere.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "configurator/resources.h"
#include "core/csv.h"
#include "models/plan.h"

namespace drydock::configurator {

// A figure that may move, in ln, from `start` with a prior of width `width`; one value for all backends of the mask.
struct Knob {
  std::string name;
  double simulator::BackendModel::*figure = nullptr;
  uint8_t backends = 0;  // bit i: models::Backend i
  double start = 1, width = 1;
};

// The scales that a user's own measurements move: compute, bandwidth, host, request, of every backend in the points.
std::vector<Knob> user_knobs(uint8_t backends);
// All overheads and factors, from uncalibrated starts: how the shipped figures are made.
std::vector<Knob> all_knobs();

// A measured deployment.
struct MeasuredPoint {
  models::Plan plan;
  double ttft_ms = 0, tpot_ms = 0;
  std::string group;                 // that it is left out with
  std::optional<std::string> doubt;  // why it can't be: it is not fitted
  int line = 0;                      // of the file
  double weight = 1;                 // how many independent points it counts as
};

// Gives n points of one model, system and backend the weight of sqrt(n) / 2 together: they are wrong alike, so many of
// them say little more than a few. For fits over many deployments; a user's points of one say all there is to fit.
void weigh_by_deployment(std::vector<MeasuredPoint>& points);

// Why no engine can have measured this: more arithmetic or memory traffic than the GPUs have, or Little's law broken.
// Needs the workload's concurrency. `requests_per_s` as measured; 0: not known.
std::optional<std::string> why_not_physical(const MeasuredPoint& point, double requests_per_s, Resources& resources);

enum class LeaveOut : uint8_t { point, model, system };

// Rows with ttft_ms and tpot_ms and without spec_doubt; disaggregated ones too. Throws core::Error on a bad row.
std::vector<MeasuredPoint> measured_points(const core::Csv& points, LeaveOut by, Resources& resources);

struct PointError {
  size_t point = 0;
  double ttft = 1, tpot = 1;  // predicted / measured
  double outside_users = -1;  // see MeanPredictor::Means; -1: no prediction
};

struct Calibration {
  std::vector<simulator::BackendModel> backends;
  std::vector<double> values;             // of the knobs
  std::vector<double> place;              // as the optimiser sees them: 1 + ln(value / start) / width
  std::vector<PointError> before, after;  // with the figures given and with the fitted ones
};

// Minimises the weighted soft-L1 errors of ln TTFT and ln TPOT plus the priors' squares. `progress(i)`: evaluation i is
// done.
Calibration fit(const std::vector<MeasuredPoint>& points, const std::vector<Knob>& knobs, Resources& resources,
                const std::function<void(int)>& progress = {});

// Each group's points predicted with figures fitted to the others, from where the fit to all of them ended. With more
// than `most` groups, so many folds.
std::vector<PointError> left_out(const std::vector<MeasuredPoint>& points, const std::vector<Knob>& knobs,
                                 const Calibration& fitted, Resources& resources, int most,
                                 const std::function<void(int)>& progress = {});

}  // namespace drydock::configurator
