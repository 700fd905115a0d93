#include "configurator/calibrate.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <unsupported/Eigen/NonLinearOptimization>

#include "configurator/parallel.h"
#include "configurator/points.h"
#include "configurator/predict.h"

namespace drydock::configurator {
namespace {

using simulator::BackendModel;

// A point counts by its size, not its square, beyond this error of ln; a prior that is one width off costs as much as
// an error of this size.
constexpr double kSoft = 0.1;
constexpr int kMostSteps = 6;      // of the optimiser; each needs an evaluation per knob
constexpr double kStep = 0.03;     // of the differences, in widths
constexpr double kMostWidths = 4;  // from the start

double soft(double error) {
  const double r = error / kSoft;
  return std::copysign(std::sqrt(2 * (std::sqrt(1 + r * r) - 1)), r);
}

std::vector<BackendModel> with(std::vector<BackendModel> models, const std::vector<Knob>& knobs,
                               const Eigen::VectorXd& z) {
  for (size_t k = 0; k < knobs.size(); ++k) {
    const double moved = std::clamp(z[static_cast<long>(k)] - 1, -kMostWidths, kMostWidths);
    for (size_t b = 0; b < models.size(); ++b)
      if (knobs[k].backends >> b & 1) models[b].*knobs[k].figure = knobs[k].start * std::exp(knobs[k].width * moved);
  }
  return models;
}

std::vector<PointError> errors(const std::vector<MeasuredPoint>& points, const std::vector<size_t>& which,
                               Resources& resources) {
  std::vector<PointError> out(which.size());
  in_parallel(which.size(), [&](size_t i) {
    const MeasuredPoint& p = points[which[i]];
    const auto got = predict(p.plan, resources, Fit::assumed);
    out[i] = {which[i], got ? got->ttft_ms.value / p.ttft_ms : 10, got ? got->tpot_ms.value / p.tpot_ms : 10};
  });
  return out;
}

// What the optimiser sees: z around 1, in widths of the priors, so that relative steps are steps.
struct Problem {
  using Scalar = double;
  using InputType = Eigen::VectorXd;
  using ValueType = Eigen::VectorXd;
  using JacobianType = Eigen::MatrixXd;
  enum { InputsAtCompileTime = Eigen::Dynamic, ValuesAtCompileTime = Eigen::Dynamic };

  const std::vector<MeasuredPoint>& points;
  const std::vector<size_t>& which;
  const std::vector<Knob>& knobs;
  const std::vector<BackendModel>& base;
  Resources& resources;
  const std::function<void(int)>& progress;
  mutable int evaluations = 0;

  int inputs() const { return static_cast<int>(knobs.size()); }
  int values() const { return static_cast<int>(2 * which.size() + knobs.size()); }

  int operator()(const Eigen::VectorXd& z, Eigen::VectorXd& out) const {
    resources.set_backends(with(base, knobs, z));
    long at = 0;
    for (const PointError& e : errors(points, which, resources)) {
      const double scale = std::sqrt(points[e.point].weight);
      out[at++] = scale * soft(std::log(e.ttft));
      // Answers of one token have no TPOT to fit.
      out[at++] = std::isfinite(e.tpot) ? scale * soft(std::log(e.tpot)) : 0;
    }
    for (long k = 0; k < z.size(); ++k) out[at++] = z[k] - 1;
    if (progress) progress(++evaluations);
    return 0;
  }

  int df(const Eigen::VectorXd& z, Eigen::MatrixXd& jacobian) const {
    Eigen::VectorXd here(values()), there(values());
    (*this)(z, here);
    for (long k = 0; k < z.size(); ++k) {
      Eigen::VectorXd moved = z;
      moved[k] += kStep;
      (*this)(moved, there);
      jacobian.col(k) = (there - here) / kStep;
    }
    return 0;
  }
};

Eigen::VectorXd solve(const std::vector<MeasuredPoint>& points, const std::vector<size_t>& which,
                      const std::vector<Knob>& knobs, Resources& resources, const std::function<void(int)>& progress) {
  const std::vector<BackendModel> base = resources.backends();
  const Problem problem{points, which, knobs, base, resources, progress};
  Eigen::VectorXd z = Eigen::VectorXd::Ones(static_cast<long>(knobs.size()));
  if (!which.empty()) {
    Eigen::LevenbergMarquardt<const Problem> solver(problem);
    solver.parameters.maxfev = kMostSteps;
    solver.parameters.ftol = solver.parameters.xtol = 1e-3;
    solver.parameters.factor = 0.3;  // first step of at most a third of |z|: a width or two
    solver.minimize(z);
  }
  resources.set_backends(base);
  return z;
}

std::vector<size_t> usable(const std::vector<MeasuredPoint>& points) {
  std::vector<size_t> out;
  for (size_t i = 0; i < points.size(); ++i)
    if (!points[i].doubt) out.push_back(i);
  return out;
}

}  // namespace

void weigh_by_deployment(std::vector<MeasuredPoint>& points) {
  const auto deployment = [](const MeasuredPoint& p) {
    return std::tuple(p.plan.model, p.plan.pools.front().system, p.plan.backend);
  };
  std::map<std::tuple<std::string, std::string, models::Backend>, double> count;
  for (const MeasuredPoint& p : points)
    if (!p.doubt) ++count[deployment(p)];
  for (MeasuredPoint& p : points)
    if (!p.doubt) p.weight = 0.5 / std::sqrt(count[deployment(p)]);
}

std::vector<Knob> user_knobs(uint8_t backends) {
  std::vector<Knob> out;
  for (uint8_t b = 0; b < models::kBackends; ++b) {
    if (!(backends >> b & 1)) continue;
    const auto mask = static_cast<uint8_t>(1 << b);
    // Kernel times are known to some 15 %, overheads to a factor of 2: what left-out models have shown.
    out.push_back({"compute", &BackendModel::compute, mask, 1, 0.2});
    out.push_back({"bandwidth", &BackendModel::bandwidth, mask, 1, 0.2});
    out.push_back({"host", &BackendModel::host, mask, 1, 0.7});
    out.push_back({"request", &BackendModel::request, mask, 1, 0.7});
  }
  return out;
}

// Widths: kernel times were measured by others in isolation, so their factors stay near 1; that of experts nearest, as
// what one model's experts need says little of another's. Overheads are known to a third.
std::vector<Knob> all_knobs() {
  constexpr uint8_t kAll = (1 << models::kEngines) - 1, kVllm = 1 << static_cast<int>(models::Backend::vllm);
  std::vector<Knob> out = {{"gemm", &BackendModel::gemm, kAll, 1, 0.05},
                           {"attention", &BackendModel::attention, kAll, 1, 0.1},
                           {"moe", &BackendModel::moe, kAll, 1, 0.02},
                           {"collective_us", &BackendModel::collective_us, kAll, 2, 0.5},
                           {"moe_many", &BackendModel::moe_many, kVllm, 1, 0.25},
                           {"moe_fp8_block", &BackendModel::moe_fp8_block, kVllm, 1, 0.25},
                           {"request_ms_per_concurrent", &BackendModel::request_ms_per_concurrent, kAll, 0.1, 0.5},
                           {"host_us_per_sequence", &BackendModel::host_us_per_sequence, kAll, 1, 0.5}};
  for (uint8_t b = 0; b < models::kEngines; ++b) {
    const auto mask = static_cast<uint8_t>(1 << b);
    out.push_back({"prompt_us", &BackendModel::prompt_us, mask, 1000, 0.35});
    out.push_back({"layer_us", &BackendModel::layer_us, mask, 1, 0.35});
    out.push_back({"host_us", &BackendModel::host_us, mask, 300, 0.35});
    out.push_back({"request_ms", &BackendModel::request_ms, mask, 15, 0.35});
    out.push_back({"communication", &BackendModel::communication, mask, 1, 0.1});
    out.push_back({"prompt_kernels", &BackendModel::prompt_kernels, mask, 1, 0.05});
  }
  return out;
}

Calibration fit(const std::vector<MeasuredPoint>& points, const std::vector<Knob>& knobs, Resources& resources,
                const std::function<void(int)>& progress) {
  std::vector<size_t> all(points.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  Calibration out;
  out.before = errors(points, all, resources);
  const Eigen::VectorXd z = solve(points, usable(points), knobs, resources, progress);
  const std::vector<BackendModel> base = resources.backends();
  out.backends = with(base, knobs, z);
  for (size_t k = 0; k < knobs.size(); ++k)
    out.values.push_back(knobs[k].start *
                         std::exp(knobs[k].width * std::clamp(z[static_cast<long>(k)] - 1, -kMostWidths, kMostWidths)));
  resources.set_backends(out.backends);
  out.after = errors(points, all, resources);
  resources.set_backends(base);
  return out;
}

std::vector<PointError> left_out(const std::vector<MeasuredPoint>& points, const std::vector<Knob>& knobs,
                                 Resources& resources, int most, const std::function<void(int)>& progress) {
  std::map<std::string, int> folds;
  for (const MeasuredPoint& p : points)
    if (!p.doubt && !folds.contains(p.group)) folds.emplace(p.group, static_cast<int>(folds.size()) % most);
  const std::vector<BackendModel> base = resources.backends();
  std::vector<PointError> out;
  for (int fold = 0; fold < std::min<int>(most, static_cast<int>(folds.size())); ++fold) {
    std::vector<size_t> rest, held;
    for (const size_t i : usable(points)) (folds[points[i].group] == fold ? held : rest).push_back(i);
    resources.set_backends(with(base, knobs, solve(points, rest, knobs, resources, progress)));
    for (const PointError& e : errors(points, held, resources)) out.push_back(e);
    resources.set_backends(base);
  }
  return out;
}

}  // namespace drydock::configurator
