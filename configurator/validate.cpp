#include <algorithm>
#include <cmath>
#include <tuple>

#include "configurator/points.h"

namespace drydock::configurator {
namespace {

constexpr double kTargetsMs[] = {10, 20, 30, 50};  // of the regret
constexpr size_t kLeastGroup = 4;
constexpr double kMissOver = 1.1;

// One row with its truth; 0 where a figure is missing.
struct Scored {
  size_t row;
  double ttft = 0, tpot = 0;
  const models::Prediction* predicted = nullptr;
  double gpus = 0, concurrency = 0, osl = 0;
  bool clean = true;

  double throughput(double ttft_ms, double tpot_ms) const {
    return concurrency * osl / (ttft_ms + tpot_ms * (osl - 1)) * 1000 / gpus;
  }
};

double cell_or_zero(const core::Csv& csv, size_t row, const std::string& column) {
  const auto at = csv.find(column);
  return at ? csv.number(row, *at, -1e15, 1e15).value_or(0) : 0;
}

// GPUs as the row states them, whatever its sizes were read as.
double gpus_of(const core::Csv& csv, size_t row) {
  const auto side = [&](const std::string& prefix) {
    return cell_or_zero(csv, row, prefix + "tp_size") * std::max(1.0, cell_or_zero(csv, row, prefix + "pp_size")) *
           std::max(1.0, cell_or_zero(csv, row, prefix + "attention_dp_size"));
  };
  if (csv.cell(row, csv.column("mode")) == "agg") return side("");
  return cell_or_zero(csv, row, "prefill_num_workers") * side("prefill_") +
         cell_or_zero(csv, row, "decode_num_workers") * side("decode_");
}

std::vector<Scored> scored_rows(const core::Csv& points, const std::vector<PointPrediction>& predictions) {
  points.require({"ttft_ms", "tpot_ms"});
  std::vector<Scored> out;
  for (size_t i = 0; i < points.rows(); ++i) {
    Scored s{i};
    s.ttft = cell_or_zero(points, i, "ttft_ms");
    s.tpot = cell_or_zero(points, i, "tpot_ms");
    s.predicted = predictions[i].prediction ? &*predictions[i].prediction : nullptr;
    s.gpus = gpus_of(points, i);
    s.concurrency = cell_or_zero(points, i, "concurrency");
    s.osl = cell_or_zero(points, i, "osl");
    s.clean = cell_or_zero(points, i, "spec_doubt") == 0;
    out.push_back(s);
  }
  return out;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

ErrorSummary::Figure figure_error(const std::vector<const Scored*>& rows, double Scored::*truth,
                                  core::Figure models::Prediction::*predicted) {
  std::vector<double> sizes, signed_errors;
  double within = 0, in_band = 0, sum = 0;
  for (const Scored* s : rows) {
    if (!s->predicted || s->*truth <= 0) continue;
    const core::Figure& f = s->predicted->*predicted;
    const double error = (f.value / (s->*truth) - 1) * 100;
    signed_errors.push_back(error);
    sizes.push_back(std::abs(error));
    sum += std::abs(error);
    within += std::abs(error) < 20;
    in_band += f.low <= s->*truth && s->*truth <= f.high;
  }
  const double n = std::max<double>(1, static_cast<double>(sizes.size()));
  return {sum / n, median(sizes), median(signed_errors), within / n * 100, in_band / n * 100};
}

ErrorSummary summarize(const std::vector<const Scored*>& rows) {
  ErrorSummary out;
  out.rows = static_cast<int64_t>(rows.size());
  out.predicted = std::count_if(rows.begin(), rows.end(), [](const Scored* s) { return s->predicted; });
  out.ttft = figure_error(rows, &Scored::ttft, &models::Prediction::ttft_ms);
  out.tpot = figure_error(rows, &Scored::tpot, &models::Prediction::tpot_ms);
  return out;
}

void choose(const std::vector<const Scored*>& group, double target_ms, Regret& regret, double& lost) {
  double best = 0, said_best = -1;
  const Scored* chosen = nullptr;
  for (const Scored* s : group) {
    if (s->tpot <= target_ms) best = std::max(best, s->throughput(s->ttft, s->tpot));
    if (!s->predicted || s->predicted->tpot_ms.value > target_ms) continue;
    if (const double said = s->throughput(s->predicted->ttft_ms.value, s->predicted->tpot_ms.value); said > said_best)
      said_best = said, chosen = s;
  }
  if (best <= 0) return;
  ++regret.choices;
  if (!chosen) {
    lost += 100;
    return;
  }
  if (chosen->tpot > target_ms * kMissOver) ++regret.misses;
  lost += std::max(0.0, 100 * (1 - chosen->throughput(chosen->ttft, chosen->tpot) / best));
}

Regret regret_of(const core::Csv& points, const std::vector<const Scored*>& rows) {
  std::map<std::vector<std::string>, std::vector<const Scored*>> groups;
  for (const Scored* s : rows) {
    if (s->concurrency <= 0 || s->gpus <= 0) continue;
    std::vector<std::string> key;
    for (const char* column : {"model", "system", "precision", "isl", "osl"})
      key.push_back(points.find(column) ? points.cell(s->row, points.column(column)) : "");
    groups[key].push_back(s);
  }
  Regret regret;
  double lost = 0;
  for (const auto& [key, group] : groups)
    if (group.size() >= kLeastGroup)
      for (const double target : kTargetsMs) choose(group, target, regret, lost);
  regret.mean_loss = regret.choices > 0 ? lost / static_cast<double>(regret.choices) : 0;
  return regret;
}

}  // namespace

Validation validate(const core::Csv& points, const std::vector<PointPrediction>& predictions) {
  Validation out;
  const std::vector<Scored> rows = scored_rows(points, predictions);
  std::vector<const Scored*> all, clean;
  std::map<std::string, std::vector<const Scored*>> groups;
  for (const Scored& s : rows) {
    all.push_back(&s);
    if (!s.clean) continue;
    clean.push_back(&s);
    for (const std::string& reading : predictions[s.row].readings) ++out.readings[reading];
    for (const char* column : {"mode", "system", "backend", "model"})
      groups[std::string(column) + "=" + points.cell(s.row, points.column(column))].push_back(&s);
  }
  out.all = summarize(all);
  out.clean = summarize(clean);
  for (const auto& [name, members] : groups) out.groups[name] = summarize(members);
  out.regret = regret_of(points, clean);
  return out;
}

}  // namespace drydock::configurator
