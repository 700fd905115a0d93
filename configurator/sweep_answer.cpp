// One item of a sweep, asked and put into words that are stored.
#include <fmt/format.h>

#include <algorithm>

#include "configurator/sweep.h"

namespace drydock::configurator {
namespace {

core::Json plan_fields(const models::Plan& plan) { return core::parse_json(models::to_json(plan), "plan"); }

core::Json asked(const SweepItem& item) {
  const Question& q = item.question;
  core::Json out = {{"item", item.index}, {"model", q.model}, {"system", q.system}};
  if (!q.decode_system.empty()) out["decode_system"] = q.decode_system;
  out["precision"] = q.precision;
  out["backend"] = q.backend ? models::name(*q.backend) : "auto";
  out["gpus"] = q.gpus;
  out["workload"] = item.workload;
  out["slo"] = item.slo;
  return out;
}

// Why candidates fell out, the commonest first.
std::string why_nothing_runs(const Counts& counts) {
  if (counts.reasons.empty()) return "no candidate on so many GPUs";
  const auto most = std::max_element(counts.reasons.begin(), counts.reasons.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return fmt::format("{} of {} candidates: {}", most->second, counts.enumerated, most->first);
}

void put_answer(const Answer& answer, core::Json& out) {
  if (!answer.plans.empty()) {
    const Ranked& best = answer.plans.front();
    out["status"] = "met";
    out["reason"] = "";
    if (!best.binding.empty()) out["binding"] = {{"target", best.binding}, {"share_of_target", best.tightness}};
    out["plan"] = plan_fields(best.plan);
  } else if (!answer.nearest.empty()) {
    const Ranked& nearest = answer.nearest.front();
    out["status"] = "missed";
    out["reason"] = fmt::format("{} is {:.3g} x its target in the nearest plan", nearest.binding, nearest.tightness);
    out["binding"] = {{"target", nearest.binding}, {"share_of_target", nearest.tightness}};
    out["nearest"] = plan_fields(nearest.plan);
  } else {
    out["status"] = "impossible";
    out["reason"] = why_nothing_runs(answer.counts);
  }
  const Counts& c = answer.counts;
  out["searched"] = {{"enumerated", c.enumerated}, {"illegal", c.illegal}, {"out_of_memory", c.out_of_memory},
                     {"overloaded", c.overloaded}, {"priced", c.priced},   {"meeting_slo", c.meeting_slo}};
}

}  // namespace

core::Json sweep_answer(const SweepItem& item, Resources& resources) {
  core::Json out = asked(item);
  try {
    put_answer(recommend(item.question, resources), out);
  } catch (const core::Error& error) {  // a context too long for this model, a format that it has not
    out["status"] = "refused";
    out["reason"] = error.what();
  }
  return out;
}

}  // namespace drydock::configurator
