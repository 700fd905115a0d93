#include "configurator/study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "configurator/parallel.h"
#include "configurator/space.h"
#include "core/error.h"
#include "simulator/simulation.h"

namespace drydock::configurator {
namespace {

using models::Plan;
using simulator::BackendModel;

constexpr double kChangeBy = 0.1;  // of what is moved as a share of itself, and of shares themselves
constexpr double kMostCached = 0.95;
constexpr int kTries = 3;                         // batch limits tried beside the plan's own
constexpr double kClose = 0.97;                   // of the target that binds: near enough
constexpr double kWidest = 0.5;                   // of a step in ln(batch)
constexpr double kFlattest = 0.2, kSteepest = 8;  // of ln(tightness) over ln(batch)

// A changed assumption: what it does to a plan, or to the backends' figures.
struct Variant {
  std::string assumption, change;
  int direction = 0;
  std::function<void(Plan&)> plan;
  std::function<void(BackendModel&)> backend;
};

std::string percent_change(int direction) {
  return fmt::format("{}{:.0f} %", direction > 0 ? "+" : "-", kChangeBy * 100);
}

class Variants {
 public:
  Variants(const Plan& plan, bool communicates, Resources& resources)
      : plan_(plan), architecture_(resources.model(plan.model)) {
    out_.push_back({});
    kernels(communicates);
    scale_of("host time of a step", &BackendModel::host);
    workload();
    drafts();
    skew();
  }
  std::vector<Variant> take() { return std::move(out_); }

 private:
  // Both sides of a figure of the backends.
  template <typename Apply>
  void scaled(const char* assumption, const Apply& apply) {
    for (const int direction : {1, -1})
      out_.push_back({assumption, percent_change(direction), direction, {}, [=](BackendModel& model) {
                        apply(model, 1 + direction * kChangeBy);
                      }});
  }

  void scale_of(const char* assumption, double BackendModel::*figure) {
    scaled(assumption, [=](BackendModel& m, double factor) { m.*figure *= factor; });
  }

  void kernels(bool communicates) {
    scaled("all kernel times", [](BackendModel& m, double factor) {
      m.compute *= factor;  // these two together scale all but communication
      m.bandwidth *= factor;
      m.communication *= factor;
    });
    scale_of("GEMM times", &BackendModel::gemm);
    scale_of("attention times", &BackendModel::attention);
    if (has_experts(architecture_)) scale_of("expert times", &BackendModel::moe);
    if (communicates) scale_of("communication times", &BackendModel::communication);
  }

  void workload() {
    const models::Workload& w = plan_.workload;
    const auto length = [](int64_t tokens, double factor) {
      return std::max<int64_t>(1, std::llround(static_cast<double>(tokens) * factor));
    };
    for (const int direction : {1, -1}) {
      const double factor = 1 + direction * kChangeBy;
      if (length(w.isl, factor) + w.osl <= architecture_.max_context)
        add("prompt length (ISL)", fmt::format("{} tokens", length(w.isl, factor)), direction,
            [=](Plan& p) { p.workload.isl = length(p.workload.isl, factor); });
      if (length(w.osl, factor) + w.isl <= architecture_.max_context)
        add("answer length (OSL)", fmt::format("{} tokens", length(w.osl, factor)), direction,
            [=](Plan& p) { p.workload.osl = length(p.workload.osl, factor); });
      const double cached = std::clamp(w.prefix_hit + direction * kChangeBy, 0.0, kMostCached);
      if (cached != w.prefix_hit)
        add("prefix cache hits", fmt::format("{:.0f} % of the prompt", cached * 100), direction,
            [=](Plan& p) { p.workload.prefix_hit = cached; });
      if (w.rate)
        add("request rate", percent_change(direction), direction, [=](Plan& p) { *p.workload.rate *= factor; });
      if (w.concurrency)
        add("requests in flight", percent_change(direction), direction,
            [=](Plan& p) { *p.workload.concurrency = std::max(1.0, std::round(*p.workload.concurrency * factor)); });
    }
  }

  // Acceptance of every draft up and down, within [0, 1].
  void drafts() {
    const auto drafts = simulator::speculation_of(plan_.speculative, architecture_, "field 'speculative'");
    if (!drafts) return;
    for (const int direction : {1, -1}) {
      std::string text;
      for (const double p : drafts->acceptance)
        text += fmt::format("{}{:.6g}", text.empty() ? "" : "/", std::clamp(p + direction * kChangeBy, 0.0, 1.0));
      const std::string whole = fmt::format("{}:k={},p={}", scheduler::name(drafts->method), drafts->drafts(), text);
      add("acceptance of drafts", fmt::format("{:+.1f}", direction * kChangeBy), direction,
          [=](Plan& p) { p.speculative = whole; });
    }
  }

  // From even to a mild power law where no skew was given; else up and down.
  void skew() {
    const models::Experts& e = plan_.experts;
    const bool spread = std::any_of(plan_.pools.begin(), plan_.pools.end(),
                                    [](const models::Pool& pool) { return pool.parallelism.ep > 1; });
    if (!spread || !e.histogram.empty()) return;
    constexpr double kMild = 0.2;
    const double now = e.skew.value_or(0);
    for (const int direction : {1, -1})
      if (const double skewed = now + direction * kMild; skewed >= 0)
        add("expert skew", fmt::format("exponent {:.1f}", skewed), direction,
            [=](Plan& p) { p.experts.skew = skewed; });
  }

  void add(const char* assumption, std::string change, int direction, std::function<void(Plan&)> apply) {
    out_.push_back({assumption, std::move(change), direction, std::move(apply), {}});
  }

  const Plan& plan_;
  const models::Architecture& architecture_;
  std::vector<Variant> out_;
};

// One plan with its engines, judged at any batch limit.
class Retuned {
 public:
  Retuned(const Plan& plan, Resources& resources, const BackendModel& backend)
      : plan_(plan),
        instances_(instances_of(plan, resources, Fit::required, &backend)),
        price_(price_per_hour(plan, resources)) {}

  Moved judge() {
    const int64_t own = plan_.pools.back().max_batch;
    const auto first = try_at(own);
    out_.as_deployed = first.prediction;
    out_.meets = first.meets();
    // Where the load is given, a smaller limit only makes users wait; without targets there is nothing to tune for.
    if (!plan_.workload.rate && !plan_.workload.concurrency && first.tightness > 0) tune(first);
    return out_;
  }

 private:
  struct Try {
    int64_t batch = 0;
    double tightness = 0;  // 0: can't be told
    std::optional<models::Prediction> prediction;

    bool meets() const { return prediction && tightness <= 1; }
  };

  Try try_at(int64_t batch) {
    simulator::Deployment deployment = instances_.deployment;
    deployment.parts.back().max_batch = batch;
    simulator::LoadOptions options;
    options.gives_up = false;
    const auto served = simulator::serve(deployment, plan_.workload, targets_of(plan_.slo), options);
    Try t{batch, 0, std::nullopt};
    if (served) t.prediction = prediction_of(*served, plan_.workload, plan_.gpus(), price_);
    if (served) t.tightness = binding_of(*t.prediction, plan_.slo).tightness;
    if (t.meets() && batch > out_.max_batch) out_.retuned = t.prediction, out_.max_batch = batch;
    return t;
  }

  // Secants of ln(tightness) over ln(batch) towards just below 1, between what met the targets and what missed them.
  void tune(Try last) {
    int64_t least = 1, most = std::max<int64_t>(last.batch, instances_.engines.back()->slots(plan_.workload));
    double slope = 1;
    for (int i = 0; i < kTries && !(last.meets() && last.tightness > kClose); ++i) {
      (last.meets() ? least : most) = last.batch + (last.meets() ? 1 : -1);
      if (least > most) return;
      const double step = std::clamp(std::log((1 + kClose) / 2 / last.tightness) / slope, -kWidest, kWidest);
      const int64_t batch = std::llround(static_cast<double>(last.batch) * std::exp(step));
      const Try next = try_at(std::clamp(batch, least, most));
      if (next.tightness <= 0) return;
      const double moved = std::log(static_cast<double>(next.batch) / static_cast<double>(last.batch));
      slope = std::clamp(std::log(next.tightness / last.tightness) / moved, kFlattest, kSteepest);
      last = next;
    }
  }

  const Plan& plan_;
  Instances instances_;
  std::optional<double> price_;
  Moved out_;
};

Moved under(Plan plan, const Variant& variant, Resources& resources) {
  if (variant.plan) variant.plan(plan);
  BackendModel backend = resources.backend(plan.backend);
  if (variant.backend) variant.backend(backend);
  try {
    return Retuned(plan, resources, backend).judge();
  } catch (const core::Error&) {  // out of memory with the longer prompts, for instance
    return {};
  }
}

int best_of(const std::vector<Plan>& plans, const std::vector<Moved>& moved, Goal goal) {
  int best = -1;
  std::pair<double, double> least;
  for (size_t i = 0; i < plans.size(); ++i) {
    if (!moved[i].retuned) continue;
    const models::Prediction& p = *moved[i].retuned;
    const double cost =
        p.cost_per_million_tokens ? p.cost_per_million_tokens->value : p.gpu_hours_per_million_tokens.value;
    const std::pair<double, double> rank{goal == Goal::fewest_gpus ? plans[i].gpus() : 0, cost};
    if (best < 0 || rank < least) best = static_cast<int>(i), least = rank;
  }
  return best;
}

std::vector<double> quantiles_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  std::vector<double> out;
  for (int i = 0; i <= kQuantiles; ++i) {  // type 7, as simulator::quantile
    const double at = static_cast<double>(values.size() - 1) * i / kQuantiles;
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, values.size() - 1);
    out.push_back(values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]));
  }
  return out;
}

}  // namespace

std::optional<Felt> felt(const Plan& plan, Resources& resources) {
  const Instances instances = instances_of(plan, resources);
  simulator::UserTimes times;
  simulator::LoadOptions options;
  options.gives_up = false;
  if (!simulator::serve(instances.deployment, plan.workload, targets_of(plan.slo), options, &times))
    return std::nullopt;
  return Felt{static_cast<int64_t>(times.ttft_ms.size()), quantiles_of(std::move(times.ttft_ms)),
              quantiles_of(std::move(times.tpot_ms)), quantiles_of(std::move(times.latency_ms))};
}

std::vector<Change> sensitivity(const std::vector<Plan>& plans, Goal goal, Resources& resources) {
  if (plans.empty()) return {};
  bool communicates = false;
  for (const Plan& plan : plans)
    for (const models::Pool& pool : plan.pools) communicates |= pool.parallelism.gpus() > 1;
  const std::vector<Variant> variants = Variants(plans.front(), communicates, resources).take();
  std::vector<Change> out;
  for (const Variant& v : variants)
    out.push_back({v.assumption, v.change, v.direction, std::vector<Moved>(plans.size()), -1});
  const size_t n = plans.size();
  in_parallel(variants.size() * n,
              [&](size_t job) { out[job / n].plans[job % n] = under(plans[job % n], variants[job / n], resources); });
  for (Change& change : out) change.best = best_of(plans, change.plans, goal);
  return out;
}

}  // namespace drydock::configurator
