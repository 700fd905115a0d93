#include "configurator/calibrate.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <unsupported/Eigen/NonLinearOptimization>

#include "configurator/means.h"
#include "configurator/parallel.h"
#include "configurator/points.h"
#include "configurator/predict.h"
#include "configurator/space.h"

namespace drydock::configurator {
namespace {

using simulator::BackendModel;

// A point counts by its size, not its square, beyond this error of ln; a prior that is one width off costs as much as
// an error of this size.
constexpr double kSoft = 0.1;
constexpr int kMostSteps = 6;      // of the optimiser; each needs an evaluation per knob
constexpr int kMostFoldSteps = 4;  // of a fold, which begins near its end
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

// Predictions of all points, again and again with other figures.
class Evaluator {
 public:
  Evaluator(const std::vector<MeasuredPoint>& points, Resources& resources)
      : points_(points), resources_(resources), base_(resources.backends()), predictor_(plans_of(points), resources) {
    for (const MeasuredPoint& p : points) {
      int gpus = 1;
      for (const models::Pool& pool : p.plan.pools) gpus = std::max(gpus, pool.parallelism.gpus());
      traits_.push_back({gpus > 1, has_experts(resources.model(p.plan.model))});
    }
  }
  ~Evaluator() { resources_.set_backends(base_); }
  Evaluator(const Evaluator&) = delete;

  const std::vector<BackendModel>& base() const { return base_; }

  std::vector<PointError> errors(const std::vector<BackendModel>& figures, const std::vector<size_t>& which) {
    set(figures);
    std::vector<PointError> out(which.size());
    in_parallel(which.size(), [&](size_t i) {
      const MeasuredPoint& p = points_[which[i]];
      const auto got = predictor_.of(which[i]);
      out[i] = {which[i], got ? got->ttft_ms / p.ttft_ms : 10, got ? got->tpot_ms / p.tpot_ms : 10,
                got ? got->outside_users : -1};
    });
    return out;
  }

  // `here` with only those points predicted anew that the knob can change.
  std::vector<PointError> moved(const std::vector<BackendModel>& from, const std::vector<BackendModel>& to,
                                const Knob& knob, const std::vector<PointError>& here) {
    std::vector<PointError> out = here;
    std::vector<size_t> again, place;
    for (size_t i = 0; i < here.size(); ++i) {
      const MeasuredPoint& p = points_[here[i].point];
      const auto backend = static_cast<size_t>(p.plan.backend);
      if (!(knob.backends >> backend & 1) || !matters(knob, traits_[here[i].point])) continue;
      if (is_outside(knob) && here[i].outside_users >= 0) {
        const double users = here[i].outside_users;
        out[i].ttft += (to[backend].outside_ms(users) - from[backend].outside_ms(users)) / p.ttft_ms;
        continue;
      }
      again.push_back(here[i].point);
      place.push_back(i);
    }
    if (again.empty()) return out;
    const std::vector<PointError> anew = errors(to, again);
    for (size_t i = 0; i < anew.size(); ++i) out[place[i]] = anew[i];
    return out;
  }

 private:
  struct Traits {
    bool communicates, experts;
  };

  static std::vector<const models::Plan*> plans_of(const std::vector<MeasuredPoint>& points) {
    std::vector<const models::Plan*> out;
    for (const MeasuredPoint& p : points) out.push_back(&p.plan);
    return out;
  }

  static bool matters(const Knob& knob, const Traits& traits) {
    if (knob.figure == &BackendModel::communication || knob.figure == &BackendModel::collective_us)
      return traits.communicates;
    if (knob.figure == &BackendModel::moe || knob.figure == &BackendModel::moe_many ||
        knob.figure == &BackendModel::moe_fp8_block)
      return traits.experts;
    return true;
  }

  // Of what is added to the TTFT outside the engine, and changes nothing inside.
  static bool is_outside(const Knob& knob) {
    return knob.figure == &BackendModel::request_ms || knob.figure == &BackendModel::request_ms_per_concurrent;
  }

  void set(const std::vector<BackendModel>& figures) {
    resources_.set_backends(figures);
    predictor_.figures_changed();
  }

  const std::vector<MeasuredPoint>& points_;
  Resources& resources_;
  const std::vector<BackendModel> base_;
  MeanPredictor predictor_;
  std::vector<Traits> traits_;
};

// Predictions at one place, and how they change with each knob, for the folds of left_out() to share.
struct Linear {
  Eigen::VectorXd z;
  std::map<size_t, PointError> here;                // by point
  std::vector<std::map<size_t, PointError>> moved;  // by knob
};

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
  Evaluator& evaluator;
  const std::function<void(int)>& progress;
  const Linear* known = nullptr;  // where to begin
  Linear* kept = nullptr;         // gets what the last derivatives were made of
  mutable int evaluations = 0;
  mutable Eigen::VectorXd last_z{};
  mutable std::vector<PointError> last{};  // there

  int inputs() const { return static_cast<int>(knobs.size()); }
  int values() const { return static_cast<int>(2 * which.size() + knobs.size()); }

  std::vector<BackendModel> figures(const Eigen::VectorXd& z) const { return with(evaluator.base(), knobs, z); }

  const std::vector<PointError>& at(const Eigen::VectorXd& z) const {
    if (last_z.size() == z.size() && last_z == z) return last;
    last_z = z;
    if (known && known->z == z) {
      last.clear();
      for (const size_t p : which) last.push_back(known->here.at(p));
      return last;
    }
    last = evaluator.errors(figures(z), which);
    if (progress) progress(++evaluations);
    return last;
  }

  Eigen::VectorXd residuals(const std::vector<PointError>& errors, const Eigen::VectorXd& z) const {
    Eigen::VectorXd out(values());
    long row = 0;
    for (const PointError& e : errors) {
      const double scale = std::sqrt(points[e.point].weight);
      out[row++] = scale * soft(std::log(e.ttft));
      // Answers of one token have no TPOT to fit.
      out[row++] = std::isfinite(e.tpot) ? scale * soft(std::log(e.tpot)) : 0;
    }
    for (long k = 0; k < z.size(); ++k) out[row++] = z[k] - 1;
    return out;
  }

  int operator()(const Eigen::VectorXd& z, Eigen::VectorXd& out) const {
    out = residuals(at(z), z);
    return 0;
  }

  int df(const Eigen::VectorXd& z, Eigen::MatrixXd& jacobian) const {
    const std::vector<PointError> here = at(z);
    const Eigen::VectorXd start = residuals(here, z);
    const bool shared = known && known->z == z;
    if (kept) *kept = {z, by_point(here), {}};
    for (long k = 0; k < z.size(); ++k) {
      Eigen::VectorXd z_there = z;
      z_there[k] += kStep;
      std::vector<PointError> there;
      if (shared)
        for (const size_t p : which) there.push_back(known->moved[static_cast<size_t>(k)].at(p));
      else
        there = evaluator.moved(figures(z), figures(z_there), knobs[static_cast<size_t>(k)], here);
      if (kept) kept->moved.push_back(by_point(there));
      jacobian.col(k) = (residuals(there, z_there) - start) / kStep;
      if (progress && !shared) progress(++evaluations);
    }
    return 0;
  }

  static std::map<size_t, PointError> by_point(const std::vector<PointError>& errors) {
    std::map<size_t, PointError> out;
    for (const PointError& e : errors) out.emplace(e.point, e);
    return out;
  }
};

Eigen::VectorXd solve(const Problem& problem, Eigen::VectorXd z, int steps) {
  if (problem.which.empty()) return z;
  Eigen::LevenbergMarquardt<const Problem> solver(problem);
  solver.parameters.maxfev = steps;
  solver.parameters.ftol = solver.parameters.xtol = 1e-3;
  solver.parameters.factor = 0.3;  // first step of at most a third of |z|: a width or two
  solver.minimize(z);
  return z;
}

Eigen::VectorXd ones(const std::vector<Knob>& knobs) { return Eigen::VectorXd::Ones(static_cast<long>(knobs.size())); }

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
  const std::vector<size_t> which = usable(points);
  Evaluator evaluator(points, resources);
  Calibration out;
  out.before = evaluator.errors(evaluator.base(), all);
  const Problem problem{points, which, knobs, evaluator, progress};
  const Eigen::VectorXd z = solve(problem, ones(knobs), kMostSteps);
  out.place.assign(z.data(), z.data() + z.size());
  out.backends = with(evaluator.base(), knobs, z);
  for (size_t k = 0; k < knobs.size(); ++k)
    out.values.push_back(knobs[k].start *
                         std::exp(knobs[k].width * std::clamp(z[static_cast<long>(k)] - 1, -kMostWidths, kMostWidths)));
  out.after = evaluator.errors(out.backends, all);
  return out;
}

std::vector<PointError> left_out(const std::vector<MeasuredPoint>& points, const std::vector<Knob>& knobs,
                                 const Calibration& fitted, Resources& resources, int most,
                                 const std::function<void(int)>& progress) {
  std::map<std::string, int> folds;
  for (const MeasuredPoint& p : points)
    if (!p.doubt && !folds.contains(p.group)) folds.emplace(p.group, static_cast<int>(folds.size()) % most);
  Evaluator evaluator(points, resources);
  const std::vector<size_t> all = usable(points);
  // All folds begin where the fit to all points ended, and with the derivatives there.
  Linear linear;
  Problem whole{points, all, knobs, evaluator, progress, nullptr, &linear};
  const Eigen::VectorXd start = Eigen::Map<const Eigen::VectorXd>(fitted.place.data(), static_cast<long>(knobs.size()));
  Eigen::MatrixXd unused(whole.values(), whole.inputs());
  whole.df(start, unused);
  std::vector<PointError> out;
  for (int fold = 0; fold < std::min<int>(most, static_cast<int>(folds.size())); ++fold) {
    std::vector<size_t> rest, held;
    for (const size_t i : all) (folds[points[i].group] == fold ? held : rest).push_back(i);
    const Problem problem{points, rest, knobs, evaluator, progress, &linear, nullptr};
    const Eigen::VectorXd z = solve(problem, rest.empty() ? ones(knobs) : start, kMostFoldSteps);
    for (const PointError& e : evaluator.errors(with(evaluator.base(), knobs, z), held)) out.push_back(e);
  }
  return out;
}

}  // namespace drydock::configurator
